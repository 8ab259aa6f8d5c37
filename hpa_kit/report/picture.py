"""What a submission says, drawn over its fields."""

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import N_CLASSES
from hpa_kit.data import DataFolder, read_field
from hpa_kit.errors import InputError
from hpa_kit.report.plots import contact_sheet, write_picture
from hpa_kit.submission import decode_mask, read_submission
from hpa_kit.submission.table import Detections, parse_prediction

log = logging.getLogger(__name__)

MAX_SIDE = 4096


def draw_submission(
    submission: str | Path,
    data: str | Path,
    out: str | Path,
    split: str = "test",
    fields: int = 4,
    side: int = 384,
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

    Raises:
        InputError: a file cannot be used, no row holds a cell, or none that does has its field's proportions.
    """
    if fields < 1:
        raise InputError(f"picture: fields is {fields}; expected 1 or more")
    if not 32 <= side <= MAX_SIDE:
        raise InputError(f"picture: side is {side}; expected 32 to {MAX_SIDE} pixels")
    images = DataFolder(data).images(split)
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
    """Label map and cell scores that a row's detections come from; empty masks are left out.

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
