"""Members look at the fields of a report: class maps for a submission, cells and scores too for a run."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hpa_kit.cells import FieldCells, kept_or_made, segmenter
from hpa_kit.config import LookSettings, PredictSettings, ReportSettings, make_settings
from hpa_kit.data import read_field
from hpa_kit.devices import pick_devices
from hpa_kit.flow import Failure, attempt, batches
from hpa_kit.inference import Ensemble, FieldMaps
from hpa_kit.inference.ensemble import channels_needed
from hpa_kit.inference.pipeline import evidence
from hpa_kit.inference.prepare import PreparedField, Preparer
from hpa_kit.scoring import rule_of, score_field, scores_to_prediction
from hpa_kit.submission import encode_label_map
from hpa_kit.timing import Stopwatch

KeepMaps = Callable[[str, NDArray[np.float32]], None]
Row = tuple[str, int, int, str]
SEGMENTER_BATCH = 4
T = TypeVar("T")


class Looker:
    """Members that look at fields for a report.

    Attributes:
        failed: {ID: why it could not be used}.
        fields: how many were looked at.

    Args:
        settings: who looks; of several devices the first one works.
        images: folder of the fields.
        keep: is given the ID and the class maps, float32 (19, m, m), of each field.

    Raises:
        InputError: members cannot be loaded.
    """

    def __init__(self, settings: LookSettings, images: Path, keep: KeepMaps) -> None:
        self.settings, self.images, self.keep = settings, images, keep
        self.chosen = settings.of_ensemble()
        self.needed = channels_needed(self.chosen.members)
        self.device = pick_devices(settings.device)[0]
        self.ensemble = Ensemble(
            self.chosen.members, map_size=self.chosen.map_size, batch=settings.batch, device=self.device
        )
        self.failed: dict[str, str] = {}
        self.fields = 0
        self._watch = Stopwatch()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds per field by part."""
        return {part: total / max(1, self.fields) for part, total in self._watch.seconds.items()}

    def maps(self, ids: Sequence[str]) -> None:
        """Look at fields for their maps alone."""
        read_whole = partial(read_field, needed=self.needed)
        read = ((id, attempt(read_whole, self.images, id)) for id in ids)
        inputs = (
            (id, field if isinstance(field, Failure) else self.ensemble.inputs(field)) for id, field in read
        )
        good = self._good(self._watch.watch("reading fields", inputs), len(ids))
        looked = self._looked(good, lambda one: one)
        for id, _, seen in self._watch.watch("members", looked):
            self.keep(id, seen.class_maps)
            self.fields += 1

    def rows(self, ids: Sequence[str]) -> list[Row]:
        """Find the cells of fields and score them: rows of a submission, without those that failed."""
        chosen, rule = self.chosen, rule_of(self.chosen)
        workers = max(1, self.settings.workers)
        finder = segmenter(chosen.segmenter, chosen.weights, self.device, SEGMENTER_BATCH, workers)
        cells = kept_or_made(ids, self.images, finder, chosen.masks, workers, self.needed)
        prepare = Preparer(self.ensemble.inputs, chosen.map_size, _masks)
        prepared = (
            (id, found if isinstance(found, Failure) else attempt(prepare, id, found))
            for id, found in self._watch.watch("reading fields, finding cells", cells)
        )
        good = self._good(self._watch.watch("preparing fields", prepared), len(ids))
        rows = []
        for id, field, seen in self._watch.watch("members", self._looked(good, _inputs)):
            scores = score_field(id, evidence(field, seen), rule)
            height, width = field.size
            rows.append((id, width, height, scores_to_prediction(scores, field.details)))
            self.keep(id, seen.class_maps)
            self.fields += 1
        return rows

    def _good(self, items: Iterable[tuple[str, T | Failure]], total: int) -> Iterator[tuple[str, T]]:
        for id, item in tqdm(items, "report: look", total, unit="field"):
            if isinstance(item, Failure):
                self.failed[id] = item.reason
            else:
                yield id, item

    def _looked(
        self, items: Iterable[tuple[str, T]], inputs: Callable[[T], Any]
    ) -> Iterator[tuple[str, T, FieldMaps]]:
        for batch in batches(items, self.settings.batch):
            seen = self.ensemble.look([inputs(item) for _, item in batch])
            yield from ((id, item, maps) for (id, item), maps in zip(batch, seen, strict=True))


def _inputs(field: PreparedField[Any]) -> Any:
    return field.inputs


def _masks(id: str, found: FieldCells) -> dict[int, str]:
    return encode_label_map(found.maps.cells)


def look_settings(settings: ReportSettings, members: Sequence[Path]) -> PredictSettings:
    """Who looks at a report's fields; what its settings do not say is the ensemble's to say.

    Args:
        settings: of the report; ``data`` is given.
        members: runs, or none where the settings name an ensemble.
    """
    said = ("masks", "segmenter", "weights", "rule", "views", "map_size")
    names = ("data", *said, "batch", "workers", "device")
    given = {name: getattr(settings, name) for name in names}
    source = {"members": tuple(members)} if members else {"ensemble": settings.ensemble}
    return make_settings(PredictSettings, given, source, {"out": settings.out}, source="report")
