"""What pooling over cells costs beside pooling over the field, in the same run: seconds and memory of a step.

``python -m pytest tests/benchmarks/test_bench_cells_learning.py -s --override-ini addopts=``
"""

import resource
import time
from statistics import median

import numpy as np
import pytest
import torch

from hpa_kit.models import CamClassifier
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.data import EpochBatches, FieldDataset, Loader
from hpa_kit.training.objectives import CamObjective
from hpa_kit.training.objectives.cam import ImageLoss

BATCH, SIDE, STRIDE, PAIRS = 16, 256, 8, 9


class Fields:
    """Fields, or label maps, in memory."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, number):
        return self.values[number]


def batch(with_cells):
    """A loader of batches: augmented fields, with label maps of some twenty cells or without."""
    rng = np.random.default_rng(0)
    fields = rng.integers(0, 256, (BATCH, SIDE, SIDE, 4), dtype=np.uint8)
    targets = (rng.random((BATCH, 19)) < 0.1).astype(np.float32)
    tile = np.arange(SIDE) * 5 // SIDE
    cells = np.repeat((1 + tile[:, None] * 5 + tile)[None].astype(np.uint8), BATCH, axis=0)
    dataset = FieldDataset(Fields(fields), targets, Augmentation(1), Fields(cells) if with_cells else None)
    return Loader(dataset, EpochBatches(np.arange(BATCH), BATCH, seed=0), 0, torch.device("cpu"))


def stepper(with_cells, backbone):
    """One step, from the fields in memory to the updated weights."""
    torch.manual_seed(0)
    model = CamClassifier(backbone, stride=STRIDE)
    objective = CamObjective(model, image_loss=ImageLoss("linear" if with_cells else None))
    optimiser = torch.optim.AdamW(model.parameters())
    loader = batch(with_cells)

    def step():
        for fields in loader.epoch(1):
            sum(objective(fields, 0.0).values()).backward()
            optimiser.step()
            optimiser.zero_grad()

    return step


@pytest.mark.parametrize("backbone", ["resnet10t", "resnet18"])
def test_a_step_of_pooling_over_cells_takes_little_more(backbone):
    steps = {name: stepper(name == "cells", backbone) for name in ("field", "cells")}
    seconds = {name: [] for name in steps}
    memory = {}
    for turn in range(PAIRS + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - started)
            memory.setdefault(name, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    ratio = median(c / f for c, f in zip(seconds["cells"], seconds["field"], strict=True))
    print(
        f"\n{backbone}, {BATCH} fields of {SIDE}² at stride {STRIDE}: a step by the field "
        f"{median(seconds['field']):.3f} s, by cells {median(seconds['cells']):.3f} s, ratio {ratio:.3f}; "
        f"peak memory after the first of each {memory['field']:.0f} and {memory['cells']:.0f} MiB"
    )
    assert ratio < 1.1
