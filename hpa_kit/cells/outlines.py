"""Outlines of cells: polygons along the edges of their pixels, so that areas are counts of pixels."""

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.regions import LabelMap, cell_geometry, components
from hpa_kit.jit import njit

# A closed ring of corners x, y, int64 (k, 2), the first one again at the end.
Ring = NDArray[np.int64]
# A ring around a piece of a cell, and those around holes in it.
Polygon = list[Ring]


def outlines(labels: LabelMap) -> list[list[Polygon]]:
    """Draw around every number of a label map.

    Args:
        labels: int32 (H, W), 0 background and 1…n.

    Returns:
        Of each number its pieces, which touch at corners at most; none for a number without pixels. Corners
        are in pixels, (0, 0) being the outer corner of the first pixel. Rings run as RFC 7946 has them: the
        outer one's area is positive in x and y as they stand, those of holes negative. None touches itself.
    """
    geometry = cell_geometry(labels)
    found = []
    for number, (top, left, bottom, right) in enumerate(geometry.box.tolist(), start=1):
        pieces = (
            components(labels[top:bottom, left:right] == number)
            if bottom > top
            else np.zeros((0, 0), np.int32)
        )
        n_pieces = int(pieces.max(initial=0))
        found.append([_polygon(pieces == piece, left, top) for piece in range(1, n_pieces + 1)])
    return found


def ring_area(ring: Ring) -> float:
    """Tell the area in a ring, negative where it runs the other way round."""
    x, y = ring[:-1].T.astype(np.float64)
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def _polygon(mask: NDArray[np.bool_], left: int, top: int) -> Polygon:
    """The rings of one piece, the outer one first."""
    corners, ends = _traced(np.pad(mask, 1))
    places = corners + np.array([left - 1, top - 1])
    rings = [np.concatenate([ring, ring[:1]]) for ring in np.split(places, ends[:-1])]
    return sorted(rings, key=ring_area, reverse=True)


@njit
def _traced(mask):  # type: ignore[no-untyped-def]
    """Corners of all rings of a mask without pixels at its border, and where each ring ends.

    Edges run to the right above pixels, down beside them, left below, up: the pixels lie to one side. Where
    two pixels touch at a corner the ring goes over to the other one, so that none meets itself.
    """
    height, width = mask.shape
    edges = np.zeros((4, height + 1, width + 1), np.bool_)  # from a corner to the right, down, left, up
    count = 0
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if not mask[y, x]:
                continue
            for there, direction, cy, cx in (
                (mask[y - 1, x], 0, y, x),
                (mask[y, x + 1], 1, y, x + 1),
                (mask[y + 1, x], 2, y + 1, x + 1),
                (mask[y, x - 1], 3, y + 1, x),
            ):
                if not there:
                    edges[direction, cy, cx] = True
                    count += 1
    corners = np.empty((count, 2), np.int64)
    ends = np.empty(count, np.int64)
    n_corners, n_rings = 0, 0
    for y in range(height):
        for x in range(width):
            if not edges[0, y, x]:
                continue
            cy, cx, direction, before = y, x, 0, -1
            while edges[direction, cy, cx]:
                edges[direction, cy, cx] = False
                if direction != before:
                    corners[n_corners, 0], corners[n_corners, 1] = cx, cy
                    n_corners += 1
                before = direction
                cx += (direction == 0) - (direction == 2)
                cy += (direction == 1) - (direction == 3)
                for turn in (3, 0, 1):
                    if edges[(direction + turn) % 4, cy, cx]:
                        direction = (direction + turn) % 4
                        break
            ends[n_rings] = n_corners
            n_rings += 1
    return corners[:n_corners], ends[:n_rings]
