"""Averaged weights: exponentially over all of a run (EMA), evenly over its last part (SWA)."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from hpa_kit.config import TrainSettings
from hpa_kit.training.dataset import Batch
from hpa_kit.training.member import load_weights

# Batch norm's statistics of averaged weights are measured on this many batches, not on a whole epoch.
_BATCHES_OF_STATISTICS = 100


class Averages:
    """Averaged weights of a network beside those that are trained.

    EMA is timm's. SWA (Izmailov and others 2018) is torch's, with every update from its start on.

    Args:
        model: what is trained, with its initial weights.
        settings: ``ema`` and ``swa``; 0 is off.

    Attributes:
        ema: None where it is off; ``swa`` likewise.
        swa_start: updates of the weights after which SWA begins.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self.settings = settings
        self.ema = ModelEmaV3(model, decay=settings.ema, use_warmup=True) if settings.ema > 0 else None
        self.swa = AveragedModel(model) if settings.swa > 0 else None
        self.swa_start = 0

    def schedule(self, total_steps: int) -> None:
        """Say how many updates the run has."""
        self.swa_start = int(self.settings.swa * total_steps)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after update number ``step``, from 1."""
        if self.ema is not None:
            self.ema.update(model, step=step)
        if self.swa is not None and step > self.swa_start:
            self.swa.update_parameters(model)

    def best_of(self, model: nn.Module) -> nn.Module:
        """What is validated and kept: the evenly averaged network once there is one, else EMA's, else it."""
        averaged = self._evenly()
        if averaged is not None:
            return averaged
        return model if self.ema is None else self.ema.module

    def measure_statistics(self, batches: Iterable[Batch]) -> None:
        """Give the evenly averaged network batch-norm statistics of its own, as those cannot be averaged.

        Args:
            batches: to learn from; a number of them is taken.
        """
        averaged = self._evenly()
        if averaged is not None:
            update_bn(islice(batches, _BATCHES_OF_STATISTICS), averaged)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the weights ``ema`` and ``swa`` and the number ``swa_updates``, if any."""
        state: dict[str, Any] = {} if self.ema is None else {"ema": self.ema.module.state_dict()}
        averaged = self._evenly()
        if self.swa is not None and averaged is not None:
            state |= {"swa": averaged.state_dict(), "swa_updates": int(self.swa.n_averaged)}
        return state

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go on from what :meth:`state` gave; ``path`` is named where it does not fit."""
        if self.ema is not None:
            load_weights(self.ema.module, state["ema"], path)
        if self.swa is not None and "swa" in state:
            load_weights(self.swa.module, state["swa"], path)
            self.swa.n_averaged.fill_(state["swa_updates"])

    def _evenly(self) -> nn.Module | None:
        """The evenly averaged network, once it has taken in weights."""
        return self.swa.module if self.swa is not None and int(self.swa.n_averaged) else None
