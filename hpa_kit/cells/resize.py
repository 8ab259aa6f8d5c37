"""Label maps resized without new numbers: by the number at each pixel's centre, or with smooth outlines."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.cells.regions import LabelMap
from hpa_kit.errors import InputError
from hpa_kit.jit import njit


def resized(labels: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Resize a label map: each new pixel takes the number that lies at its centre.

    The kit's one way to shrink label maps, for scoring as for stage 2's targets: fields, class maps and label
    maps then lie on each other, pixel centres on pixel centres. Only :func:`~hpa_kit.inference.score_cells`
    has the 15th place's way too, which takes the number at a pixel's corner.

    Args:
        labels: (H, W), bool or any integer dtype, which stays; so do the numbers, and none is new.
        shape: (h, w), 1 or more each.

    Returns:
        (h, w), C-contiguous; the label map itself where it has this shape.

    Raises:
        InputError: it is no label map, or has no pixels, or is to have none.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "bui":
        raise InputError(f"label map: expected bool or integers of any size, found {array.dtype}")
    if array.ndim != 2 or 0 in (*array.shape, *shape) or len(shape) != 2:
        raise InputError(f"label map: {array.shape} cannot be resized to {tuple(shape)}; expected (H, W)")
    if array.shape == tuple(shape):
        return array
    # OpenCV resizes few of the integer dtypes; the old place of each new pixel's centre it resizes for all.
    for axis, (before, after) in enumerate(zip(array.shape, shape, strict=True)):
        places = cv2.resize(
            np.arange(before, dtype=np.int32)[None], (after, 1), interpolation=cv2.INTER_NEAREST_EXACT
        )
        array = array.take(places[0], axis=axis)
    return array


def enlarge(labels: LabelMap, shape: tuple[int, int]) -> LabelMap:
    """Resize a label map.

    Each pixel takes the number with most bilinear weight among the four nearest pixels of the small map, the
    smallest such number where several weigh the same. Outlines follow slopes instead of steps.

    Args:
        labels: int32 (h, w).
        shape: (H, W) wanted, larger or smaller.

    Returns:
        int32 (H, W), a new array.
    """
    if labels.shape == tuple(shape):
        return labels.copy()
    if 0 in labels.shape or 0 in shape:
        return np.zeros(shape, np.int32)
    out = np.empty(shape, np.int32)
    _enlarge(np.ascontiguousarray(labels, dtype=np.int32), out)
    return out


def enlarge_apart(
    cells: LabelMap, nucleus: NDArray[np.bool_], shape: tuple[int, int]
) -> tuple[LabelMap, LabelMap]:
    """Enlarge cells as :func:`enlarge` does, one pixel off every outline, and cut the nuclei out of them.

    Args:
        cells: int32 (h, w).
        nucleus: bool (h, w), resized to the nearest pixel.
        shape: (H, W) wanted, larger or smaller.

    Returns:
        nuclei and cells, int32 (H, W). A pixel with a neighbour of another number, through an edge, is
        background, so cells that touch lie two pixels apart; the border of the field is no outline.
    """
    # numpy asks the system for large pages, numba does not: half the time of a field's label maps.
    out = np.empty(shape, np.int32), np.empty(shape, np.int32)
    _enlarge_apart(np.ascontiguousarray(cells), np.ascontiguousarray(nucleus), *out)
    return out


@njit
def _positions(small, large):  # type: ignore[no-untyped-def]
    """Per large pixel: the small pixel before its centre, and how far it is on the way to the next."""
    before = np.empty(large, np.int32)
    share = np.empty(large, np.float64)
    for i in range(large):
        at = max((i + 0.5) * small / large - 0.5, 0.0)
        before[i] = int(at)
        share[i] = at - before[i]
    return before, share


@njit
def _enlarge(labels, out):  # type: ignore[no-untyped-def]
    height, width = out.shape
    tops, lows = _positions(labels.shape[0], height)
    lefts, shares = _positions(labels.shape[1], width)
    for y in range(height):
        _row(labels, tops[y], lows[y], lefts, shares, out[y])


@njit
def _row(labels, top, low, lefts, shares, out):  # type: ignore[no-untyped-def]
    """One row of the enlarged map; runs between four equal pixels are filled at once."""
    h, w = labels.shape
    bottom = min(top + 1, h - 1)
    width = out.size
    x = 0
    while x < width:
        left = lefts[x]
        right = min(left + 1, w - 1)
        a, b, c, d = labels[top, left], labels[top, right], labels[bottom, left], labels[bottom, right]
        if a == b and a == c and a == d:
            while x < width and lefts[x] == left:
                out[x] = a
                x += 1
        else:
            while x < width and lefts[x] == left:
                out[x] = _heaviest(a, b, c, d, low, shares[x])
                x += 1


@njit
def _heaviest(a, b, c, d, low, right):  # type: ignore[no-untyped-def]
    numbers = (a, b, c, d)
    weights = ((1 - low) * (1 - right), (1 - low) * right, low * (1 - right), low * right)
    best, most = a, -1.0
    for i in range(4):
        total = 0.0
        for j in range(4):
            if numbers[j] == numbers[i]:
                total += weights[j]
        # Sums of the same weights in another order may differ in their last digit.
        if total > most + 1e-6 or (total > most - 1e-6 and numbers[i] < best):
            best, most = numbers[i], total
    return best


@njit
def _enlarge_apart(cells, nucleus, out_nuclei, out_cells):  # type: ignore[no-untyped-def]
    height, width = out_cells.shape
    tops, lows = _positions(cells.shape[0], height)
    lefts, shares = _positions(cells.shape[1], width)
    # Three rows at a time, so that the enlarged map with its outlines never stands in memory as a whole.
    rows = np.empty((3, width), np.int32)
    _row(cells, tops[0], lows[0], lefts, shares, rows[0])
    rows[2] = rows[0]
    inside = np.empty(width, np.int32)  # of the nuclei: all bits or none
    last = -1
    for y in range(height):
        above, own, below = rows[(y + 2) % 3], rows[y % 3], rows[(y + 1) % 3]
        if y + 1 < height:
            _row(cells, tops[y + 1], lows[y + 1], lefts, shares, below)
        else:
            below = own
        line = out_cells[y]
        for x in (0, width - 1):
            value, beside = own[x], own[min(x + 1, width - 1) if x == 0 else x - 1]
            line[x] = value if above[x] == value and below[x] == value and beside == value else 0
        if width > 2:
            _inner(own[1:-1], above[1:-1], below[1:-1], own[:-2], own[2:], line[1:-1])
        small = int((y + 0.5) * cells.shape[0] / height)
        if small != last:
            last = small
            for x in range(width):
                inside[x] = -1 if nucleus[small, int((x + 0.5) * cells.shape[1] / width)] else 0
        _cut(line, inside, out_nuclei[y])


# Slices of their own, one per neighbour, and no branch: so the compiler takes several pixels at a time.
@njit
def _inner(own, above, below, before, after, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        value = own[x]
        other = (above[x] ^ value) | (below[x] ^ value) | (before[x] ^ value) | (after[x] ^ value)
        out[x] = value if other == 0 else 0


@njit
def _cut(line, inside, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        out[x] = line[x] & inside[x]
