"""Brushes: smooth noise, dots, blobs and paths that stay inside their cell.

All canvases are float32; lengths are pixels of the canvas. Everything random comes from the generator given.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.float32]
Points = NDArray[np.floating]
Places = tuple[Points, Points]  # rows and columns


def blur(canvas: Canvas, sigma: float) -> Canvas:
    """Gaussian blur; a sigma too small to matter returns the canvas as it is."""
    if sigma < 0.3:
        return canvas
    return np.asarray(
        cv2.GaussianBlur(canvas, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), dtype=np.float32
    )


def smooth_noise(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> Canvas:
    """Gaussian noise of mean 0 and deviation 1 whose grains are about ``scale`` pixels wide.

    Coarse noise is made on a coarse grid and enlarged, so its cost does not grow with its scale.
    """
    height, width = shape
    scale = max(scale, 0.6)
    step = max(1.0, scale / 2)
    sigma = scale / step
    rows, columns = int(height / step) + 5, int(width / step) + 5
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    grid = cv2.GaussianBlur(grid, (0, 0), sigma) * np.float32(2 * np.sqrt(np.pi) * sigma)
    full = (int(np.ceil(columns * step)), int(np.ceil(rows * step)))
    enlarged = grid if step == 1 else cv2.resize(grid, full, interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(enlarged[2 : 2 + height, 2 : 2 + width], dtype=np.float32)


def accumulate(shape: tuple[int, int], at: Places, weight: Points) -> Canvas:
    """Add each point's weight to the pixel it falls into; points outside are left out."""
    rows, columns = (np.floor(values).astype(np.int64) for values in at)
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    index = rows[inside] * shape[1] + columns[inside]
    total = np.bincount(index, weights=weight[inside], minlength=shape[0] * shape[1])
    return total.reshape(shape).astype(np.float32)


def dots(shape: tuple[int, int], at: Places, weight: Points, sigma: float) -> Canvas:
    """Round spots whose peak is their weight."""
    sigma = max(sigma, 0.6)
    return blur(accumulate(shape, at, weight), sigma) * np.float32(2 * np.pi * sigma**2)


def blobs(
    shape: tuple[int, int], at: Places, radius: Points, rng: np.random.Generator, rough: float = 0.2
) -> Canvas:
    """Irregular round bodies of height 1 with an edge of about a pixel."""
    canvas = np.zeros(shape, dtype=np.float32)
    phases = rng.uniform(0, 2 * np.pi, (len(radius), 2))
    for row, column, size, (two, three) in zip(*at, radius, phases, strict=True):
        reach = int(np.ceil(size * (1 + 2 * rough) + 2))
        top, left = max(0, int(row) - reach), max(0, int(column) - reach)
        bottom, right = max(0, int(row) + reach + 1), max(0, int(column) + reach + 1)
        box = canvas[top:bottom, left:right]
        if box.size == 0:
            continue
        dy = np.arange(top, top + box.shape[0])[:, None] - row
        dx = np.arange(left, left + box.shape[1])[None, :] - column
        angle = np.arctan2(dy, dx)
        limit = size * (1 + rough * np.sin(2 * angle + two) + 0.6 * rough * np.sin(3 * angle + three))
        np.maximum(box, np.clip((limit - np.hypot(dy, dx)) / max(1.0, 0.2 * size) + 0.5, 0, 1), out=box)
    return canvas


def sample_pixels(
    weight: NDArray[np.floating], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of ``count`` pixels drawn with repeats in proportion to their weight."""
    cumulative = np.cumsum(weight.ravel(), dtype=np.float64)
    if count <= 0 or cumulative[-1] <= 0:
        empty = np.zeros(0, dtype=np.intp)
        return empty, empty
    index = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    return np.divmod(np.minimum(index, weight.size - 1), weight.shape[1])


def paths(
    ground: NDArray[np.int32],
    starts: tuple[NDArray[np.intp], NDArray[np.intp]],
    angles: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    steps: int,
    wobble: float,
    patience: float = 0.8,
    grain: Canvas | None = None,
) -> Canvas:
    """Fibres that wander by one pixel a step and never leave the ground of the label they start on.

    Args:
        ground: label map of where fibres may run; a nucleus they go around is 0 in it.
        starts: rows and columns of the first pixels.
        angles: first directions in radians.
        rng: source of everything random.
        steps: pixels that a fibre runs at most.
        wobble: change of direction per pixel in radians, kept up over some pixels.
        patience: part of its brightness that a fibre keeps each time it runs into an edge and turns.
        grain: orientation in radians of each pixel, which some fibres follow and others hardly.

    Returns:
        float32 canvas: how many fibres pass through each pixel.
    """
    height, width = ground.shape
    y, x = starts[0] + 0.5, starts[1] + 0.5
    owner = ground[starts]
    angle, bend = angles.astype(np.float64), np.zeros(len(angles))
    hand = rng.choice([-0.5, 0.5], len(angles))
    weight = rng.lognormal(0, 0.4, len(angles))
    follow = 0.12 * rng.random(len(angles)) ** 2
    rows, columns, weights = [], [], []
    for _ in range(steps):
        bend = 0.85 * bend + wobble * rng.standard_normal(len(angle))
        angle = angle + bend
        if grain is not None:
            angle = angle + follow * np.sin(2 * (grain[y.astype(np.intp), x.astype(np.intp)] - angle))
        next_y, next_x = y + np.sin(angle), x + np.cos(angle)
        row, column = next_y.astype(np.intp), next_x.astype(np.intp)
        inside = (next_y >= 0) & (row < height) & (next_x >= 0) & (column < width)
        free = inside & (ground[np.where(inside, row, 0), np.where(inside, column, 0)] == owner)
        y, x = np.where(free, next_y, y), np.where(free, next_x, x)
        angle = np.where(free, angle, angle + hand)
        weight = np.where(free, weight, weight * patience)
        rows.append(y)
        columns.append(x)
        weights.append(np.where(free, weight, 0))
    shape = (height, width)
    if not rows or len(angles) == 0:
        return np.zeros(shape, dtype=np.float32)
    return accumulate(shape, (np.concatenate(rows), np.concatenate(columns)), np.concatenate(weights))
