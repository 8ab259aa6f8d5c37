"""What each member says of each field's cells, worked out once and kept: what choices are tried on."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from hpa_kit.cells import FieldCells, kept_or_made, segmenter
from hpa_kit.classes import N_CLASSES
from hpa_kit.config import EnsembleSettings, MemberSettings, TuneSettings
from hpa_kit.devices import pick_devices
from hpa_kit.files import atomic_path, atomic_text, forget_torn
from hpa_kit.flow import Failure, attempt, batches, run_ahead
from hpa_kit.inference.ensemble import Ensemble, FieldMaps, channels_needed
from hpa_kit.inference.prepare import at_map_scale
from hpa_kit.scoring.functions import FieldEvidence, scoring_rule
from hpa_kit.scoring.mean_logit import mean_logits
from hpa_kit.scoring.post_processing import cell_context
from hpa_kit.timing import Forecast
from hpa_kit.training.member import checkpoint_file
from hpa_kit.tuning.truth import TrueCells, no_truth

log = logging.getLogger(__name__)

_Batch = list[tuple[str, FieldCells | Failure]]
_Maps = dict[str, dict[int, FieldMaps]]  # of fields by ID, by the members' places

STATE = "evidence.yaml"
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
        areas, cut: of the cells, see :class:`~hpa_kit.scoring.post_processing.CellContext`.
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
        cache: folder that keeps ``ID.npz``.
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
        self._forget_others()
        lacking = [id for id in self.lookers if not self._path(id).is_file()]
        if lacking:
            self._look_at(lacking)
        return {id: self._read(id) for id in self.lookers if self._path(id).is_file()}

    def _path(self, id: str) -> Path:
        return self.cache / f"{id}.npz"

    def _read(self, id: str) -> Evidence:
        with np.load(self._path(id), allow_pickle=False) as arrays:
            return Evidence(*(arrays[name] for name in Evidence._fields))

    def _forget_others(self) -> None:
        """Drop what is kept where it was made by other members or otherwise."""
        forget_torn(self.cache)
        text = yaml.safe_dump(self._made_from(), sort_keys=False)
        path = self.cache / STATE
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        if path.is_file():
            log.info(f"tune: {self.cache} was made from other members, weights or masks; it is made again")
            for id in self.lookers:
                self._path(id).unlink(missing_ok=True)
        atomic_text(path, text)

    def _made_from(self) -> dict[str, object]:
        members = []
        for member in self.ensemble.members:
            members.append(member.model_dump(mode="json") | _as_it_is(checkpoint_file(member.checkpoint)))
        chosen = self.ensemble.model_dump(mode="json", include={"map_size", "masks", "segmenter", "weights"})
        path = self.settings.truth
        truth = None if path is None else {"path": str(path)} | _as_it_is(path)
        return chosen | {"images": str(self.images), "truth": truth, "members": members}

    def _look_at(self, ids: list[str]) -> None:
        settings, ensemble = self.settings, self.ensemble
        devices = pick_devices(settings.device)
        finder = segmenter(
            ensemble.segmenter, ensemble.weights, devices[0], settings.batch, max(1, settings.workers)
        )
        needed = channels_needed(ensemble.members)
        cells = kept_or_made(ids, self.images, finder, ensemble.masks, settings.workers, needed)
        failed: dict[str, str] = {}
        forecast = Forecast("tune", len(ids), settings.batch)
        with tqdm(total=len(ids), unit="field", desc="tune") as bar:
            for batch, looked in self._looked(devices, batches(cells, settings.batch)):
                good = {id: found for id, found in batch if isinstance(found, FieldCells)}
                failed |= {id: found.reason for id, found in batch if isinstance(found, Failure)}
                for id, maps in looked.items():
                    made = attempt(self._evidence, id, good[id], maps)
                    if isinstance(made, Failure):
                        failed[id] = made.reason
                    else:
                        self._keep(id, made)
                forecast.add(len(batch))
                bar.update(len(batch))
        for id, reason in list(failed.items())[:10]:
            log.warning(f"tune: ID {id} is left out: {reason}")
        if failed:
            log.warning(f"tune: {len(failed)} of {len(ids)} fields could not be used")

    def _keep(self, id: str, made: Evidence) -> None:
        with atomic_path(self._path(id)) as temporary:
            np.savez_compressed(temporary, **made._asdict())

    def _looked(self, devices: Sequence[str], waiting: Iterable[_Batch]) -> Iterator[tuple[_Batch, _Maps]]:
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
        found: _Maps = {id: {} for id in fields}
        for place, member in enumerate(members):
            mine = [id for id in fields if place in self.lookers[id]]
            for id, maps in zip(mine, member([fields[id].field for id in mine]), strict=True):
                found[id][place] = maps
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


def _as_it_is(file: Path) -> dict[str, int]:
    """What changes when a file does."""
    stat = file.stat()
    return {"bytes": stat.st_size, "time": stat.st_mtime_ns}


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
