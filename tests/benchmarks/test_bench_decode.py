"""Which decoder reads the competition's png fastest, and what reading fields costs.

Every candidate is part of Kaggle's image. All must give the same pixels; times are printed, never asserted.
"""

import importlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hpa_kit.data import CHANNELS, field_size, find_fields, make_folds, read_field, read_labels, resize_field


def by_cv2_imread(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def by_cv2_imdecode(path):
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


def by_pillow(path):
    return np.asarray(Image.open(path))


def by_torchvision(path):
    io = importlib.import_module("torchvision.io")
    return io.decode_png(io.read_file(str(path))).numpy()[0]


def by_imageio(path):
    return importlib.import_module("imageio.v3").imread(path)


def by_skimage(path):
    return importlib.import_module("skimage.io").imread(path)


CANDIDATES = [by_cv2_imread, by_cv2_imdecode, by_pillow, by_torchvision, by_imageio, by_skimage]


def fastest(work, repeats=5):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def test_decoders_agree_and_their_times_are_printed(real):
    paths = sorted((real / "competition" / "train").glob("*.png"))
    expected = [by_pillow(path) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        print(f"\n{len(paths)} real channels, 2048² and 3072², ms per channel: one thread, four threads")
        for candidate in CANDIDATES:
            try:
                results = [candidate(path) for path in paths]
            except ImportError:
                print(f"{candidate.__name__:18} not installed")
                continue
            assert all((got == want).all() for got, want in zip(results, expected, strict=True))
            one = fastest(lambda work=candidate: [work(path) for path in paths])
            four = fastest(lambda work=candidate: list(pool.map(work, paths)))
            print(f"{candidate.__name__:18} {one / len(paths) * 1e3:6.1f} {four / len(paths) * 1e3:6.1f}")


def one_after_the_other(folder, id):
    """The usual way: OpenCV, channel by channel, unchecked."""
    return np.stack([by_cv2_imread(folder / f"{id}_{channel}.png") for channel in CHANNELS])


@pytest.mark.parametrize("data", ["competition", "fields512"])
def test_a_field_is_read_as_the_usual_way_reads_it(real, data):
    folder = real / data / "train"
    ids = find_fields(folder)
    for id in ids:
        assert (read_field(folder, id) == one_after_the_other(folder, id)).all()
    usual = fastest(lambda: [one_after_the_other(folder, id) for id in ids]) / len(ids)
    ours = fastest(lambda: [read_field(folder, id) for id in ids]) / len(ids)
    print(
        f"\n{data}: usual {usual * 1e3:.1f} ms, read_field {ours * 1e3:.1f} ms a field: {usual / ours:.2f}x"
    )
    sizes = fastest(lambda: [field_size(folder, id) for id in ids]) / len(ids)
    field = read_field(folder, ids[0])
    resized = fastest(lambda: resize_field(field, 512))
    print(
        f"{data}: field_size {sizes * 1e6:.0f} us, resize_field {field.shape} to 512 {resized * 1e3:.2f} ms"
    )


def test_the_checks_are_small_beside_the_decoding(real, monkeypatch):
    folder = real / "competition" / "train"
    ids = find_fields(folder)
    monkeypatch.setattr("hpa_kit.data.fields.cpus", lambda: 1)
    checked = fastest(lambda: [read_field(folder, id) for id in ids]) / len(ids)
    unchecked = fastest(lambda: [one_after_the_other(folder, id) for id in ids]) / len(ids)
    assert (read_field(folder, ids[0]) == one_after_the_other(folder, ids[0])).all()
    print(f"\none thread: unchecked {unchecked * 1e3:.1f} ms, read_field {checked * 1e3:.1f} ms a field")


def test_a_folder_of_the_competitions_size_is_listed_in_one_pass(tmp_path):
    for n in range(21_806):
        for channel in CHANNELS:
            os.close(os.open(tmp_path / f"{n:08x}-bb9b-11e8-b2b9-ac1f6b6435d0_{channel}.png", os.O_CREAT))

    def usual():
        return sorted({path.stem.rpartition("_")[0] for path in Path(tmp_path).glob("*.png")})

    assert find_fields(tmp_path) == usual()
    theirs, ours = fastest(usual, 3), fastest(lambda: find_fields(tmp_path), 3)
    print(f"\n87,224 files: glob {theirs:.2f} s, find_fields {ours:.2f} s: {theirs / ours:.1f}x")


@pytest.mark.filterwarnings("ignore:folds")
def test_folds_of_the_whole_competition_take_seconds(real):
    labels = read_labels(real / "tables" / "train.csv")
    start = time.perf_counter()
    folds = make_folds(labels, 5, seed=0)
    print(f"\n{len(labels)} fields into 5 folds: {time.perf_counter() - start:.1f} s")
    assert make_folds(labels, 5, seed=0).equals(folds)
