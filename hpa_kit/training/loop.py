"""The training loop: model, steps, validation, checkpoints; one way through, open to variants."""

import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from tqdm import tqdm

from hpa_kit.config import TrainSettings
from hpa_kit.devices import pick_device
from hpa_kit.errors import InputError
from hpa_kit.training.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    random_state,
    restore_random_state,
    write_checkpoint,
)
from hpa_kit.training.data import TrainingData, load_training_data
from hpa_kit.training.dataset import Batch, Loader
from hpa_kit.training.log import Metrics, RunLog, write_metrics
from hpa_kit.training.member import build_network, load_weights
from hpa_kit.training.objectives import Losses, Objective, make_objective, no_fields
from hpa_kit.training.run import METRICS, open_run
from hpa_kit.training.schedule import make_optimiser, make_scheduler

# Reading the loss makes the host wait for the GPU, so the bar asks for it this seldom.
_SECONDS_BETWEEN_LOOKS = 0.5


def train(settings: TrainSettings) -> Path:
    """Train a CAM classifier on image labels, or go on with the run that ``settings.out`` holds.

    A run that was killed at any moment goes on after its last whole epoch and, on a CPU, ends with the same
    weights as one that was left alone. A finished run returns at once.

    Returns:
        The run folder: ``settings.yaml``, ``folds.csv``, ``best.safetensors`` (lowest validation loss),
        ``last.safetensors`` (all that resuming needs), ``metrics.csv``, ``tensorboard/``.

    Raises:
        InputError: data or settings cannot be used, the folder holds a run of other settings, or the loss
            became infinite or NaN.
    """
    return Trainer(settings).fit()


class Trainer:
    """One run; what differs between kinds of runs is their data and their objective.

    Attributes:
        model, optimiser, scheduler, scaler, ema: what is trained and what trains it; ``ema`` is None where
            averaging is off.
        epoch: epochs done; ``step_number`` and ``total_steps``: how far the run is, in steps.
        history: the metrics of each epoch done.
    """

    model: nn.Module
    ema: ModelEmaV3 | None

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.device = torch.device(pick_device(settings.device))
        self.amp = settings.amp and self.device.type == "cuda"
        self.epoch = self.step_number = self.total_steps = 0
        self.best = math.inf
        self.history: list[Metrics] = []

    # What variants override.

    def load_data(self) -> TrainingData:
        """Batches to learn from and to validate on."""
        return load_training_data(self.settings, self.device)

    def build_model(self, settings: TrainSettings) -> nn.Module:
        """The network with its initial weights; a resumed run asks for it without pretrained ones."""
        return build_network(settings)

    def build_objective(self, model: nn.Module, fields: pd.DataFrame) -> Objective:
        """What the network is trained for; ``fields`` has ID and Label of the fields by their number."""
        return make_objective(self.settings, model, fields)

    @torch.inference_mode()
    def validate(self, model: nn.Module, loader: Loader) -> Metrics:
        """Metrics on the held-out fold; the lowest ``val_loss`` marks the best checkpoint."""
        model.eval()
        with self._autocast():
            return self.objective.judge(model, loader.epoch(0))

    # The one way through.

    def fit(self) -> Path:
        """Train to the last epoch; see :func:`train`."""
        settings = self.settings
        checkpoint = open_run(settings)
        if checkpoint is not None and checkpoint.state["epoch"] >= settings.epochs:
            write_metrics(settings.out / METRICS, checkpoint.state["history"])
            return settings.out
        torch.manual_seed(settings.seed)
        data = self.load_data()
        self.build(data.folds, fresh=checkpoint is None)
        self.schedule(len(data.train))
        if checkpoint is not None:
            self._restore(checkpoint, data)
        log = RunLog(settings.out, settings, self.history)
        try:
            for epoch in range(self.epoch + 1, settings.epochs + 1):
                self._run_epoch(epoch, data, log)
        finally:
            log.close()
        return settings.out

    def build(self, fields: pd.DataFrame | None = None, fresh: bool = True) -> None:
        """Make the model and what trains it; pretrained weights are only read for a fresh run.

        Args:
            fields: ID and Label of the fields by their number; None where the objective needs no table.
            fresh: whether the run starts now.
        """
        settings = self.settings
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        begun = settings.model_copy(update={"pretrained": None, "warm_start": None})
        self.model = self.build_model(settings if fresh else begun)
        self.model.to(self.device)
        if self.device.type == "cuda":  # on a CPU this order of the pixels is several times slower
            self.model.to(memory_format=torch.channels_last)
        self.objective = self.build_objective(self.model, no_fields() if fields is None else fields)
        self.optimiser = make_optimiser(self.model, settings)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp)
        self.ema = ModelEmaV3(self.model, decay=settings.ema, use_warmup=True) if settings.ema > 0 else None

    def schedule(self, steps_per_epoch: int) -> None:
        """Lay the learning rate over all steps of the run."""
        self.total_steps = steps_per_epoch * self.settings.epochs
        self.scheduler = make_scheduler(self.optimiser, self.settings, self.total_steps)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Forward, backward, update: the parts of the loss, still on the device."""
        self.scheduler.step_update(self.step_number)
        with self._autocast():
            losses: Losses = self.objective(batch, self.step_number / self.total_steps)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(torch.stack(list(losses.values())).sum()).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step_number += 1
        if self.ema is not None:
            self.ema.update(self.model, step=self.step_number)
        return {name: loss.detach() for name, loss in losses.items()}

    def learn(self, epoch: int, loader: Loader, bar: "tqdm[Any]") -> Metrics:
        """One pass over the training fields: mean losses, and the learning rate of the last step."""
        self.model.train()
        sums: dict[str, Tensor] = {}
        seen, looked = 0, time.perf_counter()
        for batch in loader.epoch(epoch):
            losses = self.step(batch)
            n = len(batch.targets)
            seen += n
            for name, loss in losses.items():
                sums[name] = sums[name] + loss * n if name in sums else loss * n
            bar.update()
            if time.perf_counter() - looked > _SECONDS_BETWEEN_LOOKS:
                mean = sum(float(total) for total in sums.values()) / seen
                self._check_finite(mean, epoch)
                bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
                looked = time.perf_counter()
        means = {name: float(total) / seen for name, total in sums.items()}
        metrics = {"lr": self.optimiser.param_groups[0]["lr"], "train_loss": sum(means.values())}
        self._check_finite(metrics["train_loss"], epoch)
        return metrics | ({f"train_{name}": mean for name, mean in means.items()} if len(means) > 1 else {})

    def _run_epoch(self, epoch: int, data: TrainingData, log: RunLog) -> None:
        """Learn, validate, keep."""
        started = time.perf_counter()
        with tqdm(total=len(data.train), desc=f"epoch {epoch}/{self.settings.epochs}", unit="step") as bar:
            metrics: Metrics = {"epoch": epoch, **self.learn(epoch, data.train, bar)}
            metrics |= self.validate(self._judged(), data.validation)
            self._check_finite(metrics["val_loss"], epoch)
            bar.set_postfix(
                loss=f"{metrics['train_loss']:.4f}",
                val=f"{metrics['val_loss']:.4f}",
                f1=f"{metrics['macro_f1']:.3f}",
            )
        self.epoch = epoch
        self.history.append(metrics)
        # `last` is what resuming reads, so it is written last: a kill before it costs this epoch, which is
        # then done again with the same result, and nothing else.
        if metrics["val_loss"] < self.best:
            self.best = metrics["val_loss"]
            self._write_best(metrics)
        log.add(self.history, {"seconds": time.perf_counter() - started})
        self._write_last(metrics, data)

    def _judged(self) -> nn.Module:
        """The weights that are validated and kept as the best: the averaged ones where there are any."""
        return self.model if self.ema is None else self.ema.module

    def _write_best(self, metrics: Metrics) -> None:
        state = {
            "model": self._judged().state_dict(),
            "averaged": self.ema is not None,
            "epoch": self.epoch,
            "metrics": metrics,
        }
        write_checkpoint(self.settings.out / BEST, self.settings, state)

    def _write_last(self, metrics: Metrics, data: TrainingData) -> None:
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_state(),
            "step_number": self.step_number,
            "epoch": self.epoch,
            "metrics": metrics,
            "best": self.best,
            "history": self.history,
            "fields": data.fingerprint,
        }
        if self.ema is not None:
            state["ema"] = self.ema.module.state_dict()
        write_checkpoint(self.settings.out / LAST, self.settings, state)

    def _restore(self, checkpoint: Checkpoint, data: TrainingData) -> None:
        state, last = checkpoint.state, self.settings.out / LAST
        if state["fields"] != data.fingerprint:
            raise InputError(
                f"train: the run in {self.settings.out} was started with other fields or labels than data "
                f"{self.settings.data} has; give that folder again to go on, or another --out"
            )
        load_weights(self.model, state["model"], last)
        if self.ema is not None:
            load_weights(self.ema.module, state["ema"], last)
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        restore_random_state(state["random"])
        self.step_number, self.epoch, self.best = state["step_number"], state["epoch"], state["best"]
        self.history = state["history"]

    def _check_finite(self, loss: float, epoch: int) -> None:
        if math.isfinite(loss):
            return
        kept = f"epoch {self.epoch} is kept in {self.settings.out}" if self.epoch else "no epoch was finished"
        raise InputError(
            f"train: the loss became {loss} in epoch {epoch}, {kept}; start again with a lower lr than "
            f"{self.settings.lr} and another --out"
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.float16, enabled=self.amp)
