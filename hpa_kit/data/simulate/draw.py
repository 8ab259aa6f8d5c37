"""Brushes: smooth noise, dots, blobs and paths that stay inside their cell.

All canvases are float32; lengths are pixels of the canvas. Everything random comes from the generator given.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.jit import njit

Canvas = NDArray[np.float32]
Points = NDArray[np.floating]
Places = tuple[Points, Points]  # rows and columns


def blur(canvas: Canvas, sigma: float) -> Canvas:
    """Gaussian blur; wide ones are made on a smaller canvas, where they cost nothing."""
    if sigma < 0.3:
        return canvas.astype(np.float32, copy=False)
    height, width = canvas.shape
    factor = min(int(sigma / 3), height // 8, width // 8)
    if factor > 1:
        small = cv2.resize(canvas, (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        wide = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REFLECT)
        return np.asarray(cv2.resize(wide, (width, height)), dtype=np.float32)
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
    shape = (ground.shape[0], ground.shape[1])
    bends = wobble * rng.standard_normal((len(angles), steps), dtype=np.float32)
    hands = rng.choice([-0.5, 0.5], len(angles))
    weights = rng.lognormal(0, 0.4, len(angles))
    follow = 0.12 * rng.random(len(angles)) ** 2 if grain is not None else np.zeros(len(angles))
    canvas = np.zeros(shape, dtype=np.float32)
    flow = canvas if grain is None else grain
    _walk(ground, starts[0], starts[1], angles, bends, hands, weights, follow, flow, patience, canvas)
    return canvas


@njit
def _walk(ground, rows, columns, angles, bends, hands, weights, follow, flow, patience, canvas):  # type: ignore[no-untyped-def]
    """Walk each fibre through ``bends.shape[1]`` steps and add what it leaves to the canvas."""
    height, width = ground.shape
    for fibre in range(len(rows)):
        y, x = rows[fibre] + 0.5, columns[fibre] + 0.5
        owner = ground[rows[fibre], columns[fibre]]
        angle, bend, weight = angles[fibre], 0.0, weights[fibre]
        for step in range(bends.shape[1]):
            bend = 0.85 * bend + bends[fibre, step]
            angle += bend
            if follow[fibre] > 0:
                angle += follow[fibre] * np.sin(2 * (flow[int(y), int(x)] - angle))
            next_y, next_x = y + np.sin(angle), x + np.cos(angle)
            inside = 0 <= next_y < height and 0 <= next_x < width
            if inside and ground[int(next_y), int(next_x)] == owner:
                y, x = next_y, next_x
                canvas[int(y), int(x)] += weight
            else:
                angle += hands[fibre]
                weight *= patience
                if weight < 0.02:
                    break
