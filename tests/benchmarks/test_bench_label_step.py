"""The label step beside the same algorithm on scikit-image at full size, and a whole field by its steps.

Both run on one core in the same run. Cells must be the same; times are printed, never asserted.
"""

import time

import cv2
import numpy as np
import pytest
import scipy.ndimage as ndi
import torch
from skimage import filters, measure, morphology, segmentation

from hpa_kit.cells import DPNUnet, label_cells
from hpa_kit.cells.networks import CellNetworks
from hpa_kit.cells.published import PublishedSegmenter, network_input
from hpa_kit.data import CHANNELS, read_field
from hpa_kit.submission import encode_label_map


def best_of(work, repeats=12):
    result = work()  # compile
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


@pytest.fixture(autouse=True)
def one_core():
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    yield
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])


def network_maps(side, n_cells, seed=0):
    """Maps such as the networks give: cells grown around scattered nuclei, borders where they meet, noise."""
    rng = np.random.default_rng(seed)
    columns = int(np.ceil(np.sqrt(n_cells)))
    pitch = side / columns
    centres = [(pitch * (k // columns + 0.5), pitch * (k % columns + 0.5)) for k in range(n_cells)]
    centres = np.array(centres) + rng.uniform(-0.12, 0.12, (n_cells, 2)) * pitch
    nucleus, body = max(0.17 * pitch, 8), 0.47 * pitch
    y, x = np.mgrid[:side, :side].astype(np.float32)
    first, second = (np.full((side, side), np.inf, np.float32) for _ in range(2))
    for cy, cx in centres:
        distance = np.hypot(y - cy, (x - cx) * rng.uniform(0.85, 1.15))
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    noise = cv2.GaussianBlur(rng.normal(0, 60, (side, side)).astype(np.float32), (0, 0), 4)

    def plane(signal):
        return np.clip(255 / (1 + np.exp(-signal / 1.5)) + noise, 0, 255).astype(np.uint8)

    meeting = np.minimum(1.5 - (second - first) / 2, body - first)
    zero = np.zeros((side, side), np.uint8)
    nuclei = np.dstack([zero, plane(1.0 - abs(first - nucleus)) // 2, plane(nucleus - first)])
    cells = np.dstack([zero, plane(meeting), plane(np.minimum(body - first, 1 + (second - first) / 2))])
    return nuclei, cells


def usual_way(nuclei_map, cell_map):
    """The published label step on maps of full size, with scikit-image and SciPy."""
    nuclei = _nuclei(nuclei_map, cell_map)
    foreground, border = cell_map[..., 2] / 255, cell_map[..., 1] / 255
    threshold = max(0.22, filters.threshold_otsu(foreground) / 2)
    region = foreground > threshold
    levels = -np.maximum(foreground, threshold)
    cells = segmentation.watershed(levels, nuclei * region, mask=region)
    cells = _without_small(cells, 5500)
    cells = _filled(morphology.closing(cells.astype(np.int32), morphology.disk(6)))
    region = (cells > 0) | (border > 0.05)
    cells = _filled(segmentation.watershed(levels, cells, mask=region))
    cells = measure.label(_without_small(measure.label(cells), 5500))
    parts = _without_small(measure.label((nuclei > 0) & (cells > 0)), 2500)
    return np.where(parts > 0, cells, 0), cells


def _nuclei(nuclei_map, cell_map):
    foreground, border = nuclei_map[..., 2] / 255, nuclei_map[..., 1].astype(int) + cell_map[..., 1]
    seeds = ndi.label((foreground > 0.15) & (border / 255 < 0.95))[0]
    mask = foreground > 0.4
    gaps = measure.label(~mask, connectivity=1)
    mask |= (gaps > 0) & (np.bincount(gaps.ravel()) < 1000)[gaps]
    mask = _without_small(measure.label(mask, connectivity=1), 8) > 0
    seeds = _without_small(seeds, 500)
    nuclei = segmentation.watershed(mask, seeds, mask=mask, watershed_line=True)
    return measure.label(_without_small(nuclei, 2500))


def _without_small(labels, smallest):
    keep = np.bincount(labels.ravel()) >= smallest
    keep[0] = False
    return labels * keep[labels]


def _filled(labels):
    inner = np.where(segmentation.find_boundaries(labels), 0, labels)
    return ndi.label(ndi.binary_fill_holes(inner > 0))[0]


def overlaps(truth, found):
    """IoU of each true cell with the found cell that overlaps it most."""
    table = np.zeros((truth.max() + 1, found.max() + 1), np.int64)
    np.add.at(table, (truth.ravel(), found.ravel()), 1)
    return (table / (table.sum(0)[None] + table.sum(1)[:, None] - table))[1:, 1:].max(axis=1)


@pytest.mark.parametrize(("side", "n_cells"), [(2048, 25), (3072, 56), (2048, 250)])
def test_label_step(side, n_cells):
    maps = network_maps(side // 4, n_cells)
    ours, (nuclei, cells) = best_of(lambda: label_cells(*maps))
    enlarged = [cv2.resize(m, (side, side), interpolation=cv2.INTER_AREA) for m in maps]
    start = time.perf_counter()
    _, expected = usual_way(*enlarged)
    usual = time.perf_counter() - start
    assert cells.shape == nuclei.shape == (side, side)
    assert cells.max() == expected.max() == n_cells
    found = overlaps(expected, cells)
    assert found.mean() > 0.95
    print(
        f"\nlabel step {side}², {n_cells} cells: {1000 * ours:.0f} ms, scikit-image at full size "
        f"{usual:.2f} s: {usual / ours:.0f}×; IoU mean {found.mean():.4f}, lowest {found.min():.4f}"
    )


@pytest.mark.parametrize("name", ["field_11", "field_12", "field_15"])
def test_label_step_on_reference_maps(reference, name):
    with np.load(reference / "label_cell" / f"{name}.npz") as field:
        maps, truth = (field["nuclei"], field["cells"]), field["cell_label_ref"].astype(np.int32)
    side = truth.shape[0]
    ours, (_, cells) = best_of(lambda: label_cells(*maps))
    start = time.perf_counter()
    _, expected = usual_way(*(cv2.resize(m, (side, side), interpolation=cv2.INTER_AREA) for m in maps))
    usual = time.perf_counter() - start
    assert cells.max() == expected.max() == truth.max()
    assert overlaps(truth, expected).min() > 0.99  # the same but for pixels of outlines
    found = overlaps(truth, cells)
    assert found.mean() > 0.98
    print(
        f"\n{name} {side}²: {1000 * ours:.0f} ms, scikit-image {usual:.2f} s: {usual / ours:.0f}×; IoU with "
        f"the reference mean {found.mean():.4f}, lowest {found.min():.4f}"
    )


def test_a_whole_field_by_its_steps(tmp_path, monkeypatch):
    """png -> label maps -> strings; networks of random weights, so the label step gets drawn maps."""
    side, n_cells = 2048, 25
    maps = network_maps(side // 4, n_cells)
    rng = np.random.default_rng(0)
    for index, channel in enumerate(CHANNELS):
        plane = cv2.resize(maps[(index == 2 and 0) or 1][..., 2], (side, side)) // 2
        image = np.clip(plane + rng.normal(12, 4, plane.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"a_{channel}.png"), image)
    torch.manual_seed(0)
    networks = CellNetworks(DPNUnet().eval(), DPNUnet().eval())
    monkeypatch.setattr("hpa_kit.cells.published.load_networks", lambda folder: networks)
    networks = PublishedSegmenter("weights")
    times = {}
    times["decode"], field = best_of(lambda: read_field(tmp_path, "a"), 5)
    times["network input"], inputs = best_of(lambda: network_input(field), 5)
    start = time.perf_counter()
    made = networks.maps(inputs[None])
    times["networks"] = time.perf_counter() - start
    assert made[0][0].shape == maps[0].shape
    times["label step"], (_, cells) = best_of(lambda: label_cells(*maps))
    times["encode"], strings = best_of(lambda: encode_label_map(cells), 5)
    assert len(strings) == n_cells
    whole = sum(times.values())
    rest = whole - times["networks"]
    print(f"\nwhole field {side}², {n_cells} cells, networks on one core: {whole:.2f} s")
    for step, seconds in times.items():
        share = "" if step == "networks" else f", {100 * seconds / rest:4.1f} % of the rest"
        print(f"  {step:14s}{1000 * seconds:8.0f} ms {100 * seconds / whole:5.1f} %{share}")
