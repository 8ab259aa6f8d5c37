"""The 15th place's scoring function: class maps x label map -> one row of scores per cell."""

from typing import get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.cells import resized
from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.config import Form
from hpa_kit.config.kinds import DEFAULT_FORM
from hpa_kit.errors import InputError
from hpa_kit.scoring.inputs import checked_green, checked_labels, checked_maps, checked_scores
from hpa_kit.scoring.pixel_runs import areas, find_runs, peaks, sum_maps, sum_plane

FLOOR_SCORE = 0.01  # image score from which a class is looked at
FLOOR_MAP = 1e-6  # map values up to here are nothing
HIGH_MAP = 0.75
MIN_SIDE = 0.01  # of the maps' width: side of the smallest cell, and nucleus, that counts
MIN_SHARE, MIN_HIGH, MIN_GREEN = 0.1, 0.04, 1.0
NEGATIVE_CONFIDENCE = 0.75


def score_cells(
    class_maps: ArrayLike,
    cells: ArrayLike,
    nuclei: ArrayLike,
    image_scores: ArrayLike,
    green: ArrayLike,
    n_cells: int | None = None,
    form: Form = DEFAULT_FORM,
    by_centres: bool = False,
) -> NDArray[np.float64]:
    """Score every cell by the rule of the competition's 15th place.

    A class stays with a cell when enough of the cell, or of its nucleus, lies on the class map; its
    confidence is image score x mean of the map where it is positive x that share. A cell left with no class
    is Negative, the more surely the less of it the maps cover. Restated from the published code; the
    constants stand at the top of this file. For pseudo labels the field's known labels, 0 or 1, take the
    image scores' place, the form is ``max_share``, and
    :func:`~hpa_kit.scoring.settle_negative` follows.

    Args:
        class_maps: (19, h, w) in [0, 1], any float dtype.
        cells: integer (H, W), 0 background, 1…n; resized to (h, w), see ``by_centres``.
        nuclei: integer (H, W); a cell's nucleus is every nucleus pixel inside the cell.
        image_scores: (19,) in [0, 1].
        green: (H, W), the green channel, 0 to 255, any dtype; resized to (h, w), bilinear.
        n_cells: number of cells, where ``cells`` was made smaller before and may have lost the last ones.
        form: what the image score is multiplied by: mean of the map in the cell where it is positive, or its
            maximum there, times the share or not. Which classes stay does not depend on it.
        by_centres: how label maps are resized: as the published code did it, whose exact numbers this gives,
            a pixel of the maps taking the number at its corner; or by pixel centres, as everywhere else in
            the kit (:func:`~hpa_kit.cells.resized`) and where this is the rule ``cam_share``.

    Returns:
        float64 (n, 19); row i is cell i + 1; 0 where a class is not given; all 0 for a cell too small.

    Raises:
        InputError: a shape, a dtype or a value is not as above.
    """
    if form not in get_args(Form):
        raise InputError(f"form: {form!r} is unknown; expected one of {', '.join(get_args(Form))}")
    maps = checked_maps(class_maps, "class maps")
    labels, n_cells = checked_labels(cells, "cells", n_cells)
    nucleus, _ = checked_labels(nuclei, "nuclei")
    scores = checked_scores(image_scores)
    if nucleus.shape != labels.shape:
        raise InputError(f"nuclei: expected the shape of the cells, {labels.shape}, found {nucleus.shape}")
    shape = maps.shape[1:]
    signal = checked_green(green, labels.shape, shape)
    rows = np.zeros((n_cells, N_CLASSES))
    if n_cells == 0:
        return rows
    resize = resized if by_centres else _resized_by_corners
    runs = find_runs(resize(labels, shape), resize(nucleus, shape))
    pixels = areas(runs, n_cells)
    # In the scores' own precision: a float32 of 0.01 is less than a float64 of 0.01, and still 0.01.
    looked_at = np.flatnonzero(np.asarray(image_scores) >= FLOOR_SCORE)
    sums = sum_maps(maps, looked_at, runs, n_cells, FLOOR_MAP, HIGH_MAP)
    bright = sum_plane(signal, runs, n_cells) >= MIN_GREEN * pixels.sum(axis=1)
    min_area = (MIN_SIDE * shape[1]) ** 2

    share = _larger_part(sums.positive, pixels, min_area)
    high = _larger_part(sums.high, pixels, min_area)
    if form.startswith("max"):
        strength = peaks(maps, looked_at, runs, n_cells, FLOOR_MAP)
    else:
        strength = sums.total.sum(axis=2) / np.maximum(sums.positive.sum(axis=2), 1)
    if form.endswith("share"):
        strength = strength * share
    stays = ((share >= MIN_SHARE) | (high >= MIN_HIGH)) & bright
    rows[:, looked_at] = np.where(stays, scores[looked_at, None] * strength, 0).T
    nothing = ~stays.any(axis=0)
    rows[nothing, NEGATIVE] = _negative(share)[nothing]
    rows[pixels.sum(axis=1) <= min_area] = 0
    return rows


def _resized_by_corners(labels: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """A label map of another shape as the 15th place had it."""
    return np.asarray(cv2.resize(labels, shape[::-1], interpolation=cv2.INTER_NEAREST), dtype=np.int32)


def _larger_part(
    counts: NDArray[np.int64], pixels: NDArray[np.int64], min_area: float
) -> NDArray[np.float64]:
    """Counted pixels as a part of the cell, or of its nucleus where it is large enough and that is more.

    Takes counts (classes, n, 2) and pixels (n, 2), outside and inside the nucleus; gives (classes, n).
    """
    of_cell = counts.sum(axis=2) / np.maximum(pixels.sum(axis=1), 1)
    of_nucleus = counts[:, :, 1] / np.maximum(pixels[:, 1], 1)
    return np.where(pixels[:, 1] >= min_area, np.maximum(of_cell, of_nucleus), of_cell)


def _negative(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Confidence that a cell left with no class is Negative, from the shares (classes, n) looked at."""
    if not len(share):
        return np.full(share.shape[1], NEGATIVE_CONFIDENCE * 1e-6)
    uncovered = np.median(1 - share, axis=0)
    return NEGATIVE_CONFIDENCE * np.maximum(1e-6, (uncovered - 0.9) / 0.1)
