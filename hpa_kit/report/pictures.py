"""Pictures of fields and of what was found in them, and a submission drawn over its fields."""

import logging
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells import resized
from hpa_kit.classes import CLASSES, N_CLASSES, NEGATIVE
from hpa_kit.data import DataFolder, read_field
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path
from hpa_kit.submission import decode_mask, read_submission
from hpa_kit.submission.table import Detections, parse_prediction

if TYPE_CHECKING:
    from hpa_kit.config.kinds import ImageSettings

log = logging.getLogger(__name__)

Picture = NDArray[np.uint8]
Field = NDArray[np.uint8]
LabelMap = NDArray[np.int32]
MAX_SIDE = 4096
TEXT = cv2.FONT_HERSHEY_SIMPLEX
GAP = 8
INK = (40, 40, 40)


def draw_submission(
    submission: str | Path,
    data: str | Path,
    out: str | Path,
    split: str = "test",
    fields: int = 4,
    side: int = 384,
    reading: "ImageSettings | None" = None,
) -> Path:
    """Draw the first fields of a submission that hold cells, each cell in the colour of its first class.

    A field of another size than its row, as where a sample demands one, is resized to it; one of other
    proportions is said and left out. A row that holds no cell needs no image.

    Args:
        submission: the CSV.
        data: competition folder, or a folder of images.
        out: PNG to write.
        split: which images of a competition folder.
        fields: how many.
        side: of each panel in pixels.
        reading: how images of other layouts than the competition's are read.

    Raises:
        InputError: a file cannot be used, no row holds a cell, or none that does has its field's proportions.
    """
    if fields < 1:
        raise InputError(f"picture: fields is {fields}; expected 1 or more")
    if not 32 <= side <= MAX_SIDE:
        raise InputError(f"picture: side is {side}; expected 32 to {MAX_SIDE} pixels")
    images = DataFolder(data, reading).images(split)
    table = read_submission(submission)
    drawn, label_maps, scores = [], [], []
    left_out: list[str] = []
    for id, width, height, text in table.itertuples(index=False, name=None):
        cells, score = cells_of(parse_prediction(text), height, width)
        if not len(score):
            continue
        field = read_field(images, id, needed=3)
        if not _alike(field.shape[1:], (height, width)):
            found = f"{field.shape[2]} x {field.shape[1]}"
            left_out.append(
                f"picture: {submission}, ID {id}: size is {width} x {height}, its field's is {found}"
            )
            continue
        drawn.append(np.stack([cv2.resize(plane, (width, height)) for plane in field]))
        label_maps.append(cells)
        scores.append(score)
        if len(drawn) == fields:
            break
    if not drawn:
        raise InputError(left_out[0] if left_out else f"picture: no row of {submission} holds a cell")
    if left_out:
        others = f", as are {len(left_out) - 1} more" if len(left_out) > 1 else ""
        log.warning(f"{left_out[0]}; left out{others}")
    write_picture(out, contact_sheet(drawn, label_maps, scores, side))
    return Path(out)


def _alike(size: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two (H, W) have the same proportions, but for rounding to whole pixels."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)


def cells_of(
    detections: Detections, height: int, width: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Make the label map and cell scores that a row's detections come from, without empty masks.

    Returns:
        int32 (height, width) and float64 (n_cells, 19), row i for cell i + 1.

    Raises:
        InputError: a mask cannot be read.
    """
    cells = np.zeros((height, width), np.int32)
    number: dict[str, int] = {}
    for string in dict.fromkeys(detections.masks):
        mask = decode_mask(string, height, width)
        if mask.any():
            number[string] = len(number) + 1
            cells[mask] = number[string]
    scores = np.zeros((len(number), N_CLASSES))
    for index, confidence, string in zip(*detections, strict=True):
        if string in number:
            scores[number[string] - 1, index] = confidence
    return cells, scores


def composite(field: Field) -> Picture:
    """Colour a field as people see it: microtubules red, protein green, nuclei blue, ER a faint yellow.

    Args:
        field: uint8 (4, H, W).

    Returns:
        uint8 (H, W, 3), red green blue; each channel stretched to its own brightest per mille.
    """
    red, green, blue, yellow = (stretched(channel) for channel in field)
    picture = np.stack([0.7 * red + 0.25 * yellow, green + 0.2 * yellow, blue], axis=-1)
    return np.clip(picture * 255, 0, 255).astype(np.uint8)


def protein(field: Field) -> Picture:
    """Draw the green channel in grey, stretched: uint8 (H, W, 3)."""
    grey = (stretched(field[1]) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def outlined(picture: Picture, cells: LabelMap, shown: NDArray[np.integer] | None = None) -> Picture:
    """Draw the outline of every cell.

    Args:
        picture: uint8 (H, W, 3).
        cells: int32 (H, W).
        shown: (n_cells,), the class whose colour each cell's outline has; None draws all in white.

    Returns:
        A copy with outlines.
    """
    out = picture.copy()
    reach = max(1, round(max(picture.shape) / 700))
    kernel = np.ones((2 * reach + 1,) * 2, np.uint8)
    levels = cells.astype(np.float32)
    edge = (cv2.erode(levels, kernel) != cv2.dilate(levels, kernel)) & (cells > 0)
    colours = np.full((int(cells.max(initial=0)) + 1, 3), 255, np.uint8)
    if shown is not None:
        colours[1:] = np.reshape([_rgb(CLASSES[index].colour) for index in shown], (-1, 3))
    out[edge] = colours[cells[edge]]
    return out


def contact_sheet(
    fields: Sequence[Field],
    label_maps: Sequence[LabelMap],
    scores: Sequence[NDArray[np.floating]],
    side: int = 384,
    captions: tuple[str, str] = ("field and its cells", "protein; outline = the cell's first class"),
) -> Picture:
    """Put fields side by side: above all channels, below the protein, cells in their first class's colour.

    Args:
        fields: uint8 (4, H, W) each.
        label_maps: their cells, int32 (H, W).
        scores: (n_cells, 19) each; the largest decides the colour.
        side: width and height of each panel in pixels.
        captions: of the two rows.

    Returns:
        uint8 (h, w, 3), with a legend of the classes that occur.
    """
    columns, seen = [], set()
    for field, cells, score in zip(fields, label_maps, scores, strict=True):
        first = np.asarray(score).argmax(axis=1) if len(score) else np.zeros(0, int)
        seen |= set(first.tolist())
        shape = (side, side)
        small = np.stack([cv2.resize(channel, shape, interpolation=cv2.INTER_AREA) for channel in field])
        outlines = resized(cells, shape)
        above = outlined(composite(small), outlines)
        below = outlined(protein(small), outlines, first)
        columns.append(np.concatenate([above, _blank(GAP, side), below]))
    sheet = columns[0]
    for column in columns[1:]:
        sheet = np.concatenate([sheet, _blank(len(sheet), GAP), column], axis=1)
    titles = _line(sheet.shape[1], [(f"above: {captions[0]}   below: {captions[1]}", INK)])
    legend = [
        (CLASSES[index].name, _rgb(CLASSES[index].colour))
        for index in sorted(seen, key=lambda index: (index == NEGATIVE, index))
    ]
    return np.concatenate([titles, sheet, *_legend(sheet.shape[1], legend)])


def tiled(rows: Sequence[Sequence[Picture]], side: int, lines: Sequence[str]) -> Picture:
    """Put pictures in rows, under lines of text.

    Args:
        rows: uint8 (h, w, 3) each, of any sizes; a row without pictures is left out.
        side: width and height of each panel in pixels; sides that differ lose their proportions.
        lines: what stands above, each on as many lines as it needs.
    """
    sheet = [
        np.concatenate([cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in row], axis=1)
        for row in rows
        if len(row)
    ]
    width = max([side, *(row.shape[1] for row in sheet)])
    letters = max(10, (width - 2 * GAP) // 9)
    text = [_line(width, [(line, INK)]) for words in lines for line in textwrap.wrap(words, letters)]
    return np.concatenate(
        [
            *text,
            *(np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in sheet),
        ]
    )


def write_picture(path: str | Path, picture: Picture) -> None:
    """Write a picture as PNG."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError(f"picture {picture.shape} cannot be written as PNG")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def stretched(channel: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Stretch a channel (H, W) from 0, its lowest per cent, to 1, its brightest per mille."""
    low, high = np.percentile(channel, (1, 99.9))
    return np.clip((channel.astype(np.float32) - low) / max(high - low, 16), 0, 1)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), 255, np.uint8)


def _line(width: int, words: Sequence[tuple[str, tuple[int, int, int]]]) -> Picture:
    """A line of text, words in their colours."""
    line, x = _blank(26, width), GAP
    for word, colour in words:
        cv2.putText(line, word, (x, 18), TEXT, 0.5, colour, 1, cv2.LINE_AA)
        x += cv2.getTextSize(word, TEXT, 0.5, 1)[0][0] + 2 * GAP
    return line


def _legend(width: int, words: Sequence[tuple[str, tuple[int, int, int]]]) -> list[Picture]:
    """Words on as many lines as they need."""
    lines: list[list[tuple[str, tuple[int, int, int]]]] = [[]]
    room = width - GAP
    for word, colour in words:
        needed = cv2.getTextSize(word, TEXT, 0.5, 1)[0][0] + 2 * GAP
        if needed > room and lines[-1]:
            lines.append([])
            room = width - GAP
        lines[-1].append((word, colour))
        room -= needed
    return [_line(width, line) for line in lines]
