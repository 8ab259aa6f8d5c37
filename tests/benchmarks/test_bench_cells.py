"""What finding cells without weights costs, and label maps as files, beside the usual way in the same run.

The usual way to a watershed is scikit-image's; to files, ``numpy.savez_compressed``. Results must be equal;
times are printed, never asserted.
"""

import time

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from hpa_kit.cells import ClassicalSegmenter, LabelMaps, read_label_maps, write_label_maps
from hpa_kit.cells.regions import components
from hpa_kit.cells.watershed import flood, spread


@pytest.fixture
def big_field():
    """2048² with 20 round cells in noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:2048, :2048].astype(np.float32)
    centres = [(200 + 400 * (k // 4), 250 + 500 * (k % 4)) for k in range(20)]
    distance = np.min([np.hypot(y - cy, x - cx) for cy, cx in centres], axis=0)
    body = 120 * (distance < 210)
    image = np.stack([body, 0 * body, 200 * (distance < 80), 0.8 * body]) + rng.normal(8, 2, (4, 2048, 2048))
    return np.clip(image, 0, 255).astype(np.uint8)


def best_of(work, repeats=5):
    work()  # compile
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def test_classical_segmenter(big_field):
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        seconds, (_, cells) = best_of(lambda: ClassicalSegmenter()(big_field))
    finally:
        cv2.setNumThreads(threads)
    assert cells.max() == 20
    print(f"\nclassical segmenter, 2048², 20 cells, one core: {1000 * seconds:.0f} ms")


@pytest.mark.parametrize("side", [512, 2048])
def test_watershed_and_components(side):
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.random((side, side)), side / 128)
    levels = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    seeds = np.zeros(levels.shape, np.int32)
    seeds.flat[rng.choice(levels.size, 50, replace=False)] = np.arange(1, 51)
    ours, mine = best_of(lambda: flood(levels, seeds))
    usual, theirs = best_of(lambda: watershed(levels, seeds), 1)
    # Many pixels of few levels: seeds tie, and what ties may go either way.
    agree = (mine == theirs).mean()
    assert agree > 0.9
    print(
        f"\nwatershed {side}²: {1000 * ours:.1f} ms, scikit-image {1000 * usual:.0f} ms: {usual / ours:.1f}×"
    )
    geodesic, _ = best_of(lambda: spread(levels // 8 + 1, seeds))
    print(f"geodesic growth {side}²: {1000 * geodesic:.1f} ms; watersheds agree in {100 * agree:.1f} %")
    mask = levels > 128
    ours, mine = best_of(lambda: components(mask))
    usual, theirs = best_of(lambda: label(mask, connectivity=1))
    np.testing.assert_array_equal(mine, theirs)
    print(
        f"components {side}²: {1000 * ours:.1f} ms, scikit-image {1000 * usual:.1f} ms: {usual / ours:.1f}×"
    )


def test_label_maps_as_files(big_field, tmp_path):
    maps = LabelMaps(*ClassicalSegmenter()(big_field))
    write, _ = best_of(lambda: write_label_maps(tmp_path / "a.npz", maps, {"segmenter": "classical"}))
    read, back = best_of(lambda: read_label_maps(tmp_path, "a", big_field))
    for one, two in zip(maps, back, strict=True):
        np.testing.assert_array_equal(one, two)
    small = {name: getattr(maps, name).astype(np.uint8) for name in ("cells", "nuclei")}
    usual, _ = best_of(lambda: np.savez_compressed(tmp_path / "usual.npz", **small))
    sizes = [(tmp_path / name).stat().st_size / 1000 for name in ("a.npz", "usual.npz")]
    print(
        f"\nlabel maps, 2048², 20 cells: write {1000 * write:.0f} ms ({sizes[0]:.0f} kB), "
        f"read {1000 * read:.0f} ms; savez_compressed {1000 * usual:.0f} ms "
        f"({sizes[1]:.0f} kB): {usual / write:.1f}×"
    )
