"""Patterns of the nucleus: location classes 0 to 5."""

import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.simulate.draw import Canvas, blobs, blur, dots, smooth_noise
from hpa_kit.data.simulate.scene import Scene, inside_nucleus

Members = NDArray[np.int64]


def nucleus_body(scene: Scene) -> Canvas:
    """The nuclei as an even body with a soft rim."""
    return blur((scene.layout.nuclei > 0).astype(np.float32), 1.5 * scene.unit)


def nucleoplasm(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Smooth over the nucleus, less in the nucleoli."""
    fine = smooth_noise(scene.shape, max(0.8, 5 * scene.unit), rng)
    coarse = smooth_noise(scene.shape, 18 * scene.unit, rng)
    grain = 0.8 + 0.11 * fine + 0.05 * coarse
    return 0.75 * nucleus_body(scene) * grain * (1 - 0.5 * blur(scene.nucleoli, 2 * scene.unit))


def nuclear_membrane(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """A thin ring at the rim of the nucleus, some folds inside."""
    width = max(0.9, 4.5 * scene.unit)
    away = np.where(scene.layout.nuclei > 0, scene.inside - 1, scene.near)
    uneven = 1 + 0.2 * smooth_noise(scene.shape, 14 * scene.unit, rng)
    return np.clip(np.exp(-((away / width) ** 2)) * uneven, 0, 2) + 0.2 * nucleus_body(scene)


def nucleoli(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """The one to five round bodies that are holes in the chromatin."""
    grain = 0.9 + 0.14 * smooth_noise(scene.shape, max(0.8, 5 * scene.unit), rng)
    return blur(scene.nucleoli, 1.8 * scene.unit) * grain + 0.12 * nucleus_body(scene)


def fibrillar_center(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Small bright dots inside the nucleoli."""
    y, x, _ = scene.nucleolus_spots
    each = rng.integers(3, 8, len(y))
    total = int(each.sum())
    far = np.repeat(scene.nucleolus_radius, each) * np.sqrt(rng.random(total)) * 0.8
    angle = rng.uniform(0, 2 * np.pi, total)
    at = (np.repeat(y, each) + far * np.sin(angle), np.repeat(x, each) + far * np.cos(angle))
    spots = dots(scene.shape, at, 1.4 * rng.lognormal(0, 0.35, total), max(0.8, 2.6 * scene.unit))
    return np.clip(spots, 0, 1.9) + 0.12 * nucleus_body(scene)


def nuclear_speckles(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Many irregular patches in the nucleus, none in the nucleoli."""
    grains = smooth_noise(scene.shape, max(1.0, 6 * scene.unit), rng)
    uneven = smooth_noise(scene.shape, 20 * scene.unit, rng)
    patches = np.clip((grains + 0.35 * uneven - 0.7) * 1.7, 0, 1.3) * (1 - scene.nucleoli)
    inner = np.asarray(patches * (scene.inside > 4 * scene.unit), np.float32)
    return blur(inner, 1.2 * scene.unit) + 0.22 * nucleus_body(scene)


def nuclear_bodies(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Two to six sharp round bodies per nucleus."""
    places = [
        inside_nucleus(scene.layout, int(cell) - 1, 0.8, rng)
        for cell in members
        for _ in range(rng.integers(2, 7))
    ]
    y, x = np.array(places, dtype=np.float64).reshape(-1, 2).T
    radius = np.maximum(rng.uniform(4, 8, len(y)) * scene.unit, 1.2)
    bodies = blobs(scene.shape, (y, x), radius, rng, rough=0.05)
    return 1.3 * blur(bodies, 1.5 * scene.unit) * (scene.layout.nuclei > 0) + 0.1 * nucleus_body(scene)
