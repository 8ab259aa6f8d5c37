"""What each member says of each field's cells, worked out once and kept: what choices are tried on."""

import logging
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells import FieldCells, kept_or_made, label_map_ids, segmenter
from hpa_kit.classes import N_CLASSES
from hpa_kit.config import EnsembleSettings, MemberSettings, TuneSettings
from hpa_kit.devices import pick_devices
from hpa_kit.files import atomic_path, forget_torn
from hpa_kit.flow import Failure, attempt, batches, run_ahead
from hpa_kit.inference.ensemble import Ensemble, FieldMaps, channels_needed
from hpa_kit.inference.lanes import MOST_BROKEN
from hpa_kit.inference.prepare import at_map_scale
from hpa_kit.inference.rules import FieldEvidence, scoring_rule
from hpa_kit.inference.scoring import mean_logits
from hpa_kit.inference.steps import cell_context
from hpa_kit.inference.truth import TrueCells, no_truth
from hpa_kit.npz import read_npz
from hpa_kit.progress import progress_bar
from hpa_kit.resume import depends_on, field_stamps
from hpa_kit.timing import Forecast

log = logging.getLogger(__name__)

_Batch = list[tuple[str, FieldCells | Failure]]
_Maps = dict[str, dict[int, FieldMaps] | Failure]  # of fields by ID, by the members' places

STAMP = "made_from"  # beside the evidence in its file: what it depends on
MOST_BYTES = 2**31  # of an array; more than any field's
# Rules that are not linear in the maps: their scores are kept for the weights that were given.
MAP_RULES = {
    "cam_share mean_share": scoring_rule("cam_share", "mean_share"),
    "cam_share max_share": scoring_rule("cam_share", "max_share"),
    "cam_share mean": scoring_rule("cam_share", "mean"),
    "cam_share max": scoring_rule("cam_share", "max"),
    "quantile": scoring_rule("quantile"),
}


class Evidence(NamedTuple):
    """One field of n cells as M members see it; members that have learnt from it say NaN.

    Attributes:
        image_scores: float32 (M, 19).
        logits: float32 (M, n, 19), means of the logit maps in the cells.
        rows: float32 (rules, n, 19), scores by :data:`MAP_RULES` with the weights that were given.
        areas, cut: of the cells, see :class:`~hpa_kit.inference.steps.CellContext`.
        hits: bool (n, 19), which cells are right as a class, by the truth; all False without one.
        truth: int64 (19,), cells of each class there are to find.
    """

    image_scores: NDArray[np.float32]
    logits: NDArray[np.float32]
    rows: NDArray[np.float32]
    areas: NDArray[np.float64]
    cut: NDArray[np.bool_]
    hits: NDArray[np.bool_]
    truth: NDArray[np.int64]


@dataclass(frozen=True)
class Gatherer:
    """Makes and keeps the evidence of fields.

    Attributes:
        settings: of the command.
        ensemble: whose members look.
        images: folder of the fields.
        cache: folder that keeps ``ID.npz``, each with what it was made from; files of other IDs, or made from
            something else, are not read.
        lookers: {ID: places of the members that have not learnt from it}.
        truth: the true cells, or None.
    """

    settings: TuneSettings
    ensemble: EnsembleSettings
    images: Path
    cache: Path
    lookers: dict[str, tuple[int, ...]]
    truth: TrueCells | None

    def gather(self) -> dict[str, Evidence]:
        """The evidence of all fields, in order; those that cannot be used are said and left out."""
        forget_torn(self.cache)
        stamps = self._stamps()
        found = {id: self._kept(id, stamps[id]) for id in self.lookers}
        lacking = [id for id, evidence in found.items() if evidence is None]
        others = sum(self._path(id).is_file() for id in lacking)
        if others:
            log.info(
                f"tune: {others} of {len(found)} files in {self.cache} were made from other members, folds, "
                "images, label maps or truth; they are made again"
            )
        if lacking:
            self._look_at(lacking, stamps)
            found |= {id: self._kept(id, stamps[id]) for id in lacking}
        return {id: evidence for id, evidence in found.items() if evidence is not None}

    def _path(self, id: str) -> Path:
        return self.cache / f"{id}.npz"

    def _stamps(self) -> dict[str, str]:
        """All that the evidence of each field depends on, its own files and who may look at it among it."""
        ensemble = self.ensemble.model_dump(exclude={"masks", "rule", "form", "steps"})
        common = depends_on("tune", self.settings.amp, ensemble, self.settings.truth)
        masks = [(self.ensemble.masks, label_map_ids)]
        own = field_stamps(self.lookers, self.images, masks, self.lookers)
        return {id: f"{common}-{stamp}" for id, stamp in own.items()}

    def _kept(self, id: str, stamp: str) -> Evidence | None:
        """A field's evidence where it is kept and was made from what there is now."""
        try:
            arrays = read_npz(self._path(id), (*Evidence._fields, STAMP), MOST_BYTES)
            if str(arrays.pop(STAMP)) == stamp:
                return Evidence(**arrays)
        except (ValueError, KeyError, TypeError):  # damaged, or of an older version
            pass
        return None

    def _look_at(self, ids: list[str], stamps: dict[str, str]) -> None:
        settings, ensemble = self.settings, self.ensemble
        devices = pick_devices(settings.device)
        finder = segmenter(
            ensemble.segmenter, ensemble.weights, devices[0], settings.batch, max(1, settings.workers)
        )
        needed = channels_needed(ensemble.members)
        cells = kept_or_made(ids, self.images, finder, ensemble.masks, settings.workers, needed)
        failed: dict[str, str] = {}
        broken = 0
        forecast = Forecast("tune", len(ids), settings.batch)
        with (
            progress_bar("tune", len(ids)) as bar,
            closing(self._looked(devices, batches(cells, settings.batch))) as asked,
        ):
            for batch, looked in asked:
                good = {id: found for id, found in batch if isinstance(found, FieldCells)}
                failed |= {id: found.reason for id, found in batch if isinstance(found, Failure)}
                for id, maps in looked.items():
                    made = maps if isinstance(maps, Failure) else attempt(self._evidence, id, good[id], maps)
                    if isinstance(made, Failure):
                        failed[id] = made.reason
                    else:
                        self._keep(id, made, stamps[id])
                forecast.add(len(batch))
                bar.update(len(batch))
                failing = good and all(isinstance(maps, Failure) for maps in looked.values())
                broken = broken + 1 if failing else 0
                if broken == MOST_BROKEN:
                    log.error(f"tune: the members failed on {broken} batches in a row; no more is asked")
                    break
        for id, reason in list(failed.items())[:10]:
            log.warning(f"tune: ID {id} is left out: {reason}")
        if failed:
            log.warning(f"tune: {len(failed)} of {len(ids)} fields could not be used")

    def _keep(self, id: str, made: Evidence, stamp: str) -> None:
        with atomic_path(self._path(id)) as temporary:
            np.savez_compressed(temporary, **made._asdict(), **{STAMP: np.array(stamp)})

    def _looked(
        self, devices: Sequence[str], waiting: Iterable[_Batch]
    ) -> Generator[tuple[_Batch, _Maps], None, None]:
        """Batches and what members say of them; devices share them while the caller does something else."""
        free: SimpleQueue[list[Ensemble]] = SimpleQueue()
        for device in devices:
            free.put([self._load(member, device) for member in self.ensemble.members])

        def look(batch: _Batch) -> tuple[_Batch, _Maps]:
            members = free.get()
            try:
                good = {id: found for id, found in batch if isinstance(found, FieldCells)}
                return batch, self._looks(members, good)
            finally:
                free.put(members)

        with ThreadPoolExecutor(len(devices), "look") as pool:
            yield from run_ahead(pool, look, waiting, len(devices))

    def _load(self, member: MemberSettings, device: str) -> Ensemble:
        size, settings = self.ensemble.map_size, self.settings
        return Ensemble(
            [_alone(member)], map_size=size, batch=settings.batch, device=device, amp=settings.amp
        )

    def _looks(self, members: Sequence[Ensemble], fields: dict[str, FieldCells]) -> _Maps:
        """What each member says of those of the fields that it has not learnt from."""
        found: _Maps = {}
        for place, member in enumerate(members):
            mine = [id for id in fields if place in self.lookers[id]]
            inputs = [member.inputs(fields[id].field) for id in mine]
            for id, maps in zip(mine, member.look_each(inputs), strict=True):
                before = found.setdefault(id, {})
                if isinstance(maps, Failure):
                    found[id] = maps
                elif not isinstance(before, Failure):
                    before[place] = maps
        return found

    def _evidence(self, id: str, found: FieldCells, maps: dict[int, FieldMaps]) -> Evidence:
        n_cells, n_members = int(found.maps.cells.max(initial=0)), len(self.ensemble.members)
        small = at_map_scale(found, self.ensemble.map_size)
        scores = np.full((n_members, N_CLASSES), np.nan, np.float32)
        logits = np.full((n_members, n_cells, N_CLASSES), np.nan, np.float32)
        for place, seen in maps.items():
            scores[place] = seen.image_scores
            logits[place] = mean_logits(seen.logit_maps, small.cells, n_cells, small.places)
        together = FieldEvidence(*combined(maps, self.ensemble.members), **small._asdict(), n_cells=n_cells)
        rows = np.stack([rule(together) for rule in MAP_RULES.values()]).astype(np.float32)
        context = cell_context(together.image_scores, small.cells, n_cells, small.places)
        truth = no_truth(n_cells) if self.truth is None else self.truth.compare(id, found.maps.cells)
        return Evidence(scores, logits, rows, context.areas, context.cut, *truth)


def combined(maps: dict[int, FieldMaps], members: Sequence[MemberSettings]) -> FieldMaps:
    """What members say together, by weight and mode, as :class:`~hpa_kit.inference.Ensemble` has it."""
    givers = [place for place in maps if members[place].gives_scores]
    drawers = [place for place in maps if members[place].gives_maps]
    scores = np.average([maps[k].image_scores for k in givers], axis=0, weights=_weights(givers, members))
    weights = _weights(drawers, members)
    class_maps = np.average([maps[k].class_maps for k in drawers], axis=0, weights=weights)
    return FieldMaps(scores.astype(np.float32), class_maps.astype(np.float32), maps[drawers[0]].logit_maps)


def _weights(places: Sequence[int], members: Sequence[MemberSettings]) -> list[float]:
    return [members[place].weight for place in places]


def _alone(member: MemberSettings) -> MemberSettings:
    return member.model_copy(update={"mode": "both"})
