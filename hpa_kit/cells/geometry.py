"""Where each cell of a label map lies, and how large it is."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.jit import njit


class CellGeometry(NamedTuple):
    """Of cells 1…n, in order.

    Attributes:
        area: int64 (n,), pixels.
        centroid: float64 (n, 2), y and x of the mean pixel; pixel (0, 0) has its centre at 0, 0.
        box: int64 (n, 4), top, left, bottom, right; bottom and right are the first row and column beyond it.
        cut: bool (n,), whether the cell touches the field's border.
    """

    area: NDArray[np.int64]
    centroid: NDArray[np.float64]
    box: NDArray[np.int64]
    cut: NDArray[np.bool_]


def cell_geometry(cells: NDArray[np.integer]) -> CellGeometry:
    """Measure every cell, in one pass over the pixels.

    Args:
        cells: label map (H, W), 0 background. A number without pixels gets area 0 and a centroid of NaN.
    """
    labels = np.ascontiguousarray(cells, np.int32)
    n, (height, width) = int(labels.max(initial=0)), labels.shape
    area, sums = np.zeros(n, np.int64), np.zeros((n, 2), np.int64)
    box = np.tile(np.array([height, width, 0, 0], np.int64), (n, 1))
    _measure(labels, area, sums, box)
    with np.errstate(invalid="ignore"):
        centroid = sums / area[:, None]
    box[area == 0] = 0
    cut = (area > 0) & ((box[:, :2] == 0).any(axis=1) | (box[:, 2:] == (height, width)).any(axis=1))
    return CellGeometry(area, centroid, box, cut)


@njit
def _measure(labels, area, sums, box):  # type: ignore[no-untyped-def]
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            cell = labels[y, x] - 1
            if cell < 0:
                continue
            area[cell] += 1
            sums[cell, 0] += y
            sums[cell, 1] += x
            box[cell, 0] = min(box[cell, 0], y)
            box[cell, 1] = min(box[cell, 1], x)
            box[cell, 2] = max(box[cell, 2], y + 1)
            box[cell, 3] = max(box[cell, 3], x + 1)
