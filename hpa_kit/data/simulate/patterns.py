"""What the protein shows: one pattern for each location class.

A pattern takes the scene, the numbers of the cells that show it and a generator, and gives a float32 canvas
of about 0 to 1. It may paint on other cells too: the caller keeps what lies on the cells that show it. Class
10 is the red channel's own canvas, class 18 is nothing.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.simulate.channels import reticulum, spindles
from hpa_kit.data.simulate.draw import Canvas, Places, blobs, blur, dots, paths, sample_pixels, smooth_noise
from hpa_kit.data.simulate.scene import Scene, beside_nucleus, inside_nucleus

Members = NDArray[np.int64]
Pattern = Callable[[Scene, Members, np.random.Generator], Canvas]


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


def _haze(scene: Scene) -> Canvas:
    """The whole cell as a faint body."""
    return np.where(scene.layout.nuclei > 0, 0.3, 1).astype(np.float32) * scene.thick


def _only(ground: NDArray[np.int32], members: Members) -> NDArray[np.int32]:
    return np.where(np.isin(ground, members), ground, 0).astype(np.int32)


def _number(ground: NDArray[np.int32], pixels_each: float) -> int:
    return round(float((ground > 0).sum()) / pixels_each)


def _column(places: list[tuple[float, float]]) -> Places:
    y, x = np.array(places, dtype=np.float64).reshape(-1, 2).T
    return y, x


def endoplasmic_reticulum(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """A net that is dense around the nucleus, whose rim it lines."""
    rim = np.exp(-((scene.near / (5 * scene.unit)) ** 2)) * (scene.layout.nuclei == 0)
    return 1.15 * reticulum(scene, rng) + 0.25 * rim


def golgi(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """A broken ribbon of stacks hugging one side of the nucleus."""
    unit = scene.unit
    places = []
    for cell in members:
        towards, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.7)
        for _ in range(rng.integers(18, 34)):
            gap = abs(rng.normal(13, 9)) * unit + 1
            turned = towards + rng.normal(0, spread)
            places.append(beside_nucleus(scene, int(cell) - 1, gap, rng, turned))
    radius = np.maximum(rng.uniform(3, 7, len(places)) * unit, 0.8)
    stacks = blobs(scene.shape, _column(places), radius, rng, rough=0.45)
    return 1.15 * blur(stacks, 1.8 * unit) * (scene.layout.nuclei == 0) + 0.06 * _haze(scene)


def intermediate_filaments(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Thick wavy bundles tangled into a cage around the nucleus."""
    unit = scene.unit
    ground = _only(scene.cytoplasm, members)
    steps = max(10, round(260 * unit))
    pull = np.exp(-scene.near / (28 * unit)) * (ground > 0)
    starts = sample_pixels(pull, _number(ground, 2.4 * steps * max(1.0, 5 * unit)), rng)
    angles = rng.uniform(0, 2 * np.pi, len(starts[0]))
    tangle = paths(ground, starts, angles, rng, steps=steps, wobble=0.02 / np.sqrt(unit))
    bundles = blur(tangle, max(0.8, 2.2 * unit)) * np.float32(max(1.6, 6 * unit))
    return 0.65 * np.sqrt(bundles) + 0.2 * blur(bundles, 12 * unit) + 0.04 * _haze(scene)


def actin_filaments(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Straight parallel stress fibres right across the cell, and its cortex."""
    unit, cells = scene.unit, scene.layout.cells
    ground = _only(cells, members)
    steps = max(10, round(240 * unit))
    starts = sample_pixels(
        (ground > 0).astype(np.float32), _number(ground, 2 * steps * max(1.0, 4 * unit)), rng
    )
    tilt = scene.layout.outlines.angle + rng.normal(0, 0.3, scene.count)
    angles = tilt[cells[starts] - 1] + rng.normal(0, 0.09, len(starts[0]))
    fibres = paths(ground, starts, angles, rng, steps=steps, wobble=0.0015 / np.sqrt(unit), patience=0)
    stress = 0.6 * np.sqrt(blur(fibres, max(0.7, 1.7 * unit)) * np.float32(max(1.2, 4 * unit)))
    uneven = np.clip(0.55 + 0.3 * smooth_noise(scene.shape, 30 * unit, rng), 0.1, 1.5)
    cortex = uneven * np.exp(-((scene.edge / max(1.0, 6 * unit)) ** 2)) * (cells > 0)
    return stress * (0.4 + 0.6 * scene.thick) + cortex + 0.1 * _haze(scene)


def mitotic_spindle(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """The fibres between two poles and the plate of a dividing cell."""
    return 1.2 * spindles(scene, rng)


def centrosome(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """One or two small bright spots beside the nucleus."""
    unit = scene.unit
    places = []
    for cell in members:
        y, x = beside_nucleus(scene, int(cell) - 1, rng.uniform(8, 26) * unit + 1, rng)
        places.append((y, x))
        if rng.random() < 0.5:
            turn = rng.uniform(0, 2 * np.pi)
            places.append((y + 11 * unit * np.sin(turn), x + 11 * unit * np.cos(turn)))
    spots = dots(scene.shape, _column(places), np.full(len(places), 2.4), max(1.1, 4.4 * unit))
    return np.clip(spots, 0, 2.4) + 0.08 * _haze(scene)


def plasma_membrane(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """An uneven line along the edge of the cell, with little inside."""
    unit = scene.unit
    line = np.exp(-((scene.edge / max(1.0, 4.5 * unit)) ** 2))
    skirt = 0.25 * np.exp(-scene.edge / (16 * unit))
    uneven = np.clip(0.75 + 0.4 * smooth_noise(scene.shape, 28 * unit, rng), 0.15, 1.6)
    grain = 1 + 0.3 * smooth_noise(scene.shape, max(0.8, 4 * unit), rng)
    return (line + skirt * grain) * uneven * (scene.layout.cells > 0) + 0.1 * _haze(scene)


def mitochondria(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Short curved worms all over the cytoplasm, most of them near the nucleus."""
    unit = scene.unit
    ground = _only(scene.cytoplasm, members)
    steps = max(3, round(34 * unit))
    pull = (np.exp(-scene.near / (70 * unit)) + 0.05) * (ground > 0) * (scene.edge > 6 * unit)
    starts = sample_pixels(pull, _number(ground, 5.5 * steps * max(1.0, 6 * unit)), rng)
    angles = rng.uniform(0, 2 * np.pi, len(starts[0]))
    worms = np.minimum(paths(ground, starts, angles, rng, steps=steps, wobble=0.025 / np.sqrt(unit)), 1.5)
    return 0.8 * np.clip(blur(worms, max(0.7, 2.2 * unit)) * np.float32(max(1.5, 5.5 * unit)), 0, 1.6)


def aggresome(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """One big bright clump beside the nucleus."""
    places, sizes = [], []
    for cell in members:
        size = rng.uniform(17, 30) * scene.unit
        y, x = beside_nucleus(scene, int(cell) - 1, 0.9 * size, rng)
        for _ in range(4):
            places.append((y + rng.normal(0, 0.4) * size, x + rng.normal(0, 0.4) * size))
            sizes.append(size * rng.uniform(0.5, 0.9))
    clumps = blobs(scene.shape, _column(places), np.array(sizes), rng)
    return 1.3 * blur(clumps, 3 * scene.unit) + 0.12 * _haze(scene)


def cytosol(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Smooth over the cell, thin at its edge, hardly in the nucleus."""
    grain = 1 + 0.1 * smooth_noise(scene.shape, max(0.8, 4 * scene.unit), rng)
    coarse = 1 + 0.08 * smooth_noise(scene.shape, 30 * scene.unit, rng)
    body = np.where(scene.layout.nuclei > 0, 0.22, 1 - 0.35 * scene.outer).astype(np.float32)
    return 0.65 * blur(body, 2 * scene.unit) * scene.thick * grain * coarse


def vesicles(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Many dots of differing brightness in the cytoplasm."""
    unit = scene.unit
    ground = _only(scene.cytoplasm, members)
    pull = (0.35 + np.exp(-scene.near / (90 * unit))) * (ground > 0)
    rows, columns = sample_pixels(pull, _number(ground, max(14.0, (19 * unit) ** 2)), rng)
    at = (rows.astype(np.float64), columns.astype(np.float64))
    spots = dots(scene.shape, at, 0.9 * rng.lognormal(0, 0.5, len(rows)), max(0.7, 2.8 * unit))
    return np.clip(spots, 0, 1.8) + 0.05 * _haze(scene)


PATTERNS: dict[int, Pattern] = {
    0: nucleoplasm,
    1: nuclear_membrane,
    2: nucleoli,
    3: fibrillar_center,
    4: nuclear_speckles,
    5: nuclear_bodies,
    6: endoplasmic_reticulum,
    7: golgi,
    8: intermediate_filaments,
    9: actin_filaments,
    11: mitotic_spindle,
    12: centrosome,
    13: plasma_membrane,
    14: mitochondria,
    15: aggresome,
    16: cytosol,
    17: vesicles,
}
