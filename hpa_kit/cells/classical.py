"""Cells without weights: nuclei from the blue channel, bodies grown over microtubules and ER."""

import logging
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import field as setting
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.nuclei import Image, NucleusRules, find_nuclei, region_quantile, smooth_outlines
from hpa_kit.cells.regions import LabelMap, components, drop_small, fill_holes, pair_up
from hpa_kit.cells.resize import enlarge
from hpa_kit.cells.segmenters import Field, OneOrMany, Pair, check_field
from hpa_kit.cells.watershed import spread
from hpa_kit.flow import run_ahead

log = logging.getLogger(__name__)

RED, BLUE, YELLOW = 0, 2, 3


@dataclass(frozen=True)
class Scale:
    """The size a field is worked at, and pixels there per pixel of a 512-pixel field (unit).

    Fields of 1728 pixels and more (side = √(h·w)) show cells at the microscope's size, as the published
    limits have it; smaller ones are taken as reduced copies of a 2048-pixel field.
    """

    shape: tuple[int, int]
    unit: float

    @classmethod
    def of(cls, height: int, width: int) -> "Scale":
        """Choose the scale of a field of so many pixels."""
        side = math.sqrt(height * width)
        if side == 0:
            return cls((height, width), 1.0)
        shrink = 4.0 if side >= 1728 else max(1.0, side / 512)
        shape = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        return cls(shape, 1.0 if side >= 512 else side / 512)


# Price of a pixel of bright cytoplasm; the rest of uint8 is left for dark ones.
BRIGHT = 4


@dataclass(frozen=True)
class BodyRules:
    """What counts as a cell. Lengths in pixels of a 512-pixel field, areas in a 2048-pixel one's."""

    smallest: float = 5500.0
    """pixels that a cell has at least; the published label step's limit"""
    reach: float = 2000.0
    """how far a cell may reach from its nucleus through bright cytoplasm: beyond all fields, but through dark
    pixels only 33, and through margins a third as bright as what is around the nucleus 50"""
    level: float = 0.36
    """outline of a cell, as a part of the brightness around nuclei above the background"""
    own: float = 0.4
    """how far that brightness is the cell's own (1) or the field's typical one (0)"""
    ridge: float = 60.0
    """price of dark pixels between touching cells, as against bright ones; 62 at most"""


@dataclass(frozen=True)
class ClassicalSegmenter(OneOrMany):
    """Finds nuclei and cells of a field with no trained weights.

    Called with one field, uint8 (4, H, W) red green blue yellow, it returns nuclei and cells, int32 (H, W)
    label maps: nucleus k lies inside cell k, every cell has a nucleus, numbers are 1…n. Called with several
    fields it returns a list of such pairs. The protein (green) plays no part, so that masks do not depend
    on what is to be scored. A field without cells gives two maps of zeros and a warning in the log.

    Full fields are worked at a quarter of their size; label maps are enlarged with smooth outlines. Of
    several fields ``workers`` are done at a time, in threads: OpenCV and numba let go of the interpreter.

    Raises on call:
        InputError: a field is not uint8 (4, H, W).
    """

    nuclei: NucleusRules = setting(default_factory=NucleusRules)
    bodies: BodyRules = setting(default_factory=BodyRules)
    workers: int = 1

    name: ClassVar[str] = "classical"
    algorithm: ClassVar[int] = 2  # raised when a field would get other label maps

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its label maps, to be kept with them."""
        return {"segmenter": self.name, "algorithm": self.algorithm}

    def stream(self, fields: Iterable[Field]) -> Iterator[Pair]:
        """Label any number of fields of any sizes, in their order, a few at a time."""
        with ThreadPoolExecutor(self.workers, "segment") as pool:
            yield from run_ahead(pool, self._segment, fields, 2 * self.workers)

    def find_nuclei(self, field: Field) -> LabelMap:
        """Find the nuclei, int32 (H, W), in the blue channel, whether or not they lie in a cell."""
        check_field(field)
        height, width = field.shape[1:]
        scale = Scale.of(height, width)
        small = find_nuclei(_resize(field[BLUE], scale.shape), scale.unit, self.nuclei)
        return enlarge(small, (height, width))

    def _segment(self, field: Field) -> Pair:
        check_field(field)
        height, width = field.shape[1:]
        scale = Scale.of(height, width)
        red, blue, yellow = (_resize(field[c], scale.shape) for c in (RED, BLUE, YELLOW))
        nuclei = find_nuclei(blue, scale.unit, self.nuclei)
        cells = grow_bodies(red, yellow, nuclei, scale.unit, self.bodies)
        cells = drop_small(cells, self.bodies.smallest * scale.unit**2 / 16)
        nuclei, cells = pair_up(nuclei, cells)
        if scale.shape != (height, width):
            nuclei, cells = pair_up(enlarge(nuclei, (height, width)), enlarge(cells, (height, width)))
        if not cells.any():
            log.warning("segmenter classical: no cell in a field of %d x %d pixels", height, width)
        return nuclei, cells


def _resize(channel: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.float32]:
    if channel.shape != shape:
        channel = cv2.resize(channel, shape[::-1], interpolation=cv2.INTER_AREA)
    return channel.astype(np.float32)


def grow_bodies(red: Image, yellow: Image, nuclei: LabelMap, unit: float, rules: BodyRules) -> LabelMap:
    """Grow each cell from its nucleus, with the nucleus's number.

    Args:
        red, yellow: float32 (h, w), grey levels of microtubules and ER at the working scale.
        nuclei: int32 (h, w), 1…n.
        unit: pixels per pixel of a 512-pixel field, at most 1.
        rules: limits.

    Returns:
        int32 (h, w). Where both channels are empty a cell is its nucleus.

    Own design. Geodesic growth decides which cell a pixel may belong to: bright cytoplasm is cheap, dark gaps
    are dear, so fronts of neighbours meet in the dark ridge between them. Each cell's outline then lies at a
    part of the brightness around nuclei, between that of its own and the field's typical one: published
    outlines of bright and dim cells of a field differ less in brightness than the cells do.
    """
    if not nuclei.any():
        return np.zeros(nuclei.shape, np.int32)
    body = cytoplasm(red, yellow, unit)
    ring, _ = spread(np.ones(body.shape, np.uint8), nuclei, None, round(5 * max(8 * unit, 2)))
    near = region_quantile(body, ring, 0.6)  # each cell's own brightness around its nucleus
    ground = float(np.percentile(body, 3))
    cost = _cost(body, near, ground, rules)
    territory, _ = spread(cost, nuclei, reach=int(rules.reach * unit * 5 * BRIGHT))
    above = np.maximum(near - ground, 0)
    typical = float(np.median(above[1:]))
    threshold = ground + rules.level * above**rules.own * typical ** (1 - rules.own)
    inside = (body > threshold[territory]) & (territory > 0) | (nuclei > 0)
    inside = smooth_outlines(inside, unit, around=4) | (nuclei > 0)
    cells = np.where(inside, territory, np.int32(0))
    return keep_with_nucleus(cells, nuclei)


def cytoplasm(red: Image, yellow: Image, unit: float) -> Image:
    """Join microtubules and ER in one smooth image in [0, 1], each channel on its own scale.

    The channels count by their squares, so a cell that only one of them shows is nearly as bright as one that
    both show; a further square root brings dim cells nearer to bright ones.
    """
    total = np.zeros(red.shape, np.float32)
    for channel in (red, yellow):
        smooth = cv2.GaussianBlur(channel, (0, 0), max(1.5 * unit, 0.5))
        low, high = np.percentile(smooth, (1, 99.5))
        if high - low >= 1:
            total += np.clip((smooth - low) / (high - low), 0, 1).astype(np.float32) ** 2
    return np.asarray((total / 2) ** 0.25, np.float32)


def _cost(body: Image, near: Image, ground: float, rules: BodyRules) -> NDArray[np.uint8]:
    typical = float(np.median(near[1:])) if near.size > 1 else 0.0
    share = np.clip((body - ground) / max(typical - ground, 1e-3), 0, 1)
    return (BRIGHT * (1 + rules.ridge * (1 - share))).astype(np.uint8)


def keep_with_nucleus(cells: LabelMap, nuclei: LabelMap) -> LabelMap:
    """Keep of each cell the parts that hold its nucleus, without holes."""
    parts = components(cells)
    keep = np.zeros(int(parts.max(initial=0)) + 1, bool)
    keep[parts[nuclei > 0]] = True
    keep[0] = False
    return fill_holes(np.where(keep[parts], cells, np.int32(0)))
