"""Nuclei without a network: thresholds, a split of touching ones, and a judgement of each object."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.regions import LabelMap, areas, components, drop_small, fill_holes, relabel
from hpa_kit.cells.watershed import flood, otsu
from hpa_kit.jit import njit

Image = NDArray[np.float32]


@dataclass(frozen=True)
class NucleusRules:
    """What counts as a nucleus. Lengths in pixels of a 512-pixel field, areas in a 2048-pixel one's."""

    smallest: float = 2500.0
    """pixels that a nucleus has at least; the published label step's limit"""
    width: float = 80.0
    """nuclei are narrower than this: background is what is wider"""
    level: float = 0.42
    """outline of a nucleus, as a part of its own brightness above the background"""
    lowest: float = 0.45
    """nuclei are brighter than this part of Otsu's threshold"""
    noise: float = 5.0
    """… and than the background by this many standard deviations of its noise"""
    neck: float = 0.77
    """touching nuclei are two where the pass between them is narrower than this part of the thinner one"""
    bridge: float = 0.65
    """… unless the pass is brighter than this part of the dimmer one, both above the background"""
    waist: float = 0.3
    """… and wider than this part of the thinner one"""
    together: float = 1.9
    """… and both are smaller together than so many typical nuclei of the field: then they are lobes of one"""
    coherence: float = 0.2
    """part of the variance that blurring must leave; noise leaves 1/16, nuclei most of it"""


def find_nuclei(blue: Image, unit: float, rules: NucleusRules) -> LabelMap:
    """Label map of the nuclei at the scale of ``blue``.

    Args:
        blue: float32 (h, w), grey levels of the nucleus channel at the working scale.
        unit: pixels of ``blue`` per pixel of a 512-pixel field, at most 1.
        rules: limits.

    Returns:
        int32 (h, w), 1…n; nothing found gives all zeros. Nothing is found in noise.

    Own design from known parts: white top-hat background, Otsu, seeds from the distance transform merged
    across shallow necks, a watershed, then each nucleus cut at a part of its own brightness, so that a dim
    nucleus beside a bright one keeps its outline and a bright one does not take its halo.
    """
    smooth = _blur(blue, unit)
    signal = _above_background(smooth, rules.width * unit)
    empty = np.zeros(blue.shape, np.int32)
    if signal.size == 0 or not _holds_objects(blue, unit, rules.coherence):
        return empty
    smallest = max(rules.smallest * unit * unit / 16, 4.0)
    # The ground runs below the noise; a quarter of the pixels is background however crowded the field is.
    floor = float(np.percentile(signal, 25)) + rules.noise * noise_level(smooth)
    threshold = max(nucleus_threshold(signal) * rules.lowest, floor)
    rough = fill_holes(drop_small(components(signal > threshold), smallest / 2)) > 0
    if not rough.any():
        return empty
    regions = _split(signal, rough, unit, rules)
    cut = _cut_at_own_level(signal, regions, rules.level, threshold)
    solid = fill_holes(smooth_outlines(fill_holes(cut > 0) > 0, unit)) > 0
    return relabel(drop_small(_split(signal, solid, unit, rules), smallest))


def nucleus_threshold(signal: Image) -> float:
    """Otsu's threshold of the square root of ``signal`` (counting noise grows with it), in its own units."""
    top = float(np.percentile(signal, 99.8))
    if top <= 0:
        return np.inf
    root = np.sqrt(np.clip(signal / top, 0, 1))
    histogram = np.bincount((root.ravel() * 255).astype(np.uint8), minlength=256)
    return float(((otsu(histogram) + 0.5) / 255) ** 2 * top)


def noise_level(image: Image) -> float:
    """Estimate the deviation of pixel noise, from a difference that flat and sloping parts do not show.

    Immerkær 1996, with the median in the mean's place so that outlines do not count.
    """
    if min(image.shape) < 3:
        return 0.0
    mask = np.outer((1, -2, 1), (1, -2, 1)).astype(np.float32)
    return float(np.median(np.abs(cv2.filter2D(image, cv2.CV_32F, mask)))) * 1.4826 / 6


def _blur(image: Image, sigma: float) -> Image:
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.2 and image.size else image


def _above_background(image: Image, width: float) -> Image:
    """``image`` minus what is left of it when all that is narrower than ``width`` is shaved off."""
    if image.size == 0:
        return image
    step = max(1, int(width / 12))
    size = (-(-image.shape[1] // step), -(-image.shape[0] // step))
    coarse = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * int(width / step / 2) + 1,) * 2)
    ground = cv2.GaussianBlur(cv2.morphologyEx(coarse, cv2.MORPH_OPEN, disc), (0, 0), width / step / 4)
    ground = cv2.resize(ground, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(image - ground, 0, None)


def _holds_objects(image: Image, unit: float, least: float) -> bool:
    fine, coarse = _blur(image, unit), _blur(image, max(4 * unit, 1.0))
    spread = float(fine.var())
    return spread > 0.01 and float(coarse.var()) > least * spread


def _split(signal: Image, mask: NDArray[np.bool_], unit: float, rules: NucleusRules) -> LabelMap:
    """Number the nuclei of a mask; touching ones are parted where the mask is narrow."""
    depth = cv2.distanceTransform(np.pad(mask, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    depth = _blur(depth, 1.5 * unit)
    levels = np.clip(255 - depth * (4 / unit), 0, 255).astype(np.uint8)
    levels[~mask] = 255
    peaks = (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)) - 1e-6) & mask & (depth > 1.5 * unit)
    basins = flood(levels, components(peaks, 8), mask, connectivity=8)
    return _join_lobes(_merge_basins(basins, depth, rules.neck), depth, signal, rules)


def _merge_basins(basins: LabelMap, depth: Image, neck: float) -> LabelMap:
    """Join neighbours whose pass is wider than ``neck`` times the thinner one's width, widest pass first."""
    peak = _greatest(depth, basins)
    touch = _touching(basins)
    width, joined = touch.widths(depth), _Joined(basins)
    for i, j, k in joined.pairs(touch, -width):
        if width[k] > neck * min(peak[i], peak[j]):
            joined.join(i, j)
            peak[i] = max(peak[i], peak[j])
    return joined.regions()


def _join_lobes(parts: LabelMap, depth: Image, signal: Image, rules: NucleusRules) -> LabelMap:
    """Join parts of one nucleus, or of one cell's nuclei: small together, and no dark line between them."""
    touch = _touching(parts)
    if touch.one.size == 0:
        return parts
    size = areas(parts)
    peak, bright = _greatest(depth, parts), region_quantile(signal, parts, 0.6)
    width = touch.widths(depth)
    places = (touch.pair + 1).astype(np.int32)[None]
    middle = region_quantile(signal.ravel()[touch.here][None], places, 0.5)[1:]
    bridge = middle / np.maximum(np.minimum(bright[touch.one], bright[touch.two]), 1e-6)
    largest = rules.together * float(np.median(size[1:][size[1:] > 0]))
    joined = _Joined(parts)
    for i, j, k in joined.pairs(touch, -bridge):
        wide = width[k] >= rules.waist * min(peak[i], peak[j])
        if wide and bridge[k] >= rules.bridge and size[i] + size[j] <= largest:
            joined.join(i, j)
            size[i] += size[j]
    return joined.regions()


class _Touching(NamedTuple):
    """Where regions touch. ``pair`` says of each place which of the pairs ``one``, ``two`` touches there."""

    one: NDArray[np.int64]
    two: NDArray[np.int64]
    pair: NDArray[np.intp]
    here: NDArray[np.int64]  # flat places of the two pixels
    there: NDArray[np.int64]

    def widths(self, depth: Image) -> Image:
        """Measure each pair's pass: the greatest depth at which the two touch."""
        out = np.zeros(self.one.size, np.float32)
        np.maximum.at(out, self.pair, np.minimum(depth.ravel()[self.here], depth.ravel()[self.there]))
        return out


def _touching(regions: LabelMap) -> _Touching:
    n, flat = int(regions.max(initial=0)) + 1, regions.ravel()
    here, there = _borders(regions)
    low, high = np.minimum(flat[here], flat[there]), np.maximum(flat[here], flat[there])
    key, pair = np.unique(low.astype(np.int64) * n + high, return_inverse=True)
    return _Touching(key // n, key % n, pair.ravel(), here, there)


@njit
def _borders(regions):  # type: ignore[no-untyped-def]
    """Flat places of neighbouring pixels, beside or below each other, of two numbers."""
    height, width = regions.shape
    here, there = [], []
    for y in range(height):
        for x in range(width):
            number = regions[y, x]
            if number == 0:
                continue
            if x + 1 < width and regions[y, x + 1] != 0 and regions[y, x + 1] != number:
                here.append(y * width + x)
                there.append(y * width + x + 1)
            if y + 1 < height and regions[y + 1, x] != 0 and regions[y + 1, x] != number:
                here.append(y * width + x)
                there.append((y + 1) * width + x)
    return np.array(here, np.int64), np.array(there, np.int64)


class _Joined:
    """Regions that are joined one by one: the smallest number of those that are joined stands for all."""

    def __init__(self, regions: LabelMap) -> None:
        self._regions = regions
        self._parent = list(range(int(regions.max(initial=0)) + 1))

    def pairs(self, touch: _Touching, priority: NDArray[np.floating]) -> Iterator[tuple[int, int, int]]:
        """Give pairs by rising priority: what stands for each, where they are not joined yet; the pair."""
        for k in np.argsort(priority, kind="stable"):
            i, j = sorted((self._root(int(touch.one[k])), self._root(int(touch.two[k]))))
            if i != j:
                yield i, j, int(k)

    def join(self, i: int, j: int) -> None:
        """Have the first stand for the second, too."""
        self._parent[j] = i

    def regions(self) -> LabelMap:
        """Number alike what was joined."""
        return np.array([self._root(i) for i in range(len(self._parent))], np.int32)[self._regions]

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            i = self._parent[i]
        return i


def _greatest(image: Image, regions: LabelMap) -> Image:
    out = np.zeros(int(regions.max(initial=0)) + 1, np.float32)
    np.maximum.at(out, regions.ravel(), image.ravel())
    return out


def _cut_at_own_level(signal: Image, regions: LabelMap, level: float, floor: float) -> LabelMap:
    """Keep of each region what is brighter than ``level`` × its own bright end, and than ``floor``."""
    bright = region_quantile(signal, regions, 0.75)
    return np.where(signal > np.maximum(level * bright, floor)[regions], regions, np.int32(0))


def region_quantile(image: Image, regions: LabelMap, quantile: float) -> Image:
    """Measure a quantile of ``image`` in each number's pixels: float32 (n + 1,), 0 where it has none."""
    flat = regions.ravel()
    inside = np.flatnonzero(flat)
    counts = areas(regions)
    counts[0] = 0
    # Numbers of 16 bit are sorted in time proportional to the pixels.
    numbers = flat[inside].astype(np.uint16 if counts.size <= 1 << 16 else np.int32)
    values = image.ravel()[inside[np.argsort(numbers, kind="stable")]]
    out = np.zeros(counts.size, np.float32)
    ends = np.cumsum(counts)
    for number in np.flatnonzero(counts):
        mine = values[ends[number] - counts[number] : ends[number]]
        at = int(np.floor(quantile * (mine.size - 1)))
        out[number] = np.partition(mine, at)[at]
    return out


def smooth_outlines(mask: NDArray[np.bool_], unit: float, around: int = 2) -> NDArray[np.bool_]:
    """Smooth a mask: no specks, no threads, the outline that most of the pixels around have.

    Args:
        mask: bool (h, w).
        unit: pixels per pixel of a 512-pixel field; what is thinner than 4 units goes.
        around: how far a pixel looks around: a square of so many times the disc's radius, and its own pixel.

    Returns:
        bool (h, w); the mask itself where a unit is too small.
    """
    radius = round(2 * unit)
    if radius < 1:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    solid = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disc)
    return cv2.medianBlur(solid, around * radius + 1) > 0
