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

from hpa_kit.cells.bodies import BodyRules, grow_bodies
from hpa_kit.cells.enlarge import enlarge
from hpa_kit.cells.nuclei import NucleusRules, find_nuclei
from hpa_kit.cells.one_or_many import Field, OneOrMany, Pair
from hpa_kit.cells.regions import LabelMap, drop_small, pair_up
from hpa_kit.errors import InputError
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
        """The scale of a field of so many pixels."""
        side = math.sqrt(height * width)
        if side == 0:
            return cls((height, width), 1.0)
        shrink = 4.0 if side >= 1728 else max(1.0, side / 512)
        shape = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        return cls(shape, 1.0 if side >= 512 else side / 512)


@dataclass(frozen=True)
class ClassicalSegmenter(OneOrMany):
    """Finds nuclei and cells of a field with no trained weights.

    Called with one field, uint8 (4, H, W) red green blue yellow, it returns nuclei and cells, int32 (H, W)
    label maps: nucleus k lies inside cell k, every cell has a nucleus, numbers are 1…n. Called with several
    fields it returns a list of such pairs. The protein (green) is not looked at, so that masks do not depend
    on what is to be judged. A field without cells gives two maps of zeros and a warning in the log.

    Full fields are worked at a quarter of their size; label maps are enlarged with smooth outlines. Of
    several fields ``workers`` are done at a time, in threads: OpenCV and numba let go of the interpreter.

    Raises on call:
        InputError: a field is not uint8 (4, H, W).
    """

    nuclei: NucleusRules = setting(default_factory=NucleusRules)
    bodies: BodyRules = setting(default_factory=BodyRules)
    workers: int = 1

    name: ClassVar[str] = "classical"
    algorithm: ClassVar[int] = 1  # raised when a field would get other label maps

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its label maps, to be kept with them."""
        return {"segmenter": self.name, "algorithm": self.algorithm}

    def stream(self, fields: Iterable[Field]) -> Iterator[Pair]:
        """Pairs of label maps for any number of fields of any sizes, in their order, a few at a time."""
        with ThreadPoolExecutor(self.workers, "segment") as pool:
            yield from run_ahead(pool, self._segment, fields, 2 * self.workers)

    def find_nuclei(self, field: Field) -> LabelMap:
        """The nuclei alone, int32 (H, W), as found in the blue channel, whether or not they lie in a cell."""
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


def check_field(field: Field) -> None:
    """Raise InputError unless ``field`` is uint8 (4, H, W)."""
    if not isinstance(field, np.ndarray) or field.ndim != 3 or field.shape[0] != 4 or field.dtype != np.uint8:
        found = f"{field.dtype} {field.shape}" if isinstance(field, np.ndarray) else type(field).__name__
        raise InputError(
            f"segmenter: expected a field, uint8 (4, H, W), red green blue yellow; found {found}"
        )


def _resize(channel: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.float32]:
    if channel.shape != shape:
        channel = cv2.resize(channel, shape[::-1], interpolation=cv2.INTER_AREA)
    return channel.astype(np.float32)
