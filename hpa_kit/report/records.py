"""Each field of a report as one small JSON text, which the page reads when the field is first seen."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.classes import N_CLASSES, parse_label
from hpa_kit.data import read_field
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, attempt, run_ahead
from hpa_kit.progress import track
from hpa_kit.report.error_analysis import FieldMatches, cell_scores
from hpa_kit.report.shapes import Shape, outlines
from hpa_kit.report.sprite_sheets import PackedMaps, channels_picture
from hpa_kit.submission.table import parse_prediction

log = logging.getLogger(__name__)

NO_MATCHES = FieldMatches([], [], {}, [])


class FieldRecord(NamedTuple):
    """A field for the page: what the overview needs, and all of it as JSON."""

    summary: dict[str, Any]
    text: str


class Recorder(NamedTuple):
    """Makes records.

    Attributes:
        place: the table, for errors.
        images: folder of the fields, or None: cells are shown on black.
        matches: what the truth says, by ID.
        labels: image labels by ID.
        maps: packed class maps by ID.
        side, quality: of the pictures.
    """

    place: Path
    images: Path | None
    matches: Mapping[str, FieldMatches]
    labels: Mapping[str, str]
    maps: Mapping[str, PackedMaps]
    side: int
    quality: int

    def records(self, rows: Sequence[tuple[str, int, int, str]], workers: int) -> Iterator[FieldRecord]:
        """Records of rows of a submission, in order.

        Raises:
            InputError: a prediction or a mask cannot be used; its ID is named.
        """
        with ThreadPoolExecutor(workers) as pool:
            made = run_ahead(pool, lambda row: self.record(*row), iter(rows), 2 * workers)
            yield from track(made, "report: draw", len(rows))

    def record(self, id: str, width: int, height: int, text: str) -> FieldRecord:
        """The record of one row.

        Keys of the JSON: ``p`` picture, ``m`` class maps, ``c`` cells (``d`` path, ``b`` box, ``a`` area,
        ``e`` whether the border cuts it, ``s`` [class, confidence] from high to low, and with a truth ``t``
        its classes and ``u`` the IoU, null where it is no true cell), ``x`` true cells that were not found
        (``d``, ``b``, ``t``). Keys of the summary: ``id``, ``w`` and ``h`` size, ``n`` cells, ``s`` the
        highest score of each class, ``f`` and ``t`` how many cells score it first and truly show it, ``k``
        the highest value of each class map, ``l`` image label.
        """
        own, maps = self.matches.get(id, NO_MATCHES), self.maps.get(id)
        try:
            detections = parse_prediction(text)
            shapes = outlines(list(dict.fromkeys(detections.masks)), height, width)
            missed = outlines([own.true_masks[k] for k in own.missed], height, width)
        except InputError as error:
            raise InputError(f"report: {self.place}, ID {id}: {error}") from None
        cells: list[dict[str, Any] | None] = []
        for number, (shape, scores) in enumerate(zip(shapes, cell_scores(detections), strict=True)):
            cell = None if shape is None else _drawn(shape) | {"s": _ranked(scores)}
            if cell is not None and id in self.matches:
                match = own.found.get(number)
                cell |= {"t": match and match.classes, "u": match and round(match.iou, 3)}
            cells.append(cell)
        record = {
            "p": self._picture(id),
            "m": None if maps is None else maps.picture,
            "c": cells,
            "x": [
                None if shape is None else _drawn(shape) | {"t": own.true_classes[k]}
                for shape, k in zip(missed, own.missed, strict=True)
            ],
        }
        there = [cell for cell in cells if cell is not None]
        highest: dict[int, float] = {}
        firsts = [0] * N_CLASSES
        for cell in there:
            for rank, (index, confidence) in enumerate(cell["s"]):
                highest[index] = max(confidence, highest.get(index, confidence))
                firsts[index] += rank == 0
        shown = [sum(index in classes for classes in own.true_classes) for index in range(N_CLASSES)]
        summary = {
            "id": id, "w": width, "h": height, "n": len(there), "s": highest, "f": firsts, "t": shown,
            "k": None if maps is None else maps.highest, "l": self._label(id),
        }  # fmt: skip
        return FieldRecord(summary, packed(record))

    def _picture(self, id: str) -> str | None:
        if self.images is None:
            return None
        field = attempt(partial(read_field, threads=1, needed=3), self.images, id)
        if isinstance(field, Failure):
            log.warning(f"report: ID {id} is shown without a picture: {field.reason}")
            return None
        return channels_picture(field, self.side, self.quality)

    def _label(self, id: str) -> list[int] | None:
        return list(parse_label(self.labels[id])) if id in self.labels else None


def packed(content: Any) -> str:
    """JSON that may stand inside a script element, whatever it holds."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _drawn(shape: Shape) -> dict[str, Any]:
    return {"d": shape.path, "b": shape.box, "a": shape.area, "e": int(shape.cut)}


def _ranked(scores: Mapping[int, float]) -> list[tuple[int, float]]:
    """From high to low, to four digits."""
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    return [(index, float(f"{confidence:.4g}")) for index, confidence in ranked]
