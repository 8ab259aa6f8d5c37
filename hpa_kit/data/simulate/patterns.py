"""What the protein shows: one pattern for each of the 19 location classes.

A pattern takes the scene, the numbers of the cells that show it and a generator, and gives a float32 canvas of
about 0 to 1. It may paint on other cells too: the caller keeps what lies on the cells that show it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.simulate.channels import reticulum, spindles
from hpa_kit.data.simulate.draw import Canvas, blobs, blur, dots, paths, sample_pixels, smooth_noise
from hpa_kit.data.simulate.scene import Scene, beside_nucleus, inside_nucleus

Members = NDArray[np.int64]
Pattern = Callable[[Scene, Members, np.random.Generator], Canvas]


def _nuclear(scene: Scene) -> Canvas:
    return blur((scene.layout.nuclei > 0).astype(np.float32), 1.5 * scene.unit)


def _haze(scene: Scene) -> Canvas:
    """The cytoplasm as a faint even body."""
    return np.where(scene.layout.nuclei > 0, 0.3, 1).astype(np.float32) * scene.thick


def _only(ground: NDArray[np.int32], members: Members) -> NDArray[np.int32]:
    return np.where(np.isin(ground, members), ground, 0).astype(np.int32)


def _spread(
    values: NDArray[np.float32], rng: np.random.Generator, sigma: float = 0.35
) -> NDArray[np.float32]:
    return (values * rng.lognormal(0, sigma, len(values))).astype(np.float32)


def nucleoplasm(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Smooth over the nucleus, less in the nucleoli."""
    grain = 0.8 + 0.1 * smooth_noise(scene.shape, max(0.8, 5 * scene.unit), rng)
    return 0.75 * _nuclear(scene) * grain * (1 - 0.45 * blur(scene.nucleoli, 2 * scene.unit))


def nuclear_membrane(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """A thin ring at the rim of the nucleus."""
    width = max(0.9, 4.5 * scene.unit)
    away = np.where(scene.layout.nuclei > 0, scene.inside - 1, scene.near)
    ring = np.exp(-((away / width) ** 2)) * (1 + 0.2 * smooth_noise(scene.shape, 12 * scene.unit, rng))
    return np.clip(ring, 0, 2) + 0.18 * _nuclear(scene)


def nucleoli(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """The one to five round bodies that are holes in the chromatin."""
    grain = 0.9 + 0.12 * smooth_noise(scene.shape, max(0.8, 5 * scene.unit), rng)
    return blur(scene.nucleoli, 1.5 * scene.unit) * grain + 0.12 * _nuclear(scene)


def fibrillar_center(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Small bright dots inside the nucleoli."""
    y, x, _ = scene.nucleolus_spots
    each = rng.integers(2, 6, len(y))
    far = np.repeat(scene.nucleolus_radius, each) * np.sqrt(rng.random(each.sum())) * 0.75
    angle = rng.uniform(0, 2 * np.pi, each.sum())
    rows, columns = np.repeat(y, each) + far * np.sin(angle), np.repeat(x, each) + far * np.cos(angle)
    spots = dots(scene.shape, rows, columns, _spread(np.ones(len(far), np.float32), rng), 3 * scene.unit)
    return np.clip(spots, 0, 1.6) + 0.12 * _nuclear(scene)


def nuclear_speckles(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Many irregular patches in the nucleus, none in the nucleoli."""
    noise = smooth_noise(scene.shape, max(1.0, 6.5 * scene.unit), rng)
    patches = np.clip((noise - 0.75) * 2.2, 0, 1.3) * (1 - scene.nucleoli)
    return patches * (scene.inside > 4 * scene.unit) + 0.22 * _nuclear(scene)


def nuclear_bodies(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Two to six sharp round bodies per nucleus, beside the nucleoli."""
    places = []
    for cell in members:
        for _ in range(rng.integers(2, 7)):
            y, x = inside_nucleus(scene.layout, int(cell) - 1, 0.8, rng)
            places.append((y, x))
    y, x = np.array(places, dtype=np.float32).reshape(-1, 2).T
    radius = (rng.uniform(4.5, 8, len(y)) * scene.unit).astype(np.float32)
    bodies = blobs(scene.shape, y, x, np.maximum(radius, 0.9), rng, rough=0.05)
    return blur(bodies, 1.2 * scene.unit) * (scene.layout.nuclei > 0) * 1.1 + 0.1 * _nuclear(scene)


def endoplasmic_reticulum(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """A net that is dense around the nucleus, rim of the nucleus included."""
    rim = np.exp(-((scene.near / (5 * scene.unit)) ** 2)) * (scene.layout.nuclei == 0)
    return 1.15 * reticulum(scene, rng) + 0.25 * rim


def golgi(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """A ribbon of stacks hugging one side of the nucleus."""
    unit, outlines = scene.unit, scene.layout.outlines
    rows, columns, sizes = [], [], []
    for cell in members:
        index = int(cell) - 1
        towards, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.75)
        for _ in range(rng.integers(14, 26)):
            gap = abs(rng.normal(14, 9)) * unit + 1
            y, x = beside_nucleus(scene, index, gap, rng, towards + rng.normal(0, spread))
            rows.append(y)
            columns.append(x)
            sizes.append(rng.uniform(3.5, 8) * unit)
    y, x, radius = (np.array(v, dtype=np.float32) for v in (rows, columns, sizes))
    stacks = blobs(scene.shape, y, x, np.maximum(radius, 0.8), rng, rough=0.45)
    return 1.1 * blur(stacks, 1.8 * unit) * (scene.layout.nuclei == 0) + 0.06 * _haze(scene)


def intermediate_filaments(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Thick wavy bundles tangled into a cage around the nucleus."""
    unit = scene.unit
    ground = _only(scene.cytoplasm, members)
    steps = max(10, round(240 * unit))
    pull = (np.exp(-scene.near / (28 * unit)) * (ground > 0)).astype(np.float32)
    count = round(0.22 * float((ground > 0).sum()) / (steps * max(1.0, 5 * unit)))
    rows, columns = sample_pixels(pull, count, rng)
    tangle = paths(
        ground,
        (rows, columns),
        rng.uniform(0, 2 * np.pi, len(rows)),
        steps,
        0.09 / max(unit, 0.2) ** 0.5,
        rng,
    )
    bundles = blur(tangle, max(0.8, 2.6 * unit)) * np.float32(max(1.6, 6 * unit))
    return np.sqrt(bundles) * 0.8 + 0.3 * blur(bundles, 12 * unit) + 0.04 * _haze(scene)


def actin_filaments(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Straight parallel stress fibres right across the cell, and its cortex."""
    unit, outlines = scene.unit, scene.layout.outlines
    ground = _only(scene.layout.cells, members)
    steps = max(10, round(260 * unit))
    count = round(0.22 * float((ground > 0).sum()) / (steps * max(1.0, 4 * unit)))
    rows, columns = sample_pixels((ground > 0).astype(np.float32), count, rng)
    tilt = rng.normal(0, 0.35, scene.count)
    cell = scene.layout.cells[rows, columns] - 1
    angles = outlines.angle[cell] + tilt[cell] + rng.normal(0, 0.07, len(rows))
    fibres = paths(ground, (rows, columns), angles, steps, 0.001, rng, patience=0.0)
    cortex = np.exp(-((scene.edge / max(1.0, 5 * unit)) ** 2)) * (scene.layout.cells > 0)
    return 0.85 * np.sqrt(blur(fibres, max(0.7, 1.6 * unit)) * np.float32(max(1.2, 4 * unit))) + 0.6 * cortex


def mitotic_spindle(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """The fibres between two poles and the plate of a dividing cell."""
    return spindles(scene, rng)


def centrosome(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """One or two small bright spots beside the nucleus."""
    unit = scene.unit
    rows, columns = [], []
    for cell in members:
        y, x = beside_nucleus(scene, int(cell) - 1, rng.uniform(8, 26) * unit + 1, rng)
        rows.append(y)
        columns.append(x)
        if rng.random() < 0.5:
            turn = rng.uniform(0, 2 * np.pi)
            rows.append(y + 11 * unit * np.sin(turn))
            columns.append(x + 11 * unit * np.cos(turn))
    y, x = np.array(rows, dtype=np.float32), np.array(columns, dtype=np.float32)
    spots = dots(scene.shape, y, x, np.full(len(y), 1.5, np.float32), max(0.75, 4.2 * unit))
    return np.clip(spots, 0, 1.8) + 0.08 * _haze(scene)


def plasma_membrane(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """A line along the edge of the cell, uneven, with little inside."""
    width = max(1.0, 5 * scene.unit)
    line = np.exp(-((scene.edge / width) ** 2)) * (scene.layout.cells > 0)
    uneven = np.clip(1 + 0.35 * smooth_noise(scene.shape, 25 * scene.unit, rng), 0.3, 2)
    return line * uneven + 0.1 * _haze(scene)


def mitochondria(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Short curved worms all over the cytoplasm, most of them near the nucleus."""
    unit = scene.unit
    ground = _only(scene.cytoplasm, members)
    steps = max(3, round(34 * unit))
    pull = ((np.exp(-scene.near / (70 * unit)) + 0.05) * (ground > 0) * (scene.edge > 6 * unit)).astype(
        np.float32
    )
    count = round(0.16 * float((ground > 0).sum()) / (steps * max(1.0, 6 * unit)))
    rows, columns = sample_pixels(pull, count, rng)
    worms = paths(
        ground,
        (rows, columns),
        rng.uniform(0, 2 * np.pi, len(rows)),
        steps,
        0.05 / max(unit, 0.2) ** 0.5,
        rng,
    )
    return (
        np.clip(blur(np.minimum(worms, 1.5), max(0.7, 2.4 * unit)) * np.float32(max(1.5, 5.5 * unit)), 0, 1.6)
        * 0.8
    )


def aggresome(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """One big bright clump beside the nucleus."""
    rows, columns, sizes = [], [], []
    for cell in members:
        size = rng.uniform(17, 30) * scene.unit
        y, x = beside_nucleus(scene, int(cell) - 1, 0.9 * size, rng)
        for _ in range(4):
            rows.append(y + rng.normal(0, 0.4) * size)
            columns.append(x + rng.normal(0, 0.4) * size)
            sizes.append(size * rng.uniform(0.5, 0.9))
    y, x, radius = (np.array(v, dtype=np.float32) for v in (rows, columns, sizes))
    return 1.3 * blur(blobs(scene.shape, y, x, radius, rng), 3 * scene.unit) + 0.12 * _haze(scene)


def cytosol(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Smooth over the cell, thin at its edge, hardly in the nucleus."""
    grain = 1 + 0.08 * smooth_noise(scene.shape, max(0.8, 4 * scene.unit), rng)
    body = np.where(scene.layout.nuclei > 0, 0.22, 1 - 0.35 * scene.outer).astype(np.float32)
    return 0.65 * blur(body, 2 * scene.unit) * scene.thick * grain


def vesicles(scene: Scene, members: Members, rng: np.random.Generator) -> Canvas:
    """Many dots of differing brightness in the cytoplasm."""
    unit = scene.unit
    ground = _only(scene.cytoplasm, members)
    pull = ((0.35 + np.exp(-scene.near / (90 * unit))) * (ground > 0)).astype(np.float32)
    count = round(float((ground > 0).sum()) / max(14.0, (17 * unit) ** 2))
    rows, columns = sample_pixels(pull, count, rng)
    bright = _spread(np.full(len(rows), 0.9, np.float32), rng, 0.5)
    y, x = rows.astype(np.float32), columns.astype(np.float32)
    return np.clip(dots(scene.shape, y, x, bright, max(0.7, 2.8 * unit)), 0, 1.8) + 0.05 * _haze(scene)


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
