"""What crops of cells cost: to cut those of a field of 2048² for inference, and to keep those of training.

``python -m pytest tests/benchmarks/test_bench_crops.py -s --override-ini addopts=``
"""

import time
import zlib

import cv2
import numpy as np
import pytest

from hpa_kit.cells import resized
from hpa_kit.cells.crops import crops_of, fitting_side
from hpa_kit.cells.regions import cell_geometry
from hpa_kit.config import SimulateSettings
from hpa_kit.data import FieldStore, find_fields, read_field, resize_field
from hpa_kit.data.simulate import simulate
from hpa_kit.inference.crop_members import CropMember, cut_for

SIZE, SIDE, FULL = 512, 128, 2048


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four simulated fields of 2048², with their label maps."""
    root = tmp_path_factory.mktemp("large") / "data"
    return simulate(SimulateSettings(out=root, train=4, test=1, size=FULL, workers=2))


def seconds(work, repeats=7):
    """Processor seconds of all threads: what other processes do meanwhile plays no part."""
    cv2.setNumThreads(1)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def thirty_cells():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:FULL, :FULL]
    cells = (y // 342 * 5 + x // 410 + 1).astype(np.int32) * ((y % 342 > 6) & (x % 410 > 6))
    return rng.integers(0, 256, (4, FULL, FULL), dtype=np.uint8), cells.astype(np.int32)


def test_crops_of_thirty_cells_cost_less_than_thirty_milliseconds_beside_the_resized_field() -> None:
    field, cells = thirty_cells()
    assert cells.max() == 30
    member = CropMember(None, None, SIZE, SIDE)
    fields = {SIZE: resize_field(field, SIZE)}
    window = SIDE * FULL // SIZE

    def each_from_the_full_field():
        whole = crops_of(field, cells, window)
        return [
            cv2.resize(plane, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            for pixels in whole.pixels
            for plane in pixels
        ]

    cut_for([member], fields, cells)
    ours = seconds(lambda: cut_for([member], fields, cells))
    resizing = seconds(lambda: resize_field(field, SIZE))
    theirs = seconds(each_from_the_full_field, 3)
    times = [f"{1e3 * one:.1f}" for one in (ours, resizing, theirs)]
    print(f"\n30 crops of {SIDE}² at {FULL}², ms of one core: cut {times[0]}, the field resized for them,")
    print(f"where nobody else needs it, {times[1]}; each from the full field {times[2]}")
    assert ours + resizing < 0.03
    assert ours + resizing < theirs


@pytest.mark.parametrize("size", [416, 512])
def test_a_store_of_fields_takes_fewer_bytes_than_one_of_crops(folder, tmp_path, size) -> None:
    ids = find_fields(folder / "train")
    FieldStore(folder / "train", ids, size, cache=False, kept=tmp_path)
    fields = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) / len(ids)
    crops, sides = 0, []
    for id in ids:
        cells = np.load(folder / "masks" / f"{id}.npz")["cells"].astype(np.int32)
        small, field = resized(cells, (size, size)), resize_field(read_field(folder / "train", id), size)
        box = cell_geometry(small).box
        sides.append((box[:, 2:] - box[:, :2]).max(axis=1))
        found = crops_of(field, small, SIDE)
        crops += sum(len(zlib.compress(pixels.tobytes(), 1)) for pixels in found.pixels)
    every = np.concatenate(sides)
    print(
        f"\n{len(every) / len(ids):.0f} cells a field, fitting side {fitting_side(every)} px; MB of a field"
    )
    print(f"at {size}² {fields / 1e6:.2f}, of its crops of {SIDE}², packed {crops / len(ids) / 1e6:.2f}")
    assert fields < crops
