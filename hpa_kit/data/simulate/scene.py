"""What every brush needs to know of a field: distances, thickness, nucleoli, places beside a nucleus."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.simulate.draw import Canvas, blobs
from hpa_kit.data.simulate.layout import Layout

Spots = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]  # y, x, number of the cell


@dataclass(frozen=True)
class Scene:
    """A laid-out field with the maps derived from it; float32 (H, W), distances in pixels."""

    layout: Layout
    near: Canvas  # distance from the nearest nucleus, 0 inside one
    inside: Canvas  # distance from the rim, inside a nucleus; 0 outside
    edge: Canvas  # distance from the edge of the cell
    outer: Canvas  # 0 at the nucleus, 1 at the edge of the cell
    thick: Canvas  # how much cell lies under a pixel: 0 outside, rising from the edge to 1
    nucleoli: Canvas  # 1 in nucleoli
    nucleolus_spots: Spots
    nucleolus_radius: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the canvas."""
        return self.layout.cells.shape[0], self.layout.cells.shape[1]

    @property
    def unit(self) -> float:
        """Pixels per pixel of a full field."""
        return self.layout.unit

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.layout.outlines.y)

    @property
    def cytoplasm(self) -> NDArray[np.int32]:
        """Label map of the cells without their nuclei."""
        return np.where(self.layout.nuclei > 0, 0, self.layout.cells)

    def per_cell(self, values: NDArray[np.floating]) -> Canvas:
        """One value per cell -> that value on each pixel of the cell, 0 outside."""
        table = np.concatenate([[0], values]).astype(np.float32)
        return np.take(table, self.layout.cells, mode="clip")


def make_scene(layout: Layout, rng: np.random.Generator) -> Scene:
    """Derive the maps of a field and place the nucleoli."""
    cells, unit = layout.cells, layout.unit
    near = _distance(layout.nuclei == 0)
    inside = _distance(layout.nuclei > 0)
    border = np.zeros(cells.shape, dtype=np.bool_)
    border[1:] |= cells[1:] != cells[:-1]
    border[:-1] |= cells[1:] != cells[:-1]
    border[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    border[:, :-1] |= cells[:, 1:] != cells[:, :-1]
    edge = _distance(~border) * (cells > 0)
    thick = (1 - np.exp(-edge / (28 * unit))) * (cells > 0)
    spots, radius = _nucleoli(layout, rng)
    nucleoli = blobs((cells.shape[0], cells.shape[1]), spots[:2], radius, rng, rough=0.18) * (
        layout.nuclei > 0
    )
    return Scene(layout, near, inside, edge, near / (near + edge + 1e-3), thick, nucleoli, spots, radius)


def _distance(mask: NDArray[np.bool_]) -> Canvas:
    # Fields without a zero would be infinitely far; the largest side is far enough.
    return np.minimum(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5), max(mask.shape))


def _nucleoli(layout: Layout, rng: np.random.Generator) -> tuple[Spots, NDArray[np.float32]]:
    """One to five round bodies per nucleus that keep off each other and off the rim."""
    outlines = layout.outlines
    found: list[tuple[float, float, int, float]] = []
    for index in np.flatnonzero(~outlines.mitotic):
        mine: list[tuple[float, float, float]] = []
        for _ in range(int(rng.choice([1, 2, 3, 4, 5], p=[0.15, 0.3, 0.3, 0.15, 0.1]))):
            radius = outlines.short[index] * rng.uniform(0.14, 0.24)
            y, x = inside_nucleus(layout, int(index), 0.62, rng)
            if all(np.hypot(y - a, x - b) > 1.3 * (radius + c) for a, b, c in mine):
                mine.append((y, x, radius))
        found += [(y, x, int(index) + 1, radius) for y, x, radius in mine]
    table = np.array(found, dtype=np.float64).reshape(-1, 4)
    spots = table[:, 0].astype(np.float32), table[:, 1].astype(np.float32), table[:, 2].astype(np.int64)
    return spots, table[:, 3].astype(np.float32)


def inside_nucleus(layout: Layout, index: int, limit: float, rng: np.random.Generator) -> tuple[float, float]:
    """A random place in the nucleus of cell ``index`` (from 0), at most ``limit`` of the way to its rim."""
    outlines = layout.outlines
    angle, far = rng.uniform(0, 2 * np.pi), limit * np.sqrt(rng.random())
    along, across = far * np.cos(angle) * outlines.long[index], far * np.sin(angle) * outlines.short[index]
    cos, sin = np.cos(outlines.angle[index]), np.sin(outlines.angle[index])
    return (
        float(outlines.y[index] + along * sin + across * cos),
        float(outlines.x[index] + along * cos - across * sin),
    )


def beside_nucleus(
    scene: Scene, index: int, gap: float, rng: np.random.Generator, direction: float | None = None
) -> tuple[float, float]:
    """A place in the cytoplasm of cell ``index`` (from 0), ``gap`` pixels off its nucleus.

    Directions are tried from the given or a random one; where the cell is too narrow all around, or cut by
    the border of the field, the place is the pixel of the cell that comes nearest to the wish.
    """
    outlines, cells = scene.layout.outlines, scene.layout.cells
    first = rng.uniform(0, 2 * np.pi) if direction is None else direction
    for turn in (0, 0.5, -0.5, 1, -1, 1.6, -1.6, 2.3, -2.3, np.pi):
        theta = first + turn
        local = theta - outlines.angle[index]
        rim = 1 / np.hypot(np.cos(local) / outlines.long[index], np.sin(local) / outlines.short[index])
        y = outlines.y[index] + (rim + gap) * np.sin(theta)
        x = outlines.x[index] + (rim + gap) * np.cos(theta)
        row, column = int(np.floor(y)), int(np.floor(x))
        if 0 <= row < cells.shape[0] and 0 <= column < cells.shape[1] and cells[row, column] == index + 1:
            return float(y), float(x)
    rows, columns = np.nonzero(cells == index + 1)
    best = np.argmin(np.abs(scene.near[rows, columns] - gap) + scene.unit * rng.random(len(rows)))
    return float(rows[best]), float(columns[best])
