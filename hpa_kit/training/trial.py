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


def _fault(settings: TrainSettings, build: Callable[[], nn.Module], fields: int) -> str | None:
    """Why so many fields cannot be learnt from; None where they can."""
    shape = (fields, settings.in_channels, settings.size, settings.size)
    try:
        _learn(on_meta(build), torch.zeros(shape, device="meta"))
    except InputError:
        raise
    except Exception:  # some networks cannot run without numbers
        try:
            with torch.random.fork_rng(devices=()), torch.device("cpu"):
                _learn(build(), torch.zeros(shape))
        except Exception as error:  # of any kind: they are timm's
            return reason_of(error)
    return None


def _learn(model: nn.Module, fields: Tensor) -> None:
    found: Any = model.train()(fields)
    if isinstance(found, Tensor):
        found.float().sum().backward()
