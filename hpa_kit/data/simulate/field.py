"""One synthetic field: layout, channels, protein, camera."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import NEGATIVE
from hpa_kit.data.simulate.channels import microtubules, nuclei, reticulum
from hpa_kit.data.simulate.draw import Canvas, blur, smooth_noise
from hpa_kit.data.simulate.layout import Layout, field_unit, make_layout, one_piece
from hpa_kit.data.simulate.patterns import PATTERNS
from hpa_kit.data.simulate.plan import FieldPlan, cell_classes, mitotic_part
from hpa_kit.data.simulate.scene import Scene, make_scene

MICROTUBULES = 10


class Truth(NamedTuple):
    """What is known of a synthetic field."""

    cells: NDArray[np.int32]  # label maps of the field's size
    nuclei: NDArray[np.int32]
    shows: NDArray[np.bool_]  # (n, 19)


class Prepared(NamedTuple):
    """A field that is laid out but not drawn."""

    truth: Truth
    layout: Layout  # at the size it is drawn at
    zoom: int  # how many times larger it is drawn
    rng: np.random.Generator


def prepare(plan: FieldPlan) -> Prepared:
    """Lay a field out and decide what each cell shows: all of the truth, cheap beside drawing."""
    rng = np.random.default_rng(plan.seed)
    side = np.sqrt(plan.height * plan.width)
    zoom = 4 if side < 96 else 2 if side < 320 else 1
    unit = zoom * field_unit(plan.height, plan.width)
    part = mitotic_part(plan.classes, rng)
    middle = np.s_[zoom // 2 :: zoom, zoom // 2 :: zoom]
    while True:
        layout = make_layout(plan.height * zoom, plan.width * zoom, part, rng, unit)
        cells = one_piece(np.ascontiguousarray(layout.cells[middle]))
        inner = np.where(layout.nuclei[middle] > 0, cells, 0)
        # Reduced to the field's size, a sliver of a nucleus at the border may be left without a pixel.
        if len(np.unique(inner)) == len(layout.outlines.y) + 1:
            break
    shows = cell_classes(plan.classes, layout.outlines.mitotic, rng)
    return Prepared(Truth(cells, inner, shows), layout, zoom, rng)


def draw(prepared: Prepared) -> NDArray[np.uint8]:
    """Draw a prepared field: uint8 (4, H, W), red green blue yellow."""
    rng = prepared.rng
    scene = make_scene(prepared.layout, rng)
    mitotic = prepared.layout.outlines.mitotic
    red = microtubules(scene, rng)
    green = _protein(scene, prepared.truth.shows, red, rng)
    channels = [
        red * scene.per_cell(_levels(scene.count, 0.3, rng)),
        green,
        nuclei(scene, rng) * scene.per_cell(_levels(scene.count, 0.2, rng) * (1 + 0.4 * mitotic)),
        reticulum(scene, rng) * scene.per_cell(_levels(scene.count, 0.3, rng)),
    ]
    return _photograph(channels, prepared.zoom, scene.unit / prepared.zoom, rng)


def _levels(count: int, sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.minimum(rng.lognormal(0, sigma, count), 2)


def _protein(scene: Scene, shows: NDArray[np.bool_], red: Canvas, rng: np.random.Generator) -> Canvas:
    """Green: the patterns of each cell's classes at the cell's own level, over a faint unspecific haze."""
    level = _levels(scene.count, 0.3, rng)
    specks = np.exp(0.7 * smooth_noise(scene.shape, max(0.7, 2.5 * scene.unit), rng) - 0.25)
    haze = np.where(scene.layout.nuclei > 0, 0.6, 1).astype(np.float32) * scene.thick * specks
    green = haze * scene.per_cell(rng.uniform(0.02, 0.1) * rng.uniform(0.6, 1.4, scene.count))
    for index in np.flatnonzero(shows.any(axis=0)):
        if index == NEGATIVE:
            continue
        members = np.flatnonzero(shows[:, index]) + 1
        canvas = red if index == MICROTUBULES else PATTERNS[int(index)](scene, members, rng)
        amount = level * rng.lognormal(0, 0.15, scene.count) * shows[:, index]
        green = green + canvas * scene.per_cell(amount)
    return green


def _photograph(
    channels: list[Canvas], zoom: int, unit: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Optics and camera: bleed, blur, uneven light, reduction to the field's size, noise, 8 bit."""
    red, green, blue, yellow = channels
    bleed = rng.uniform(0, 0.05, 4)
    mixed = [
        red + bleed[0] * yellow,
        green + bleed[1] * yellow,
        blue + bleed[2] * green,
        yellow + bleed[3] * red + rng.choice([0, 0.12], p=[0.9, 0.1]) * blue,
    ]
    gains = (rng.uniform(110, 230), rng.uniform(80, 230), rng.uniform(90, 210), rng.uniform(110, 230))
    # Photons that one grey level stands for differ by channel: a dim protein is amplified, noise and all.
    grain = rng.uniform(0.3, 1.5), rng.uniform(0.5, 5), rng.uniform(0.3, 1.0), rng.uniform(0.5, 3)
    shape = mixed[0].shape[0] // zoom, mixed[0].shape[1] // zoom
    light = np.clip(1 + 0.08 * smooth_noise(shape, 0.6 * max(shape), rng), 0.75, 1.2)
    # One sheet of noise serves all channels, shifted: normal numbers are what large fields wait for.
    noise = rng.standard_normal(shape, dtype=np.float32)
    field = np.zeros((4, *shape), dtype=np.uint8)
    for plane, canvas, gain, photons in zip(field, mixed, gains, grain, strict=True):
        sharp = blur(canvas.astype(np.float32), 0.8 * unit * zoom)
        sharp += np.float32(rng.uniform(0, 0.04)) * blur(sharp, 70 * unit * zoom)
        if zoom > 1:
            sharp = cv2.resize(sharp, shape[::-1], interpolation=cv2.INTER_AREA)
        signal = np.maximum(sharp * light * np.float32(gain), 0)
        shift = int(rng.integers(noise.size))
        signal += np.roll(noise, shift) * cv2.sqrt(signal * np.float32(photons) + np.float32(0.6))
        signal += np.float32(rng.uniform(-0.5, 1))
        plane[:] = cv2.convertScaleAbs(np.maximum(signal, 0, out=signal))
    return field
