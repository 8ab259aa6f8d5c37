"""Inference as a whole: what overlaps, what memory does, and what a field costs beside networks and decoding.

The networks' stand-in waits instead of computing, as a GPU lets the processor wait. Results must be equal;
times are printed, never asserted.
"""

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hpa_kit.cells import (
    FieldCells,
    LabelMaps,
    label_cells,
    load_or_segment,
    resized,
    segmenters,
    write_label_maps,
)
from hpa_kit.cells.segmenters import segmenter
from hpa_kit.config import InferSettings, TrainSettings
from hpa_kit.data import CHANNELS, read_field, resize_field
from hpa_kit.inference import Ensemble, FieldMaps, infer
from hpa_kit.scoring import SCORING_FUNCTIONS, FieldEvidence, score_field, scores_to_prediction
from hpa_kit.submission import encode_label_map, read_submission
from hpa_kit.training.checkpoint import BEST, write_checkpoint
from hpa_kit.training.member import build_network

MAP_SIZE, MEMBER_SIZE, N_CELLS = 512, 512, 25


def round_cells(side: int, columns: int = 5) -> LabelMaps:
    """Round cells in a grid, each with a nucleus."""
    y, x = np.mgrid[:side, :side]
    pitch = side / columns
    number = (y // pitch * columns + x // pitch + 1).astype(np.int32)
    distance = np.hypot(y % pitch - pitch / 2, x % pitch - pitch / 2)
    cells = np.where(distance < 0.47 * pitch, number, 0).astype(np.int32)
    return LabelMaps(np.where(distance < 0.2 * pitch, cells, 0).astype(np.int32), cells)


def write_folder(root: Path, side: int, fields: int) -> Path:
    """A folder of one field under many names, with its label maps."""
    images, masks = root / "images", root / "masks"
    images.mkdir()
    masks.mkdir()
    maps = round_cells(side)
    rng = np.random.default_rng(0)
    for channel in CHANNELS:
        plane = np.where(maps.cells > 0, 90, 10) + rng.normal(0, 5, (side, side))
        cv2.imwrite(str(images / f"f0000_{channel}.png"), np.clip(plane, 0, 255).astype(np.uint8))
    write_label_maps(masks / "f0000.npz", maps)
    for k in range(1, fields):
        for channel in CHANNELS:
            os.link(images / f"f0000_{channel}.png", images / f"f{k:04d}_{channel}.png")
        os.link(masks / "f0000.npz", masks / f"f{k:04d}.npz")
    return images


def write_member(root: Path, size: int) -> Path:
    """A run folder of an untrained member."""
    torch.manual_seed(0)
    settings = TrainSettings(data="data", out=root / "run", backbone="resnet10t", stride=32, size=size)
    state = {"model": build_network(settings).state_dict(), "epoch": 1}
    write_checkpoint(root / "run" / BEST, settings, state)
    return root / "run"


def stand_in(monkeypatch, map_size: int, seconds: float) -> None:
    """Members that wait for ``seconds`` per field and then say what one field's maps are."""
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.05, 1, 19).astype(np.float32)
    class_maps = rng.random((19, map_size, map_size), dtype=np.float32)
    logit_maps = np.log(class_maps + 1e-6) - np.log(1 - class_maps + 1e-6)
    seen = FieldMaps(scores, class_maps, logit_maps)

    def look(self, inputs):
        time.sleep(seconds * len(inputs))
        return [seen] * len(inputs)

    monkeypatch.setattr(Ensemble, "predict", look)


def settings(images: Path, member: Path, out: Path, **changes) -> InferSettings:
    values = {
        "data": images,
        "members": (member,),
        "out": out,
        "masks": images.parent / "masks",
        "rule": "mean_logit",
        "map_size": MAP_SIZE,
        "device": "cpu",
    } | changes
    return InferSettings(**values)


def decoding(images: Path, ids: list[str], workers: int) -> float:
    """Seconds to read fields and their label maps with as many threads, and nothing else."""
    begun = time.perf_counter()
    found = load_or_segment(ids, images, segmenter("classical"), images.parent / "masks", workers)
    assert sum(isinstance(field, FieldCells) for _, field in found) == len(ids)
    return time.perf_counter() - begun


@pytest.mark.parametrize("per_field", [0.5, 2.0], ids=["decoding is slower", "networks are slower"])
def test_reading_members_and_scoring_overlap(tmp_path, monkeypatch, per_field) -> None:
    fields, workers = 48, 2
    images, member = write_folder(tmp_path, 1024, fields), write_member(tmp_path, MEMBER_SIZE)
    ids = [f"f{k:04d}" for k in range(fields)]
    stand_in(monkeypatch, MAP_SIZE, 0.0)
    infer(settings(images, member, tmp_path / "warm.csv"))
    decode = decoding(images, ids, workers)
    seconds = per_field * decode / fields
    stand_in(monkeypatch, MAP_SIZE, seconds)
    begun, worked = time.perf_counter(), time.process_time()
    out = infer(settings(images, member, tmp_path / "s.csv", workers=workers))
    wall, worked = time.perf_counter() - begun, time.process_time() - worked
    again = decoding(images, ids, workers)
    networks, decode = seconds * fields, (decode + again) / 2
    assert out.read_bytes() == (tmp_path / "warm.csv").read_bytes()
    print(
        f"\n{fields} fields of 1024²: decoding alone {decode:.2f} s, networks alone {networks:.2f} s, "
        f"together {wall:.2f} s: {wall / max(decode, networks):.2f} x the slower of them; "
        f"processor {worked:.2f} s"
    )


@pytest.mark.parametrize("per_field", [0.5, 1.0, 2.0])
def test_a_disk_and_networks_that_both_wait_overlap(tmp_path, monkeypatch, per_field) -> None:
    """As above with hardly any work for the processor: what the pipeline itself loses."""
    fields, workers, disk = 64, 2, 0.6
    images, member = write_folder(tmp_path, 256, fields), write_member(tmp_path, 64)
    read = segmenters.read_field

    def slow(folder, id, **options):
        time.sleep(disk)
        return read(folder, id, **options)

    monkeypatch.setattr(segmenters, "read_field", slow)
    decode = decoding(images, [f"f{k:04d}" for k in range(fields)], workers)
    networks = per_field * disk / workers * fields
    stand_in(monkeypatch, 64, networks / fields)
    loaded = time.perf_counter()
    Ensemble([member], map_size=64)
    loaded = time.perf_counter() - loaded
    begun = time.perf_counter()
    infer(settings(images, member, tmp_path / "s.csv", workers=workers, map_size=64))
    wall = time.perf_counter() - begun - loaded
    print(
        f"\n{fields} fields: disk alone {decode:.2f} s, networks alone {networks:.2f} s, together (without "
        f"loading the member) {wall:.2f} s: {wall / max(decode, networks):.2f} x the slower"
    )


def test_memory_stays_flat_over_two_thousand_fields(tmp_path, monkeypatch) -> None:
    fields = 2000
    images, member = write_folder(tmp_path, 128, fields), write_member(tmp_path, 64)
    stand_in(monkeypatch, 128, 0.0)
    look, held = Ensemble.predict, []

    def watched(self, inputs):
        held.append((len(inputs), resident()))
        return look(self, inputs)

    monkeypatch.setattr(Ensemble, "predict", watched)
    begun = time.perf_counter()
    out = infer(settings(images, member, tmp_path / "s.csv", map_size=128))
    wall = time.perf_counter() - begun
    done = np.cumsum([count for count, _ in held])
    at = {n: held[int(np.searchsorted(done, n))][1] / 2**20 for n in (200, 500, 1000, 1500, 1990)}
    text = ", ".join(f"{n}: {size:.0f}" for n, size in at.items())
    print(f"\n{fields} fields of 128² in {wall:.0f} s; MiB held after so many fields: {text}")
    assert len(read_submission(out)) == fields
    assert at[1990] - at[200] < 40


def resident() -> int:
    """Bytes of memory this process holds now."""
    status = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(status[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_a_field_costs_beside_networks_and_decoding(tmp_path) -> None:
    side = 2048
    cv2.setNumThreads(1)
    maps = round_cells(side)
    small = round_cells(side // 4)
    zero = np.zeros_like(small.cells, np.uint8)
    planes = [np.where(part > 0, 230, 5).astype(np.uint8) for part in small]
    edges = [cv2.morphologyEx(plane, cv2.MORPH_GRADIENT, np.ones((3, 3))) // 4 for plane in planes]
    network_maps = [np.dstack([zero, edge, plane]) for edge, plane in zip(edges, planes, strict=True)]
    field = np.stack([cv2.resize(planes[1], (side, side))] * 4)
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.05, 1, 19).astype(np.float32)
    class_maps = rng.random((19, MAP_SIZE, MAP_SIZE), dtype=np.float32)
    shape = (MAP_SIZE, MAP_SIZE)

    def reduce():
        green = cv2.resize(field[1].astype(np.float32), shape, interpolation=cv2.INTER_LINEAR)
        return (
            resize_field(field, MEMBER_SIZE),
            resized(maps.cells, shape),
            resized(maps.nuclei, shape),
            green,
        )

    _, cells, nuclei, green = reduce()
    seen = FieldEvidence(scores, class_maps, class_maps, cells, nuclei, green, N_CELLS)

    steps = {
        "label step": lambda: label_cells(*network_maps),
        "reduce": reduce,
        "mask strings": lambda: encode_label_map(maps.cells),
    }
    whole = dict.fromkeys(SCORING_FUNCTIONS, 0.0)
    print(f"\na field of {side}² with {N_CELLS} cells on one core:")
    for name, work in steps.items():
        seconds = fastest(work)
        print(f"  {name:20s}{1000 * seconds:7.1f} ms")
        whole = {rule: total + seconds for rule, total in whole.items()}
    masks = encode_label_map(maps.cells)
    assert len(masks) == N_CELLS
    assert label_cells(*network_maps)[1].max() == N_CELLS
    for name, rule in SCORING_FUNCTIONS.items():
        seconds = fastest(lambda rule=rule: scores_to_prediction(score_field("a", seen, rule), masks))
        print(f"  {name:20s}{1000 * seconds:7.1f} ms, with the steps {1000 * (whole[name] + seconds):.0f} ms")
    usual = usual_way(maps, class_maps, scores, green)
    print(
        f"  usual way to scores and strings: {usual:.2f} s (its label step: see the label step's benchmark)"
    )


def usual_way(maps: LabelMaps, class_maps, scores, green) -> float:
    """Seconds of scores from a mask per cell and class, and of a string per cell by pycocotools."""
    import base64
    import zlib

    from pycocotools import mask as coco

    begun = time.process_time()
    cells = cv2.resize(maps.cells, (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_NEAREST)
    for cell in range(1, N_CELLS + 1):
        inside = cells == cell
        for index in range(19):
            values = class_maps[index] * inside
            scores[index] * values[values > 1e-6].mean() * (values > 1e-6).sum() / inside.sum()
        mask = np.asfortranarray((maps.cells == cell).astype(np.uint8))
        base64.b64encode(zlib.compress(coco.encode(mask)["counts"], 9))
    return time.process_time() - begun


def fastest(work, repeats: int = 9) -> float:
    """Seconds of processor time: what else runs on the machine does not count."""
    times = []
    for _ in range(repeats + 1):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return min(times[1:])


def test_decoding_a_field_for_comparison(tmp_path) -> None:
    images = write_folder(tmp_path, 2048, 1)
    seconds = fastest(lambda: read_field(images, "f0000"), 3)
    print(f"\ndecoding a field of 2048²: {1000 * seconds:.0f} ms")
