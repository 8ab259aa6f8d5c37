"""What networks are trained for."""

import pandas as pd
from torch import nn

from hpa_kit.config import TrainSettings
from hpa_kit.training.objectives.base import Losses, Objective

__all__ = ["Losses", "Objective", "make_objective", "no_fields"]


def make_objective(settings: TrainSettings, model: nn.Module, fields: pd.DataFrame) -> Objective:
    """The objective that settings describe.

    Args:
        settings: of the run.
        model: the network that they describe.
        fields: columns ID and Label of the fields by their number, as
            :attr:`~hpa_kit.training.dataset.Batch.numbers` counts them.
    """
    return Objective(model)


def no_fields() -> pd.DataFrame:
    """A table ID, Label without rows, for an objective that looks nothing up."""
    return pd.DataFrame({"ID": [], "Label": []}, dtype=object)
