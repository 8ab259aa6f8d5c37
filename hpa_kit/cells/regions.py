"""Regions of label maps: components, areas, holes, numbers, places. Exact, in one or two passes of numba."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.jit import njit

LabelMap = NDArray[np.int32]


def components(image: ArrayLike, connectivity: int = 4) -> LabelMap:
    """Number the connected regions of equal non-zero value.

    Args:
        image: (H, W), bool or integer; 0 is background. Regions of different values never join.
        connectivity: 4 (edges) or 8 (edges and corners).

    Returns:
        int32 (H, W): 1…n in the order in which a region's first pixel comes row by row, as scikit-image's
        ``measure.label`` numbers them.

    Two passes with a union-find forest whose roots are always the smallest provisional number (Rosenfeld and
    Pfaltz 1966), so the result does not depend on the order of merges.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, found {connectivity}")
    return _components(_two_dimensional(image), connectivity == 8)


def areas(labels: LabelMap) -> NDArray[np.int64]:
    """Count the pixels of each number: int64 (n + 1,), entry 0 the background's."""
    return _areas(labels, int(labels.max(initial=0)))


def relabel(labels: ArrayLike) -> LabelMap:
    """Number the regions 1…n without gaps, in the order of their old numbers; int32 of the same shape.

    Any integer dtype and any values; 0 stays 0.
    """
    array = _two_dimensional(labels)
    if array.dtype == bool:
        return array.astype(np.int32)
    if array.size == 0:
        return np.zeros(array.shape, np.int32)
    low, high = int(array.min()), int(array.max())
    if low >= 0 and high <= max(4 * array.size, 1 << 20):
        return _relabel(np.ascontiguousarray(array, np.int32), high)
    values = np.unique(array)
    values = values[values != 0]
    found = np.searchsorted(values, array).astype(np.int32) + np.int32(1)
    found[array == 0] = 0
    return found


def drop_small(labels: LabelMap, smallest: float) -> LabelMap:
    """Drop the numbers that have fewer than ``smallest`` pixels; the others keep their number."""
    keep = areas(labels) >= smallest
    keep[0] = False
    return _looked_up(labels, np.where(keep, np.arange(keep.size, dtype=np.int32), np.int32(0)))


def fill_holes(labels: ArrayLike, largest: float | None = None) -> LabelMap:
    """Fill background regions that one number alone encloses.

    Args:
        labels: (H, W) label map or bool mask.
        largest: holes of this many pixels or more stay; None fills every hole.

    Returns:
        int32 (H, W): each hole with the number around it. A hole is a 4-connected background region that
        does not reach the border of the field and touches, through pixel edges, one number only.
    """
    array = _two_dimensional(labels).astype(np.int32)
    limit = array.size + 1.0 if largest is None else float(largest)
    return _fill_holes(array, _components(array == 0, False), limit)


def pair_up(nuclei: LabelMap, cells: LabelMap) -> tuple[LabelMap, LabelMap]:
    """Cut nuclei to their cells, drop cells without nucleus and nuclei without cell, number both 1…n alike.

    Args:
        nuclei, cells: int32 (H, W); the same number belongs together.
    """
    return _pair_up(nuclei, cells, int(cells.max(initial=0)))


def _two_dimensional(image: ArrayLike) -> NDArray[np.generic]:
    array = np.asarray(image)
    if array.ndim != 2 or array.dtype.kind not in "bui":
        raise ValueError(f"expected a 2-D array of bool or integers, found {array.dtype} {array.shape}")
    return array


@njit
def _areas(labels, high):  # type: ignore[no-untyped-def]
    counts = np.zeros(high + 1, np.int64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            counts[labels[y, x]] += 1
    return counts


@njit
def _looked_up(labels, table):  # type: ignore[no-untyped-def]
    out = np.empty(labels.shape, np.int32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            out[y, x] = table[labels[y, x]]
    return out


@njit
def _relabel(labels, high):  # type: ignore[no-untyped-def]
    table = np.zeros(high + 1, np.int32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            table[labels[y, x]] = 1
    table[0] = 0
    count = 0
    for i in range(table.size):
        if table[i] != 0:
            count += 1
            table[i] = count
    return _looked_up(labels, table)


@njit
def _find(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit
def _join(parent, i, j):  # type: ignore[no-untyped-def]
    i = _find(parent, i)
    j = _find(parent, j)
    if i < j:
        parent[j] = i
        return i
    parent[i] = j
    return j


@njit
def _components(image, eight):  # type: ignore[no-untyped-def]  # noqa: PLR0912
    height, width = image.shape
    out = np.zeros((height, width), np.int32)
    parent = np.zeros(image.size + 2, np.int32)
    last = 0
    for y in range(height):
        for x in range(width):
            value = image[y, x]
            if value == 0:
                continue
            label = 0
            if x > 0 and image[y, x - 1] == value:
                label = out[y, x - 1]
            if y > 0:
                for dx in range(-1, 2):
                    if (dx != 0 and not eight) or x + dx < 0 or x + dx >= width:
                        continue
                    if image[y - 1, x + dx] == value:
                        other = out[y - 1, x + dx]
                        if label == 0:
                            label = other
                        elif label != other:
                            label = _join(parent, label, other)
            if label == 0:
                last += 1
                parent[last] = last
                label = last
            out[y, x] = label
    count = 0
    for i in range(1, last + 1):
        # Roots are the smallest of their tree, so they come before all that point at them.
        if parent[i] == i:
            count += 1
            parent[i] = count
        else:
            parent[i] = parent[parent[i]]
    for y in range(height):
        for x in range(width):
            out[y, x] = parent[out[y, x]]
    return out


@njit
def _fill_holes(labels, background, limit):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    n = 0
    for y in range(height):
        for x in range(width):
            n = max(n, background[y, x])
    around = np.zeros(n + 1, np.int32)  # 0 nothing seen yet, -1 open or several numbers
    size = np.zeros(n + 1, np.int64)
    for y in range(height):
        for x in range(width):
            hole = background[y, x]
            if hole == 0:
                continue
            size[hole] += 1
            if y == 0 or x == 0 or y == height - 1 or x == width - 1:
                around[hole] = -1
                continue
            for step in range(4):
                value = labels[y + (step == 0) - (step == 1), x + (step == 2) - (step == 3)]
                if value != 0 and around[hole] != value:
                    around[hole] = value if around[hole] == 0 else -1
    out = labels.copy()
    for y in range(height):
        for x in range(width):
            hole = background[y, x]
            if hole != 0 and around[hole] > 0 and size[hole] < limit:
                out[y, x] = around[hole]
    return out


@njit
def _pair_up(nuclei, cells, n):  # type: ignore[no-untyped-def]
    height, width = cells.shape
    number = np.zeros(n + 1, np.int32)
    for y in range(height):
        for x in range(width):
            if nuclei[y, x] == cells[y, x]:
                number[cells[y, x]] = 1
    number[0] = 0
    last = 0
    for k in range(1, n + 1):
        last += number[k]
        number[k] *= last
    new_nuclei = np.zeros((height, width), np.int32)
    new_cells = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            cell = number[cells[y, x]]
            new_cells[y, x] = cell
            if nuclei[y, x] == cells[y, x]:
                new_nuclei[y, x] = cell
    return new_nuclei, new_cells


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
