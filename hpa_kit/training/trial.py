"""Whether a network can learn as a run's settings say: found out before the run writes anything."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.models.sides import on_meta, reason_of


def refuse_what_cannot_learn(settings: TrainSettings, build: Callable[[], nn.Module], fields: int) -> None:
    """Run a network forward and backward as it learns, without numbers where that goes.

    Args:
        settings: of the run.
        build: gives the network, with any weights.
        fields: that it sees at once, at least: 1, or 2 for more.

    Raises:
        InputError: it cannot be built or cannot learn from fields of that size, or batch norm would see a
            single value per channel.
    """
    fault = _fault(settings, build, fields)
    if fault is None:
        return
    if fields == 1 and _fault(settings, build, 2) is None:
        raise InputError(
            f"batch: one field a step and process at size {settings.size} gives batch norm of backbone "
            f"{settings.backbone} single values, from which it cannot learn ({fault}); take batch 2 or more "
            "for each process"
        )
    raise InputError(
        f"backbone: {settings.backbone} cannot learn from fields of size {settings.size}: {fault}"
    )


def learns_with_all_weights(settings: TrainSettings, build: Callable[[], nn.Module]) -> bool:
    """Whether every weight of a network's backbone gets a gradient; processes that share them must know."""
    model = _tried(settings, build, 2)
    return all(weight.grad is not None for weight in getattr(model, "backbone", model).parameters())


def _fault(settings: TrainSettings, build: Callable[[], nn.Module], fields: int) -> str | None:
    """Why so many fields cannot be learnt from; None where they can."""
    try:
        _tried(settings, build, fields)
    except InputError:
        raise
    except Exception as error:  # of any kind: they are timm's
        return reason_of(error)
    return None


def _tried(settings: TrainSettings, build: Callable[[], nn.Module], fields: int) -> nn.Module:
    """A network that has run forward and backward, without numbers where that goes."""
    shape = (fields, settings.in_channels, settings.size, settings.size)
    try:
        return _run(on_meta(build), torch.zeros(shape, device="meta"))
    except InputError:
        raise
    except Exception:  # perhaps for want of numbers
        with torch.random.fork_rng(devices=()), torch.device("cpu"):
            return _run(build(), torch.zeros(shape))


def _run(model: nn.Module, fields: Tensor) -> nn.Module:
    found: Any = model.train()(fields)
    if isinstance(found, Tensor):
        found.float().sum().backward()
    return model
