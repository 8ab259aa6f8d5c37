"""What networks are trained for."""

from collections.abc import Sequence

from torch import nn

from hpa_kit.config import TrainSettings
from hpa_kit.training.objectives.base import Losses, Objective

__all__ = ["Losses", "Objective", "make_objective"]


def make_objective(settings: TrainSettings, model: nn.Module, ids: Sequence[str]) -> Objective:
    """The objective that settings describe.

    Args:
        settings: of the run.
        model: the network that they describe.
        ids: the fields by their number, as :attr:`~hpa_kit.training.dataset.Batch.numbers` counts them.
    """
    return Objective(model)
