"""How well found cells meet the true ones."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.regions import LabelMap
from hpa_kit.errors import InputError

MET = 0.5  # from this IoU on a cell is met; above it no two can meet the same one


class Matched(NamedTuple):
    """Cells of fields and how they overlap.

    Attributes:
        true_iou: float64 (true cells,), the largest IoU of each with a found cell, 0 to 1.
        found_iou: float64 (found cells,), the same of each with a true one.
    """

    true_iou: NDArray[np.float64]
    found_iou: NDArray[np.float64]

    def __add__(self, other: "Matched") -> "Matched":  # type: ignore[override]
        """Take the cells of several fields together."""
        return Matched(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    @property
    def met(self) -> float:
        """Share of the true cells that a found one meets; NaN where there is none."""
        return _mean(self.true_iou >= MET)

    @property
    def right(self) -> float:
        """Share of the found cells that meet a true one; NaN where none is found."""
        return _mean(self.found_iou >= MET)

    @property
    def iou(self) -> float:
        """Mean over the true cells; NaN where there is none."""
        return _mean(self.true_iou)


def match_cells(true: LabelMap, found: LabelMap) -> Matched:
    """Compare the cells of two label maps of a field.

    Args:
        true, found: whole numbers (H, W), 0 background; numbers may be left out.

    Raises:
        InputError: they are of two sizes.
    """
    if true.shape != found.shape:
        raise InputError(f"cells: label maps of {true.shape} and {found.shape} pixels cannot be compared")
    rows, columns = int(true.max(initial=0)) + 1, int(found.max(initial=0)) + 1
    flat = true.ravel().astype(np.int64) * columns + found.ravel()
    shared = np.bincount(flat, minlength=rows * columns).reshape(rows, columns)
    areas, others = shared.sum(axis=1)[1:, None], shared.sum(axis=0)[None, 1:]
    inner = shared[1:, 1:]
    iou = inner / np.maximum(areas + others - inner, 1)
    return Matched(iou.max(axis=1, initial=0)[areas[:, 0] > 0], iou.max(axis=0, initial=0)[others[0] > 0])


def _mean(values: NDArray[np.bool_] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
