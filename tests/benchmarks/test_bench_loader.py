"""How many fields a core gives the network, by augmentation policy, beside what was there before.

Fields come as a run with ``--store`` reads them: resized and packed on disk; label maps packed in memory.
They are augmented, made a batch, and put where another process reads it. *Before* is the same with each flip
and turn done by albumentations itself, and a batch whose channels torch puts first. Both in the same run, by
the processor's time; batches must be the same.

``python -m pytest tests/benchmarks/test_bench_loader.py -s --override-ini addopts=``
"""

import time

import cv2
import numpy as np
import pytest
import torch

from hpa_kit.data import FieldStore, find_fields
from hpa_kit.training.augmentation import POLICIES, Augmentation, RightAngles
from hpa_kit.training.cell_maps import CellMaps
from hpa_kit.training.data import Batch, EpochBatches, FieldDataset, Loader

SIDE, BATCH, BATCHES, REPEATS = 512, 16, 2, 5


class OneByOne(Augmentation):
    """A policy as albumentations does it: each flip and turn for itself."""

    def _of_size(self, height, width):
        compose = super()._of_size(height, width)
        compose.transforms = [
            step
            for one in compose.transforms
            for step in (one.steps if isinstance(one, RightAngles) else [one])
        ]
        return compose


def stacked_by_torch(rows):
    images, targets, numbers, *further = zip(*rows, strict=True)
    fields = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    maps = [torch.from_numpy(np.stack(values)) for values in further]
    return Batch(fields, torch.from_numpy(np.stack(targets)), torch.tensor(numbers), *maps)


@pytest.fixture
def one_core(one_thread):
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def made(loader):
    """Batches of an epoch, in memory that processes share, and the processor's seconds per field."""
    begun = time.process_time()
    batches = list(loader.epoch(1))
    for batch in batches:
        for tensor in batch:
            if tensor is not None:
                tensor.share_memory_()
    return batches, (time.process_time() - begun) / (BATCH * BATCHES)


def test_every_policy_gives_the_same_batches_in_less_time(real, one_core, tmp_path, monkeypatch):
    folder = real / "competition" / "train"
    ids = find_fields(folder)
    fields = FieldStore(folder, ids, SIDE, cache=False, kept=tmp_path)
    maps = CellMaps(ids, SIDE, [real / "competition" / "masks"])
    numbers = np.arange(BATCH * BATCHES) % len(ids)
    targets = np.zeros((len(ids), 19), np.float32)

    def loader(augmentation, cells):
        dataset = FieldDataset(fields, targets, augmentation, cells)
        return Loader(dataset, EpochBatches(numbers, BATCH, seed=0), 0, torch.device("cpu"))

    print(f"\n{SIDE}², ms per field and fields per second of one core; times as fast as before")
    for policy in POLICIES:
        line = []
        for cells in (None, maps):
            now, before = loader(Augmentation(policy), cells), loader(OneByOne(policy), cells)
            least = [np.inf, np.inf]
            for _ in range(REPEATS):  # in turn: a machine is not equally fast at all times
                found, seconds = made(now)
                with monkeypatch.context() as patched:
                    patched.setattr(before._loader, "collate_fn", stacked_by_torch)
                    expected, earlier = made(before)
                least = [min(least[0], seconds), min(least[1], earlier)]
                for one, other in zip(found, expected, strict=True):
                    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True) if a is not None)
            line.append(f"{1e3 * least[0]:5.2f} ms {1 / least[0]:5.0f}/s {least[1] / least[0]:4.1f}x")
        print(f"policy {policy}: {line[0]}   with label maps: {line[1]}")
