"""A simulated competition and a submission whose scores are known to be right or wrong."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import SimulateSettings
from hpa_kit.data.simulate import simulate
from hpa_kit.submission import encode_label_map, prediction_string, read_submission, write_submission
from hpa_kit.submission.table import parse_truth


class Simulated(NamedTuple):
    data: Path
    truth: Path
    submission: Path


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """Six test fields; most cells are scored as they are, some as another class, surely."""
    data = tmp_path_factory.mktemp("simulated") / "data"
    simulate(SimulateSettings(out=data, train=1, test=6, size=128, classes=(0, 7, 14), seed=3, workers=1))
    random = np.random.default_rng(0)
    rows = []
    for id, width, height, text in read_submission(data / "truth.csv").itertuples(index=False, name=None):
        with np.load(data / "masks" / f"{id}.npz") as maps:
            masks = encode_label_map(maps["cells"])
        truth = parse_truth(text)
        scores = np.zeros((max(masks), N_CLASSES))
        for cell, mask in masks.items():
            true = [k for k, other in zip(truth.classes, truth.masks, strict=True) if other == mask]
            scores[cell - 1, true] = random.uniform(0.5, 0.9, len(true))
            if random.random() < 0.3:
                scores[cell - 1, true] = 0.1
                scores[cell - 1, 7 if 14 in true else 14] = 0.95
        rows.append((id, width, height, prediction_string(scores, masks)))
    submission = data.parent / "submission.csv"
    write_submission(submission, rows)
    return Simulated(data, data / "truth.csv", submission)
