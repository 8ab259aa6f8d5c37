"""Each field of a report as one small JSON text, which the page reads when the field is first seen.

It holds the outlines of cells as SVG paths, and two grey pictures: all channels, and all class maps. Grey,
because colour pictures keep colour at half the resolution, which would blur one channel into another.
"""

import base64
import io
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpa_kit.classes import N_CLASSES, parse_label
from hpa_kit.config import ReportSettings
from hpa_kit.data import Images, read_field
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, attempt, run_ahead
from hpa_kit.progress import track
from hpa_kit.report.error_analysis import FieldMatches, cell_scores
from hpa_kit.report.pictures import stretched
from hpa_kit.submission import read_submission
from hpa_kit.submission.rle import mask_runs
from hpa_kit.submission.runs import fill_runs
from hpa_kit.submission.table import parse_prediction

if TYPE_CHECKING:
    from hpa_kit.report.sources import Source

log = logging.getLogger(__name__)

NO_MATCHES = FieldMatches([], [], {}, [])
UNITS = 1000  # of a path, along the longer side of the field
TOLERANCE = 0.8  # of a path's corners, in units
MAP_SIDE = 64
CROP_SIDE, CROP_COLUMNS = 96, 12
MAP_COLUMNS = 5
FAINTEST = 1e-6  # a map below is shown as nothing


class FieldRecord(NamedTuple):
    """A field for the page: what the overview needs, and all of it as JSON."""

    summary: dict[str, Any]
    text: str


class Shape(NamedTuple):
    """One cell.

    Attributes:
        path: SVG path data in units.
        box: left, top, width and height in units.
        area: pixels of the field.
        cut: whether it touches the field's border.
    """

    path: str
    box: tuple[int, int, int, int]
    area: int
    cut: bool


class PackedMaps(NamedTuple):
    """Class maps of a field: their picture, and the highest value of each, which is white in it."""

    picture: str
    highest: list[float]


def field_records(
    settings: ReportSettings, source: "Source", matches: Mapping[str, FieldMatches]
) -> list[FieldRecord]:
    """Make the record of each field that is shown, in the table's order.

    Args:
        settings: of the report.
        source: what is shown; nothing where it has no submission.
        matches: what the truth says, by ID.

    Raises:
        InputError: a prediction or a mask cannot be used; its ID is named.
    """
    if source.submission is None:
        return []
    table, shown = read_submission(source.submission), set(source.ids)
    rows = [row for row in table.itertuples(index=False, name=None) if row[0] in shown]
    with ThreadPoolExecutor(settings.workers) as pool:
        made = run_ahead(pool, partial(_record, settings, source, matches), rows, 2 * settings.workers)
        return list(track(made, "report: draw", len(rows)))


def _record(
    settings: ReportSettings,
    source: "Source",
    matches: Mapping[str, FieldMatches],
    row: tuple[str, int, int, str],
) -> FieldRecord:
    """Make the record of one row.

    Keys of the JSON: ``p`` picture, ``m`` class maps, ``c`` cells (``d`` path, ``b`` box, ``a`` area, ``e``
    whether the border cuts it, ``s`` [class, confidence] from high to low, and with a truth ``t`` its classes
    and ``u`` the IoU, null where it is no true cell), ``x`` true cells that were not found (``d``, ``b``,
    ``t``). Keys of the summary: ``id``, ``w`` and ``h`` size, ``n`` cells, ``s`` the highest score of each
    class, ``f`` and ``t`` how many cells score it first and truly show it, ``k`` the highest value of each
    class map, ``l`` image label.
    """
    id, width, height, text = row
    own, maps, label = matches.get(id, NO_MATCHES), source.maps.get(id), source.labels.get(id)
    try:
        detections = parse_prediction(text)
        shapes = outlines(list(dict.fromkeys(detections.masks)), height, width)
        missed = outlines([own.true_masks[k] for k in own.missed], height, width)
    except InputError as error:
        raise InputError(f"report: {settings.source}, ID {id}: {error}") from None
    cells: list[dict[str, Any] | None] = []
    for number, (shape, scores) in enumerate(zip(shapes, cell_scores(detections), strict=True)):
        cell = None if shape is None else _drawn(shape) | {"s": _ranked(scores)}
        if cell is not None and id in matches:
            match = own.found.get(number)
            cell |= {"t": match and match.classes, "u": match and round(match.iou, 3)}
        cells.append(cell)
    record = {
        "p": None if source.images is None else _picture(source.images, id, settings),
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
        "k": None if maps is None else maps.highest,
        "l": None if label is None else list(parse_label(label)),
    }  # fmt: skip
    return FieldRecord(summary, packed(record))


def _picture(images: Images, id: str, settings: ReportSettings) -> str | None:
    field = attempt(partial(read_field, threads=1, needed=3), images, id)
    if isinstance(field, Failure):
        log.warning(f"report: ID {id} is shown without a picture: {field.reason}")
        return None
    return channels_picture(field, settings.side, settings.quality)


def packed(content: Any) -> str:
    """Write JSON that may stand inside a script element, whatever it holds."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _drawn(shape: Shape) -> dict[str, Any]:
    return {"d": shape.path, "b": shape.box, "a": shape.area, "e": int(shape.cut)}


def _ranked(scores: Mapping[int, float]) -> list[tuple[int, float]]:
    """From high to low, to four digits."""
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    return [(index, float(f"{confidence:.4g}")) for index, confidence in ranked]


def outlines(masks: Sequence[str], height: int, width: int) -> list[Shape | None]:
    """Draw the shapes of a field's masks.

    Args:
        masks: mask strings.
        height, width: of the field in pixels.

    Returns:
        One for each mask; None for an empty one.

    Raises:
        InputError: a mask cannot be read.
    """
    runs, faults = mask_runs(masks, height, width)
    for mask, fault in zip(masks, faults, strict=True):
        if fault:
            raise InputError(f"mask {mask[:24]} cannot be used: {fault}")
    bounds = runs.offsets.tolist()
    shapes = []
    for first, stop in itertools.pairwise(bounds):
        starts, ends = runs.starts[first:stop], runs.ends[first:stop]
        shapes.append(_shape(starts, ends, height, width) if len(starts) else None)
    return shapes


def _shape(starts: NDArray[np.int64], ends: NDArray[np.int64], height: int, width: int) -> Shape:
    # Only the mask's own columns are drawn: a field has many cells, each a small part of it.
    left, right = int(starts[0]) // height, (int(ends[-1]) - 1) // height
    flat = np.zeros((right - left + 1) * height, bool)
    fill_runs(starts - left * height, ends - left * height, flat)
    columns = flat.reshape(-1, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1])
    mask = np.ascontiguousarray(columns[:, top : bottom + 1].T, np.uint8)
    scale = UNITS / max(height, width)
    # A point of a contour is the centre of a pixel; half a pixel more puts it where a picture shows it.
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    path = "".join(_path((contour[:, 0] + (left + 0.5, top + 0.5)) * scale) for contour in contours)
    box = (left * scale, top * scale, (right - left + 1) * scale, (bottom - top + 1) * scale)
    cut = left == 0 or top == 0 or right == width - 1 or bottom == height - 1
    return Shape(path, tuple(max(round(side), at // 2) for at, side in enumerate(box)), int(mask.sum()), cut)  # type: ignore[arg-type]


def _path(points: NDArray[np.float64]) -> str:
    """A closed polygon, relative from its second point on."""
    corners = cv2.approxPolyDP(points.astype(np.float32)[:, None], TOLERANCE, closed=True)[:, 0]
    whole = corners.round().astype(int)
    steps = np.diff(whole, axis=0)
    steps = steps[steps.any(axis=1)]
    start = f"M{whole[0, 0]} {whole[0, 1]}"
    return f"{start}l{' '.join(f'{x} {y}' for x, y in steps.tolist())}z" if len(steps) else f"{start}h1v1h-1z"


def channels_picture(field: NDArray[np.uint8], side: int, quality: int) -> str:
    """Pack the four channels, each stretched by itself: red and green above, blue and yellow below.

    Args:
        field: uint8 (4, H, W).
        side: most pixels of a channel's longer side; a smaller field stays as it is.
        quality: 1 to 100.

    Returns:
        WebP as base64.
    """
    height, width = field.shape[1:]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = [cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in field]
    red, green, blue, yellow = ((stretched(channel) * 255).astype(np.uint8) for channel in small)
    return _webp(np.block([[red, green], [blue, yellow]]), quality)


def maps_picture(class_maps: NDArray[np.float32], quality: int) -> PackedMaps:
    """Pack the class maps, 64 pixels a side, five in a row, each by its own maximum: many are faint.

    Args:
        class_maps: float32 (19, h, w) in [0, 1].
        quality: 1 to 100.

    Returns:
        WebP as base64, and the maxima.
    """
    rows = -(-N_CLASSES // MAP_COLUMNS)
    sheet = np.zeros((rows * MAP_SIDE, MAP_COLUMNS * MAP_SIDE), np.uint8)
    highest = []
    for index, one in enumerate(class_maps):
        top, left = (MAP_SIDE * part for part in divmod(index, MAP_COLUMNS))
        small = cv2.resize(one.astype(np.float32), (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA)
        highest.append(float(f"{max(float(small.max()), 0.0):.3g}"))
        scaled = 255 * small / max(highest[-1], FAINTEST)
        sheet[top : top + MAP_SIDE, left : left + MAP_SIDE] = np.clip(scaled, 0, 255)
    return PackedMaps(_webp(sheet, quality), highest)


def crops_picture(crops: Sequence[NDArray[np.uint8]], quality: int) -> str:
    """Pack crops of cells, uint8 (s, s, 3), 96 pixels a side, twelve in a row: WebP as base64, or nothing."""
    if not crops:
        return ""
    columns = min(CROP_COLUMNS, len(crops))
    sheet = np.zeros((-(-len(crops) // columns) * CROP_SIDE, columns * CROP_SIDE, 3), np.uint8)
    for place, crop in enumerate(crops):
        top, left = (CROP_SIDE * part for part in divmod(place, columns))
        small = cv2.resize(crop, (CROP_SIDE - 2, CROP_SIDE - 2), interpolation=cv2.INTER_AREA)
        sheet[top : top + CROP_SIDE - 2, left : left + CROP_SIDE - 2] = small
    return _webp(sheet, quality)


def _webp(picture: NDArray[np.uint8], quality: int) -> str:
    packed = io.BytesIO()
    Image.fromarray(picture).save(packed, "WEBP", quality=quality, method=2)
    return base64.b64encode(packed.getvalue()).decode("ascii")
