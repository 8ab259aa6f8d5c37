"""Growing numbered seeds over an image: marker watershed and geodesic growth, with bucket queues.

Both run in time proportional to the pixels, and both are deterministic: pixels of equal priority leave the
queue in the order in which they entered it; seeds enter row by row; the neighbours of a pixel enter in the
order up, left, right, down (then the four corners). Two runs therefore agree to the last pixel.
"""

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.regions import LabelMap
from hpa_kit.jit import njit

_DY = np.array([-1, 0, 0, 1, -1, -1, 1, 1])
_DX = np.array([0, -1, 1, 0, -1, 1, -1, 1])


def flood(
    levels: NDArray[np.uint8],
    seeds: LabelMap,
    mask: NDArray[np.bool_] | None = None,
    line: bool = False,
    connectivity: int = 4,
) -> LabelMap:
    """Flood from markers: the lowest pixel beside the labelled ones is labelled next.

    Args:
        levels: uint8 (H, W); flooding goes from low to high. Quantise other images to 256 levels.
        seeds: int32 (H, W), 0 where there is none.
        mask: bool (H, W): only these pixels are labelled, seeds outside it are dropped. None: all.
        line: leave pixels where two numbers meet at 0.
        connectivity: 4 or 8.

    Returns:
        int32 (H, W). Pixels that no seed reaches inside the mask are 0.

    After Soille and Ansoult 1990, with the priorities of scikit-image's ``watershed`` up to 0.26 (level, then
    age), which it equals where no two seeds tie; their order in its heap is not defined. Later versions start
    all seeds at once and never let the water fall.
    """
    levels, seeds, mask = _checked(levels, seeds, mask, connectivity)
    return _flood(levels, seeds, mask, line, _DY[:connectivity], _DX[:connectivity])


def spread(
    cost: NDArray[np.uint8],
    seeds: LabelMap,
    mask: NDArray[np.bool_] | None = None,
    reach: int | None = None,
) -> tuple[LabelMap, NDArray[np.int32]]:
    """Grow seeds geodesically: each pixel takes the number of the seed cheapest to reach it from.

    Args:
        cost: uint8 (H, W): price of entering a pixel through an edge; through a corner 7/5 of it. 0 is 1.
        seeds: int32 (H, W), 0 where there is none.
        mask: bool (H, W): only these pixels are labelled, seeds outside it are dropped. None: all.
        reach: pixels farther than this distance (see Returns) are not labelled; None: no limit.

    Returns:
        labels int32 (H, W) and the distance int32 (H, W): 5 × the sum of prices through edges, 7 × through
        corners (Borgefors 1986); -1 where nothing reached.

    Dijkstra's algorithm with Dial's circular buckets (1969). Ties go to whoever came first, see above.
    """
    cost, seeds, mask = _checked(cost, seeds, mask, 8)
    limit = np.iinfo(np.int32).max - 4096 if reach is None else int(reach)
    return _spread(np.maximum(cost, np.uint8(1)), seeds, mask, limit, _DY, _DX)


def otsu(histogram: NDArray[np.integer] | NDArray[np.floating]) -> int:
    """Find Otsu's threshold of a histogram: the highest bin of the lower class (Otsu 1979).

    Args:
        histogram: (n,), counts of the values 0…n-1.

    Returns:
        the bin; pixels above it are foreground. The lowest such bin where several are equally good, and the
        one bin in use where there is only one; 0 for an empty histogram.
    """
    counts = np.asarray(histogram, np.float64)
    values = np.arange(counts.size)
    used = np.flatnonzero(counts)
    if used.size < 2:
        return int(used[0]) if used.size else 0
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mass = counts * values
    mean_below = np.cumsum(mass)[:-1] / np.maximum(below[:-1], 1e-300)
    mean_above = np.cumsum(mass[::-1])[::-1][1:] / np.maximum(above[1:], 1e-300)
    between = below[:-1] * above[1:] * (mean_below - mean_above) ** 2
    return int(np.argmax(between))


def _checked(  # type: ignore[no-untyped-def]
    levels, seeds, mask, connectivity
) -> tuple[NDArray[np.uint8], LabelMap, NDArray[np.bool_]]:
    if levels.ndim != 2 or levels.dtype != np.uint8:
        raise ValueError(f"levels must be uint8 (H, W), found {levels.dtype} {levels.shape}")
    if mask is None:
        mask = np.ones(levels.shape, bool)
    if seeds.shape != levels.shape or mask.shape != levels.shape:
        raise ValueError(f"levels {levels.shape}, seeds {seeds.shape} and mask {mask.shape} differ in size")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, found {connectivity}")
    if seeds.min(initial=0) < 0:
        raise ValueError(f"seeds must be 0 or above, found {seeds.min()}")
    return levels, seeds.astype(np.int32, copy=False), mask.astype(bool, copy=False)


@njit
def _flood(levels, seeds, mask, line, dys, dxs):  # type: ignore[no-untyped-def]  # noqa: PLR0912
    height, width = levels.shape
    wide = width + 2  # one blocked pixel all round spares every test for the border
    level_of = np.zeros((height + 2) * wide, np.uint8)
    owner = np.full((height + 2) * wide, -1, np.int32)  # who queued a pixel; 0 nobody yet, -1 blocked
    after = np.empty((height + 2) * wide, np.int32)
    head = np.full(256, -1, np.int32)
    tail = np.full(256, -1, np.int32)
    for y in range(height):
        for x in range(width):
            if mask[y, x]:
                pixel = (y + 1) * wide + x + 1
                level_of[pixel] = levels[y, x]
                owner[pixel] = seeds[y, x]
                if seeds[y, x] != 0:
                    _push(head, tail, after, levels[y, x], pixel)
    labelled = owner.copy() if line else owner
    ridge = np.zeros(labelled.size if line else 0, np.bool_)
    steps = dys * wide + dxs
    level = 0
    while level < 256:
        pixel = head[level]
        if pixel < 0:
            level += 1
            continue
        head[level] = after[pixel]
        own = owner[pixel]
        if line:
            if _meets_another(labelled, ridge, pixel, own, steps):
                ridge[pixel] = True
            else:
                labelled[pixel] = own
        for step in steps:
            beside = pixel + step
            if owner[beside] == 0:
                owner[beside] = own  # also from a ridge: what lies behind it is not cut off
                _push(head, tail, after, level_of[beside], beside)
                level = min(level, level_of[beside])
    out = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            out[y, x] = max(labelled[(y + 1) * wide + x + 1], 0)
    return out


@njit
def _meets_another(labelled, ridge, pixel, own, steps):  # type: ignore[no-untyped-def]
    for step in steps:
        beside = pixel + step
        if labelled[beside] > 0 and labelled[beside] != own and not ridge[beside]:
            return True
    return False


@njit
def _push(head, tail, after, bucket, item):  # type: ignore[no-untyped-def]
    after[item] = -1
    if head[bucket] < 0:
        head[bucket] = item
    else:
        after[tail[bucket]] = item
    tail[bucket] = item


@njit
def _spread(cost, seeds, mask, reach, dys, dxs):  # type: ignore[no-untyped-def]
    height, width = cost.shape
    labels = np.zeros((height, width), np.int32)
    distance = np.full((height, width), -1, np.int32)
    ring = 2048  # more than the dearest step, 7 x 255, so a bucket never holds two distances
    head = np.full(ring, -1, np.int32)
    tail = np.full(ring, -1, np.int32)
    after = np.full(height * width, -1, np.int32)
    before = np.full(height * width, -1, np.int32)
    waiting = 0
    for y in range(height):
        for x in range(width):
            if seeds[y, x] != 0 and mask[y, x]:
                labels[y, x] = seeds[y, x]
                distance[y, x] = 0
                _append(head, tail, after, before, 0, y * width + x)
                waiting += 1
    now = 0
    while waiting > 0:
        pixel = head[now % ring]
        if pixel < 0:
            now += 1
            continue
        _take(head, tail, after, before, now % ring, pixel)
        waiting -= 1
        y, x = pixel // width, pixel % width
        for k in range(len(dys)):
            v, u = y + dys[k], x + dxs[k]
            if v < 0 or u < 0 or v >= height or u >= width or not mask[v, u]:
                continue
            there = now + (5 if k < 4 else 7) * np.int32(cost[v, u])
            if there > reach or 0 <= distance[v, u] <= there:
                continue
            item = v * width + u
            if distance[v, u] >= 0:
                _take(head, tail, after, before, distance[v, u] % ring, item)
                waiting -= 1
            distance[v, u] = there
            labels[v, u] = labels[y, x]
            _append(head, tail, after, before, there % ring, item)
            waiting += 1
    return labels, distance


@njit
def _append(head, tail, after, before, bucket, item):  # type: ignore[no-untyped-def]
    before[item] = tail[bucket] if head[bucket] >= 0 else -1
    _push(head, tail, after, bucket, item)


@njit
def _take(head, tail, after, before, bucket, item):  # type: ignore[no-untyped-def]
    if before[item] >= 0:
        after[before[item]] = after[item]
    else:
        head[bucket] = after[item]
    if after[item] >= 0:
        before[after[item]] = before[item]
    else:
        tail[bucket] = before[item]
