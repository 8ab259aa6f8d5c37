"""A tiny competition to train on, and one thread, which is quickest for tiny networks."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hpa_kit.config import TrainSettings

# Lets tests import what stands beside them.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def quick(one_thread):
    """Every test of this room."""


@pytest.fixture(scope="session")
def competition(tmp_path_factory):
    """Thirteen fields of 40 x 48 pixels; green is bright in class 0 and dark in class 7."""
    root = tmp_path_factory.mktemp("competition")
    (root / "train").mkdir()
    rng = np.random.default_rng(0)
    rows = ["ID,Label"]
    for number in range(13):
        label = "0" if number % 2 else "7|16"
        rows.append(f"00{number}e1,{label}")
        for channel in ("red", "green", "blue", "yellow"):
            bright = 200 if channel == "green" and number % 2 else 60
            plane = rng.integers(0, bright, (40, 48), dtype=np.uint8)
            cv2.imwrite(str(root / "train" / f"00{number}e1_{channel}.png"), plane)
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="session")
def make_run_settings(competition):
    """Makes settings of a run that takes a second."""

    def make(**changes):
        quick = {
            "data": competition,
            "backbone": "test_resnet",
            "stride": 8,
            "size": 32,
            "epochs": 3,
            "batch": 3,
            "optimiser": "adamw",
            "lr": 1e-3,
            "folds": 4,
            "workers": 0,
            "device": "cpu",
        }
        return TrainSettings(**{**quick, **changes})

    return make


@pytest.fixture
def settings(make_run_settings, tmp_path):
    """Makes settings of a run that takes a second, in a folder of this test."""
    return lambda **changes: make_run_settings(**{"out": tmp_path / "run", **changes})
