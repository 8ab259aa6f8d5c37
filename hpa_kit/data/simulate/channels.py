"""The three channels that every field shares: microtubules, endoplasmic reticulum and nuclei."""

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.simulate.draw import Canvas, accumulate, blur, paths, sample_pixels, smooth_noise
from hpa_kit.data.simulate.scene import Scene


def microtubules(scene: Scene, rng: np.random.Generator) -> Canvas:
    """Red: a net of fibres that start at the nucleus, swirl around it and thin out towards the edge."""
    unit = scene.unit
    ground = scene.cytoplasm
    ground[scene.per_cell(scene.layout.outlines.mitotic.astype(np.float32)) > 0] = 0
    steps = max(8, round(230 * unit))
    width = max(1.0, 3.2 * unit)
    pull = np.exp(-scene.near / (55 * unit)) + 0.12
    count = round(1.0 * float((ground > 0).sum()) / (steps * width))
    rows, columns = sample_pixels((pull * (ground > 0)).astype(np.float32), count, rng)
    angles = _fibre_angles(scene, rows, columns, rng)
    net = paths(
        ground, (rows, columns), angles, rng, steps=steps, wobble=0.012 / np.sqrt(unit), grain=_grain(scene)
    )
    beads = np.clip(1 + 0.3 * smooth_noise(scene.shape, max(0.7, 3 * unit), rng), 0.2, 2)
    net = blur(net * beads, max(0.5, 1.0 * unit)) * np.float32(width)
    haze = blur(net, 12 * unit)
    fibres = 0.42 * net**0.9 * (1 - 0.5 * scene.outer) + 0.1 * haze
    return fibres * (0.35 + 0.65 * scene.thick) + spindles(scene, rng)


def _grain(scene: Scene) -> Canvas:
    """Orientation of the fibres: around the nucleus and along the edge, or along the cell between them."""
    height, width = scene.shape
    # It changes slowly, so a smaller canvas will do.
    factor = max(1, round(8 * scene.unit))
    size = (max(1, width // factor), max(1, height // factor))
    flat = cv2.resize(scene.near - scene.edge, size, interpolation=cv2.INTER_AREA)
    flat = blur(flat, 6 * scene.unit / factor)
    around = np.arctan2(-cv2.Sobel(flat, cv2.CV_32F, 1, 0), cv2.Sobel(flat, cv2.CV_32F, 0, 1))
    axis = scene.per_cell(scene.layout.outlines.angle)
    along = cv2.resize(axis, size, interpolation=cv2.INTER_NEAREST)
    # Orientations have no sign: they are mixed at twice their angle.
    sine = np.sin(2 * around) + np.sin(2 * along)
    cosine = np.cos(2 * around) + np.cos(2 * along)
    mixed = (0.5 * np.arctan2(sine, cosine)).astype(np.float32)
    return np.asarray(cv2.resize(mixed, (width, height), interpolation=cv2.INTER_NEAREST))


def _fibre_angles(
    scene: Scene, rows: NDArray[np.intp], columns: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    """First directions: away from the nucleus, around it, or along the cell."""
    outlines = scene.layout.outlines
    cell = scene.layout.cells[rows, columns] - 1
    outward = np.arctan2(rows - outlines.y[cell], columns - outlines.x[cell])
    around = outward + rng.choice([-1, 1], len(rows)) * np.pi / 2
    along = outlines.angle[cell] + rng.choice([0, np.pi], len(rows))
    kind = rng.choice(3, len(rows), p=[0.45, 0.3, 0.25])
    return np.choose(kind, [outward, around, along]) + rng.normal(0, 0.4, len(rows))


def spindles(scene: Scene, rng: np.random.Generator) -> Canvas:
    """Fibres between the two poles of each dividing cell and its plate of chromosomes; zero elsewhere."""
    outlines, unit = scene.layout.outlines, scene.unit
    points: list[NDArray[np.float64]] = []
    for index in np.flatnonzero(outlines.mitotic):
        plate, pole = outlines.long[index], 1.05 * outlines.long[index]
        along = np.array([np.cos(outlines.angle[index]), np.sin(outlines.angle[index])])
        axis = np.array([-along[1], along[0]])
        length = max(8, int(2 * pole))
        t = np.linspace(0, 1, length)[:, None]
        for side in (-1, 1):
            for q in rng.uniform(-0.75, 0.75, 22) * plate:
                bow = np.sin(np.pi * t / 2) * q
                points.append(
                    (1 - t) * side * pole * axis + bow * along + (outlines.x[index], outlines.y[index])
                )
    if not points:
        return np.zeros(scene.shape, dtype=np.float32)
    x, y = np.concatenate(points).T
    drawn = accumulate(scene.shape, (y, x), np.ones(len(x)))
    fibres = np.sqrt(blur(drawn, max(0.7, 2 * unit)) * np.float32(3 * max(1.0, unit)))
    # Chromosomes push the fibres aside; the rest of the tubulin fills the cell.
    fibres = np.minimum(0.5 * fibres, 1.3) * (1 - 0.55 * (scene.layout.nuclei > 0))
    return scene.per_cell(outlines.mitotic.astype(np.float32)) * (fibres + 0.1 * scene.thick)


def reticulum(scene: Scene, rng: np.random.Generator) -> Canvas:
    """Yellow: a fine net, dense around the nucleus."""
    unit = scene.unit
    fine = smooth_noise(scene.shape, max(0.8, 3.4 * unit), rng)
    coarse = smooth_noise(scene.shape, 18 * unit, rng)
    net = np.exp(-((fine / 0.55) ** 2)) * np.clip(1 + 0.4 * coarse, 0.2, 2)
    fall = 0.25 + 0.75 * np.exp(-scene.near / (75 * unit))
    body = np.where(scene.layout.nuclei > 0, 0.1, fall * (1 - 0.5 * scene.outer))
    dividing = scene.per_cell(scene.layout.outlines.mitotic.astype(np.float32)) > 0
    body = np.where(dividing & (scene.layout.nuclei == 0), 0.45, body).astype(np.float32)
    return (0.25 + 0.85 * net) * blur(body, 2.5 * unit) * scene.thick


def nuclei(scene: Scene, rng: np.random.Generator) -> Canvas:
    """Blue: grainy chromatin with holes where the nucleoli are; a dense plate in dividing cells."""
    unit = scene.unit
    coarse = smooth_noise(scene.shape, 13 * unit, rng)
    fine = smooth_noise(scene.shape, max(0.7, 4 * unit), rng)
    grain = np.clip(0.72 + 0.13 * coarse + 0.13 * fine, 0.25, 1.3)
    grain *= 1 - 0.6 * blur(scene.nucleoli, 2 * unit)
    rim = 0.12 * np.exp(-((scene.inside / (6 * unit)) ** 2))
    body = blur((scene.layout.nuclei > 0).astype(np.float32), 2 * unit)
    dividing = scene.per_cell(scene.layout.outlines.mitotic.astype(np.float32)) > 0
    return body * np.where(dividing, 1.25 + 0.25 * fine, grain + rim).astype(np.float32)
