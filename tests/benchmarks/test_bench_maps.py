"""What the size of the maps costs: beside the pixels that a member reads, and in scoring.

The constants by which inference tells what smaller maps would save are from here: ``MAP_PIXEL`` and
``SCORING_PIXELS`` of ``hpa_kit/inference/ensemble.py``. Seconds are the processor's, of one thread, so that
they say the same on a busy machine.
"""

import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from hpa_kit.cells import FieldCells, LabelMaps
from hpa_kit.config import TrainSettings
from hpa_kit.inference import Ensemble
from hpa_kit.inference.ensemble import FieldMaps, QualityLevel
from hpa_kit.inference.prediction import prepare
from hpa_kit.scoring import SCORING_FUNCTIONS, score_field, scores_to_prediction
from hpa_kit.submission import encode_label_map
from hpa_kit.training.checkpoint import BEST, write_checkpoint
from hpa_kit.training.member import build_network

SIDES = (256, 512, 1024)


def round_cells(side: int, columns: int = 5) -> LabelMaps:
    """Round cells in a grid, each with a nucleus."""
    y, x = np.mgrid[:side, :side]
    pitch = side / columns
    number = (y // pitch * columns + x // pitch + 1).astype(np.int32)
    distance = np.hypot(y % pitch - pitch / 2, x % pitch - pitch / 2)
    cells = np.where(distance < 0.47 * pitch, number, 0).astype(np.int32)
    return LabelMaps(np.where(distance < 0.2 * pitch, cells, 0).astype(np.int32), cells)


def seconds_of(call: Callable[[], object], times: int = 4) -> float:
    """The least processor time of a call; the first one compiles."""
    call()
    found = np.inf
    for _ in range(times):
        begun = time.process_time()
        call()
        found = min(found, time.process_time() - begun)
    return found


@pytest.mark.parametrize(
    ("backbone", "stride"), [("resnet10t", 32), ("efficientnet_b0", 16), ("resnet50", 16)]
)
def test_bench_a_pixel_of_the_maps_beside_a_pixel_read(tmp_path, one_thread, backbone, stride) -> None:
    size = 384
    settings = TrainSettings(data="data", out=tmp_path, backbone=backbone, stride=stride, size=size)
    write_checkpoint(tmp_path / BEST, settings, {"model": build_network(settings).state_dict(), "epoch": 1})
    ensemble = Ensemble([tmp_path], "flips", class_maps=False)
    fields = [ensemble.inputs(np.random.default_rng(0).integers(0, 256, (4, size, size), dtype=np.uint8))]

    def took(side: int) -> float:
        ensemble.level = QualityLevel(0, 1, side)
        return seconds_of(lambda: ensemble.predict(fields))

    least, most = took(16), took(1024)
    part = (most - least) / 1024**2 / (least / (3 * size**2))
    print(f"\n{backbone} at {size} px, {least * 1e3:.0f} ms a field: a pixel of the maps costs {part:.2f}")


@pytest.mark.parametrize("rule", ["best", "cam_share", "quantile"])
def test_bench_scoring_by_the_size_of_the_maps(rule) -> None:
    cv2.setNumThreads(1)
    rng, maps = np.random.default_rng(1), round_cells(2048)
    field, masks = rng.integers(0, 256, (4, 2048, 2048), dtype=np.uint8), encode_label_map(maps.cells)
    took = []
    for side in SIDES:
        small = prepare("f", FieldCells(field, maps, made=False), side)
        planes = rng.random((19, side, side), dtype=np.float32)
        scores = rng.uniform(0.05, 1, 19).astype(np.float32)
        seen = small.evidence(FieldMaps(scores, planes, planes))
        took.append(
            seconds_of(
                lambda seen=seen: scores_to_prediction(
                    score_field("f", seen, SCORING_FUNCTIONS[rule]), masks
                ),
                10,
            )
        )
    fixed = took[0] * (SIDES[1] ** 2 - SIDES[0] ** 2) / (took[1] - took[0]) - SIDES[0] ** 2
    listed = ", ".join(f"{side} px {each * 1e3:.1f} ms" for side, each in zip(SIDES, took, strict=True))
    print(f"\n{rule}: {listed}; beside its pixels it takes what {max(0.0, fixed):.0f} of them do")
