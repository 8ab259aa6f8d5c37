"""What stage 2 learns: the cells' pseudo labels drawn into maps, one per class and one of no cell."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.errors import InputError
from hpa_kit.jit import njit

NO_CELL = N_CLASSES
N_CHANNELS = N_CLASSES + 1
FULL = 255  # what a pixel's channel holds where its target is 1, so that a batch is small


def make_target(cells: ArrayLike, confidences: ArrayLike, threshold: float = 0.225) -> NDArray[np.uint8]:
    """Draw a field's target for the segmentation network.

    A cell's pixels are set in every class whose confidence reaches the threshold, and in Negative where none
    does. The last channel holds the pixels in no cell; it is worked out here, so from a label map that was
    augmented what was dropped, or not covered any more, counts as no cell. Restated from how the
    competition's 15th place trained its second stage.

    Args:
        cells: integer (H, W), 0 background, 1…n; an augmented one may lack some of its cells.
        confidences: (n, 19) in [0, 1]; row i is cell i + 1.
        threshold: confidence from which a cell is drawn in a class.

    Returns:
        uint8 (20, H, W) of zeros and ones.

    Raises:
        InputError: a shape, a dtype or a value is not as above, or a cell has no row.
    """
    rows = _checked_rows(confidences)
    # A plain number is compared in the rows' own precision: 0.225 as float32 is less than as float64.
    drawn = rows >= float(threshold)
    drawn[:, NEGATIVE] |= ~drawn.any(axis=1)
    return _draw(cells, drawn.astype(np.uint8), np.uint8(1))


def make_soft_target(cells: ArrayLike, probabilities: ArrayLike) -> NDArray[np.uint8]:
    """Draw a field's target from probabilities: every cell's own value in every class.

    Negative is what is left of 1 beside the likeliest other class, or the cell's own Negative where that is
    more: as much as a cell shows nothing else.

    Args:
        cells: as for :func:`make_target`.
        probabilities: (n, 19) in [0, 1].

    Returns:
        uint8 (20, H, W), probabilities × 255, so that a batch is small; see :func:`make_target`.

    Raises:
        InputError: as :func:`make_target`.
    """
    rows = _checked_rows(probabilities).copy()
    others = np.delete(rows, NEGATIVE, axis=1).max(axis=1, initial=0)
    rows[:, NEGATIVE] = np.maximum(rows[:, NEGATIVE], 1 - others)
    return _draw(cells, np.rint(rows * FULL).astype(np.uint8), np.uint8(FULL))


def _draw(cells: ArrayLike, values: NDArray[np.uint8], full: np.uint8) -> NDArray[np.uint8]:
    """Values (n, 19) of cells in their places; ``full`` where there is no cell."""
    labels = _checked_labels(cells, len(values))
    # Row 0 is the background.
    table = np.zeros((len(values) + 1, N_CHANNELS), np.uint8)
    table[1:, :N_CLASSES] = values
    table[0, NO_CELL] = full
    target = np.zeros((N_CHANNELS, *labels.shape), np.uint8)
    # Most classes are in no cell of a field, and need no pass over its pixels.
    shown = np.flatnonzero(table.any(axis=0))
    _fill(labels.ravel(), np.ascontiguousarray(table.T), shown, target.reshape(N_CHANNELS, -1))
    return target


@njit
def _fill(labels, values, shown, target):  # type: ignore[no-untyped-def]
    for channel in shown:
        of_label, pixels = values[channel], target[channel]
        for i in range(len(labels)):
            pixels[i] = of_label[labels[i]]


def _checked_rows(values: ArrayLike) -> NDArray[Any]:
    rows = np.asarray(values)
    if rows.ndim != 2 or rows.shape[1] != N_CLASSES or rows.dtype.kind not in "fiub":
        raise InputError(
            f"target: expected confidences (cells, {N_CLASSES}), found {rows.dtype} {rows.shape}"
        )
    if rows.size and not (rows.min() >= 0 and rows.max() <= 1):  # NaN fails both
        raise InputError(f"target: expected confidences in [0, 1], found {rows.min()} to {rows.max()}")
    return rows


def _checked_labels(cells: ArrayLike, n_cells: int) -> NDArray[np.int32]:
    labels = np.asarray(cells)
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise InputError(f"target: expected a label map (H, W), found {labels.dtype} {labels.shape}")
    if labels.size and (labels.min() < 0 or labels.max() > n_cells):
        found = labels.min() if labels.min() < 0 else labels.max()
        raise InputError(
            f"target: the label map holds {found}, the table {n_cells} cells; use the label maps that the "
            "pseudo labels were made with"
        )
    return np.ascontiguousarray(labels, np.int32)
