"""Outlines of cells as SVG paths, from mask strings."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.errors import InputError
from hpa_kit.submission.rle import mask_runs
from hpa_kit.submission.runs import fill_runs

UNITS = 1000  # of a path, along the longer side of the field
TOLERANCE = 0.8  # of a path's corners, in units


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


def outlines(masks: Sequence[str], height: int, width: int) -> list[Shape | None]:
    """The shapes of a field's masks.

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
