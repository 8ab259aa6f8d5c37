"""Optimiser and learning rate, both timm's."""

import logging
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler
from torch import nn

from hpa_kit.config import TrainSettings, nearest
from hpa_kit.errors import InputError

# timm's "sgd" is Nesterov's; here sgd is plain momentum and "nesterov" the other.
_TIMM_NAMES = {"sgd": "momentum", "nesterov": "sgd"}
_MOMENTUM = 0.9


def make_optimiser(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """One group with all weights, weight decay on all of them.

    Raises:
        InputError: timm has no such optimiser, or it needs a library that is not installed.
    """
    name = settings.optimiser.lower()
    known = {*list_optimizers(), *_TIMM_NAMES}
    if name.rpartition("_")[2] not in known and name not in known:
        raise InputError(f"optimiser: timm has no {settings.optimiser!r}{nearest(name, known)}")
    try:
        return create_optimizer_v2(
            model,
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
    """The learning rate of each update of the weights, which depends on its number alone.

    A linear rise over the first part of all steps, then a cosine to 0. Where weights are averaged evenly
    (SWA) and ``swa_lr`` is given, that is the rate from the start of averaging on.

    Args:
        optimiser: whose learning rate it is.
        settings: ``lr``, ``warmup``, ``swa``, ``swa_lr``.
        total_steps: of the run.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, settings: TrainSettings, total_steps: int) -> None:
        self._optimiser = optimiser
        self._scheduler = _cosine(optimiser, settings, total_steps)
        averaged = settings.swa > 0 and settings.swa_lr is not None
        self._swa_start = int(settings.swa * total_steps) if averaged else total_steps
        self._swa_lr = settings.swa_lr

    def step_update(self, step: int) -> None:
        """Set the rate of update number ``step``, from 0."""
        self._scheduler.step_update(step)
        if step >= self._swa_start:
            for group in self._optimiser.param_groups:
                group["lr"] = self._swa_lr


def make_scheduler(optimiser: torch.optim.Optimizer, settings: TrainSettings, total_steps: int) -> Schedule:
    """The learning rate over all steps of a run; a resumed run needs no state of it."""
    return Schedule(optimiser, settings, total_steps)


def _cosine(optimiser: torch.optim.Optimizer, settings: TrainSettings, total_steps: int) -> CosineLRScheduler:
    rising = min(int(settings.warmup * total_steps), total_steps - 1)
    logger = logging.getLogger("timm.scheduler.cosine_lr")
    before = logger.level
    logger.setLevel(logging.ERROR)  # a run of a single step is warned of as having no effect
    try:
        return CosineLRScheduler(
            optimiser,
            t_initial=total_steps - rising,
            warmup_t=rising,
            warmup_lr_init=settings.lr / (rising + 1),
            warmup_prefix=True,
            t_in_epochs=False,
        )
    finally:
        logger.setLevel(before)
