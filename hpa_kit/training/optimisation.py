"""What moves the weights: timm's optimiser, the learning rate of each update, and averages of the weights."""

import logging
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from hpa_kit.config import TrainSettings, nearest
from hpa_kit.errors import InputError
from hpa_kit.training.data import Batch
from hpa_kit.training.member import load_weights

# timm's "sgd" is Nesterov's; here sgd is plain momentum and "nesterov" the other.
_TIMM_NAMES = {"sgd": "momentum", "nesterov": "sgd"}
_MOMENTUM = 0.9
# Batch norm's statistics of averaged weights are measured on this many batches, not on a whole epoch.
_BATCHES_OF_STATISTICS = 100


def make_optimiser(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """One group with all weights, or one per layer of a backbone that learns by layers; weight decay on all.

    Raises:
        InputError: timm has no such optimiser, or it needs a library that is not installed.
    """
    name = settings.optimiser.lower()
    known = {*list_optimizers(), *_TIMM_NAMES}
    if name.rpartition("_")[2] not in known and name not in known:
        raise InputError(f"optimiser: timm has no {settings.optimiser!r}{nearest(name, known)}")
    try:
        return create_optimizer_v2(
            model if settings.fine_tune.layer_decay == 1 else _by_layer(model, settings),
            opt=_TIMM_NAMES.get(name, name),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=_MOMENTUM,
            filter_bias_and_bn=False,
        )
    except (ValueError, AssertionError, ImportError, TypeError) as error:
        raise InputError(
            f"optimiser: {settings.optimiser} cannot be used: {' '.join(str(error).split())}"
        ) from None


def _by_layer(model: Any, settings: TrainSettings) -> list[dict[str, Any]]:
    """Weights in groups by layer, the last first: what is behind the backbone, its blocks, then its stem.

    A group's rate is ``layer_decay`` times that of the one before it; ``lr_scale`` is timm's word for its
    part of the scheduled rate.
    """
    from hpa_kit.models.layers import layers_of

    layers = {f"backbone.{name}": layer for name, layer in layers_of(model.backbone).items()}
    behind = 1 + max(layers.values())
    groups: dict[int, list[Tensor]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            groups.setdefault(layers.get(name, behind), []).append(weight)
    return [
        {"params": groups[layer], "lr_scale": settings.fine_tune.layer_decay ** (behind - layer)}
        for layer in sorted(groups, reverse=True)
    ]


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """What a checkpoint keeps: the state dict and, of one that draws numbers, its generator's state."""
    generator = getattr(optimiser, "generator", None)
    state = {"dict": optimiser.state_dict()}
    return state | ({"generator": generator.get_state()} if isinstance(generator, torch.Generator) else {})


def restore_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any], device: torch.device) -> None:
    """Go on from what :func:`optimiser_state` gave."""
    optimiser.load_state_dict(state["dict"])
    if "generator" in state:
        generator = torch.Generator(device)
        generator.set_state(state["generator"])
        vars(optimiser)["generator"] = generator


class Schedule:
    """The learning rate of each update of the weights, which depends on its number alone: it has no state.

    A linear rise over the first part of all steps, then a cosine to 0. Where weights are averaged evenly
    (SWA) and ``swa_lr`` is given, that is the rate from the start of averaging on.

    Args:
        optimiser: whose learning rate it is.
        settings: ``lr``, ``warmup``, ``swa``, ``swa_lr``.
        total_steps: of the run.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, settings: TrainSettings, total_steps: int) -> None:
        self._optimiser = optimiser
        averaged = settings.swa > 0 and settings.swa_lr is not None
        self._swa_start = int(settings.swa * total_steps) if averaged else total_steps
        self._swa_lr = settings.swa_lr or settings.lr
        rising = min(int(settings.warmup * total_steps), total_steps - 1)
        logger = logging.getLogger("timm.scheduler.cosine_lr")
        before = logger.level
        logger.setLevel(logging.ERROR)  # a run of a single step is warned of as having no effect
        try:
            self._cosine = CosineLRScheduler(
                optimiser,
                t_initial=total_steps - rising,
                warmup_t=rising,
                warmup_lr_init=settings.lr / (rising + 1),
                warmup_prefix=True,
                t_in_epochs=False,
            )
        finally:
            logger.setLevel(before)

    def step_update(self, step: int) -> None:
        """Set the rate of update number ``step``, from 0."""
        self._cosine.step_update(step)
        if step >= self._swa_start:
            for group in self._optimiser.param_groups:
                group["lr"] = self._swa_lr * group.get("lr_scale", 1.0)


class Averages:
    """Averaged weights of a network beside those that are trained.

    EMA is timm's. SWA (Izmailov and others 2018) is torch's, with every update from its start on.

    Args:
        model: what is trained, with its initial weights.
        settings: ``ema`` and ``swa``; 0 is off.
        total_steps: updates of the weights in all of the run.

    Attributes:
        ema: None where it is off; ``swa`` likewise.
        swa_start: updates of the weights after which SWA begins.
    """

    def __init__(self, model: nn.Module, settings: TrainSettings, total_steps: int) -> None:
        self.ema = ModelEmaV3(model, decay=settings.ema, use_warmup=True) if settings.ema > 0 else None
        self.swa = AveragedModel(model) if settings.swa > 0 else None
        self.swa_start = int(settings.swa * total_steps)

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

    @torch.no_grad()
    def measure_statistics(
        self, batches: Iterable[Batch], forward: Callable[[nn.Module, Batch], Tensor]
    ) -> None:
        """Give the evenly averaged network batch-norm statistics of its own, as those cannot be averaged.

        Args:
            batches: to learn from; a number of them is taken.
            forward: gives a network a batch.
        """
        averaged = self._evenly()
        if averaged is None:
            return
        averaged.train()
        # What is frozen keeps the statistics that it came with.
        norms = [one for one in averaged.modules() if isinstance(one, _BatchNorm) and one.training]
        momenta = [one.momentum for one in norms]
        for one in norms:
            one.reset_running_stats()
            one.momentum = None  # a plain mean over the batches
        for batch in islice(batches, _BATCHES_OF_STATISTICS if norms else 0):
            forward(averaged, batch)
        for one, momentum in zip(norms, momenta, strict=True):
            one.momentum = momentum

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
