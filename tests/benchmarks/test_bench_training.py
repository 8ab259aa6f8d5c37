"""What the training loop costs beside the network: fields in memory, no workers.

``python -m pytest tests/benchmarks/test_bench_training.py -s --override-ini addopts=``
"""

import time

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from hpa_kit.config import TrainSettings
from hpa_kit.models import focal_loss
from hpa_kit.training import Trainer
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.data import EpochBatches, FieldDataset, Loader, TrainingData
from hpa_kit.training.run_state import EpochSums

FIELDS, BATCH, SIDE, EPOCHS = 64, 16, 128, 3


def _loader():
    rng = np.random.default_rng(0)
    fields = rng.integers(0, 256, (FIELDS, SIDE, SIDE, 4), dtype=np.uint8)
    targets = (rng.random((FIELDS, 19)) < 0.1).astype(np.float32)
    dataset = FieldDataset(fields, targets, Augmentation(1))
    return Loader(dataset, EpochBatches(np.arange(FIELDS), BATCH, seed=0), 0, torch.device("cpu"))


def _trainer(folder, kind=Trainer):
    trainer = kind(
        TrainSettings(data=folder, out=folder, backbone="resnet18", stride=8, size=SIDE, batch=BATCH,
                      epochs=EPOCHS, optimiser="adamw", lr=1e-3, device="cpu")
    )  # fmt: skip
    torch.manual_seed(0)
    trainer.build(TrainingData(_loader(), _loader(), pd.DataFrame({"ID": [], "Label": []})))
    return trainer


class _Clock:
    """Adds up the time that functions take."""

    def __init__(self):
        self.seconds = 0.0

    def around(self, function):
        def timed(*args, **kwargs):
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def test_the_loop_costs_little_beside_the_network(tmp_path, monkeypatch):
    """Both in one run, since other processes slow one run more than the next."""
    trainer, loader = _trainer(tmp_path), _loader()
    network = _Clock()
    monkeypatch.setattr(trainer.objective, "losses", network.around(trainer.objective.losses))
    monkeypatch.setattr(torch.Tensor, "backward", network.around(torch.Tensor.backward))
    monkeypatch.setattr(trainer.state.optimiser, "step", network.around(trainer.state.optimiser.step))
    ratios = []
    for epoch in range(1, EPOCHS + 1):
        trainer.state.sums, network.seconds, started = EpochSums(), 0.0, time.perf_counter()
        with tqdm(total=len(loader), mininterval=0.1) as bar:
            metrics = trainer.train_epoch(epoch, loader, bar)
        total = time.perf_counter() - started
        assert np.isfinite(metrics["train_loss"]) and 0 < network.seconds < total
        ratios.append((total / network.seconds - 1, total, network.seconds))
    ratio, total, inside = sorted(ratios)[len(ratios) // 2]
    per_step = [1000 * seconds / len(loader) for seconds in (total, inside)]
    print(
        f"\ntraining loop, resnet18 at stride 8, {BATCH} fields of {SIDE}² a step: {per_step[0]:.0f} ms, "
        f"of which forward, backward and optimiser {per_step[1]:.0f} ms; overhead {ratio:.1%}"
    )


def test_the_loop_does_what_bare_steps_do(tmp_path):
    batches = list(_loader().epoch(1))[:2]
    bare, kit = _trainer(tmp_path), _trainer(tmp_path)
    for trainer in (bare, kit):
        trainer.state.model.train()
    for number, batch in enumerate(batches):
        kit.step(batch)
        bare.schedule.step_update(number)
        bare.state.optimiser.zero_grad()
        focal_loss(bare.state.model(batch.fields), batch.targets).backward()
        bare.state.optimiser.step()
    for one, other in zip(bare.state.model.parameters(), kit.state.model.parameters(), strict=True):
        assert torch.equal(one, other)
