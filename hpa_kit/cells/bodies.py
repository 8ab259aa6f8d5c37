"""Cell bodies without a network: nuclei grown over microtubules and ER."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.nuclei import Image, region_quantile, smooth_outlines
from hpa_kit.cells.regions import LabelMap, components, fill_holes
from hpa_kit.cells.watershed import spread

# Price of a pixel of bright cytoplasm; the rest of uint8 is left for dark ones.
BRIGHT = 4


@dataclass(frozen=True)
class BodyRules:
    """What counts as a cell. Lengths in pixels of a 512-pixel field, areas in a 2048-pixel one's."""

    smallest: float = 5500.0
    """pixels that a cell has at least; the published label step's limit"""
    reach: float = 150.0
    """how far a cell may reach from its nucleus, through bright cytoplasm; less far through dark"""
    level: float = 0.38
    """outline of a cell, as a part of its brightness around the nucleus above the background"""
    ridge: float = 15.0
    """price of dark pixels between touching cells, as against bright ones"""


def grow_bodies(red: Image, yellow: Image, nuclei: LabelMap, unit: float, rules: BodyRules) -> LabelMap:
    """Label map of the cells, each grown from its nucleus and numbered as it.

    Args:
        red, yellow: float32 (h, w), grey levels of microtubules and ER at the working scale.
        nuclei: int32 (h, w), 1…n.
        unit: pixels per pixel of a 512-pixel field, at most 1.
        rules: limits.

    Returns:
        int32 (h, w). Where both channels are empty a cell is its nucleus.

    Own design. Geodesic growth decides which cell a pixel may belong to: bright cytoplasm is cheap, dark gaps
    are dear, so fronts of neighbours meet in the dark ridge between them. Each cell's outline then lies at a
    part of the brightness that it has itself around its nucleus: dim cells are as complete as bright ones.
    """
    if not nuclei.any():
        return np.zeros(nuclei.shape, np.int32)
    body = cytoplasm(red, yellow, unit)
    near = _near_level(body, nuclei, unit)
    ground = float(np.percentile(body, 3))
    cost = _cost(body, near, ground, rules)
    territory, _ = spread(cost, nuclei, reach=int(rules.reach * unit * 5 * BRIGHT))
    threshold = ground + rules.level * np.maximum(near - ground, 0)
    inside = (body > threshold[territory]) & (territory > 0) | (nuclei > 0)
    inside = smooth_outlines(inside, unit, around=4) | (nuclei > 0)
    cells = np.where(inside, territory, np.int32(0))
    return keep_with_nucleus(cells, nuclei)


def cytoplasm(red: Image, yellow: Image, unit: float) -> Image:
    """Microtubules and ER as one smooth image in [0, 1], each channel on its own scale.

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


def _near_level(body: Image, nuclei: LabelMap, unit: float) -> Image:
    ring, _ = spread(np.ones(body.shape, np.uint8), nuclei, None, round(5 * max(8 * unit, 2)))
    return region_quantile(body, ring, 0.6)


def _cost(body: Image, near: Image, ground: float, rules: BodyRules) -> NDArray[np.uint8]:
    typical = float(np.median(near[1:])) if near.size > 1 else 0.0
    share = np.clip((body - ground) / max(typical - ground, 1e-3), 0, 1)
    return (BRIGHT * (1 + rules.ridge * (1 - share) ** 2)).astype(np.uint8)


def keep_with_nucleus(cells: LabelMap, nuclei: LabelMap) -> LabelMap:
    """Keep of each cell the parts that hold its nucleus, without holes."""
    parts = components(cells)
    keep = np.zeros(int(parts.max(initial=0)) + 1, bool)
    keep[parts[nuclei > 0]] = True
    keep[0] = False
    return fill_holes(np.where(keep[parts], cells, np.int32(0)))
