"""What a network is trained for: its data, the named parts of a batch's loss, and its metrics."""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpa_kit.config import TrainSettings
from hpa_kit.models import focal_loss
from hpa_kit.training.data import Batch, load_training_data, run_folds
from hpa_kit.training.log import Metrics

Losses = dict[str, Tensor]


class Objective(nn.Module):
    """A network and its losses; variants override :meth:`losses`, and :meth:`validation_loss` to fit.

    All that is learnt belongs to ``model``: it alone is optimised, averaged and kept. The objective is a
    module so that one forward of it is one forward of everything, whatever it is wrapped in.

    Args:
        model: the network.
    """

    # Batches to learn from and to validate on: see there for what it is given.
    load_data = staticmethod(load_training_data)
    # The table of all fields that these will have, without reading a field.
    fields = staticmethod(run_folds)

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    @classmethod
    def of(cls, settings: TrainSettings, model: Any, fields: pd.DataFrame) -> Self:
        """Make the objective that settings describe.

        Args:
            settings: of the run.
            model: the network that they describe, where it is trained.
            fields: columns ID and Label of the fields by their number, as
                :attr:`~hpa_kit.training.data.Batch.numbers` counts them.

        Raises:
            InputError: a table that it needs cannot be read or does not fit the fields' labels.
        """
        return cls(model)

    @classmethod
    def completed(cls, settings: TrainSettings) -> TrainSettings:
        """Settings with what the data decide where they leave it open; the same data decide the same.

        Asked before anything is written; a run that goes on keeps what was decided at its start.

        Raises:
            InputError: the data that decide cannot be read.
        """
        return settings

    @classmethod
    def check(cls, settings: TrainSettings) -> None:
        """Refuse what a run cannot learn from, as a run starts, before anything is written.

        Raises:
            InputError: what it would learn from is missing or of another kind.
        """

    def forward(self, batch: Batch, progress: float) -> Losses:
        """The losses of a batch.

        Args:
            batch: fields and their targets.
            progress: part of all steps that are done, from 0 to 1.
        """
        return self.losses(batch, progress)

    def losses(self, batch: Batch, progress: float) -> Losses:
        """Named parts of a batch's loss, weighted; their sum is minimised, each is logged."""
        return {"focal": focal_loss(self.model(batch.fields), batch.targets)}

    def validation_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss by which epochs are told apart: of logits (B, classes) against image labels."""
        return focal_loss(logits, targets)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """What a network, such as the averaged one, says of a batch."""
        said: Tensor = model(batch.fields)
        return said

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Metrics:
        """Metrics of a network, such as the averaged one, on validation fields; the least loss is best."""
        logits, targets = [], []
        for batch in batches:
            logits.append(self.logits(model, batch).float())
            targets.append(batch.targets)
        return self.metrics(torch.cat(logits), torch.cat(targets))

    def metrics(self, logits: Tensor, targets: Tensor) -> Metrics:
        """Loss and macro F1 of all validation fields' logits (n, classes)."""
        counts = class_counts(torch.sigmoid(logits) > 0.5, targets > 0.5)
        return {"val_loss": float(self.validation_loss(logits, targets)), "macro_f1": macro_f1(counts)}


def class_counts(given: Tensor, true: Tensor) -> NDArray[np.int64]:
    """What is both given and true, given, and true, by class.

    Args:
        given, true: bool (B, classes) of images, or (B, classes, H, W) of pixels.

    Returns:
        int64 (3, classes), to be added up over batches.
    """
    rest = [axis for axis in range(given.ndim) if axis != 1]
    return torch.stack([part.sum(dim=rest) for part in (given & true, given, true)]).cpu().numpy()


def macro_f1(counts: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that anything shows.

    Args:
        counts: as :func:`class_counts` gives.

    Returns:
        0 to 1; NaN where nothing shows any class.
    """
    hits, given, true = counts[:, counts[2] > 0]
    return float(np.mean(2 * hits / (given + true))) if len(true) else float("nan")


def objective_of(network: str) -> type[Objective]:
    """The objective of a kind of network."""
    if network == "unet":
        from hpa_kit.training.objectives.segmentation import SegmentationObjective

        return SegmentationObjective
    if network == "arcface":
        from hpa_kit.training.objectives.arcface import ArcFaceObjective

        return ArcFaceObjective
    if network == "crops":
        from hpa_kit.training.objectives.crops import CropObjective

        return CropObjective
    if network == "head":
        from hpa_kit.training.objectives.heads import HeadObjective

        return HeadObjective
    if network == "cells":
        from hpa_kit.training.objectives.cell_networks import CellNetworksObjective

        return CellNetworksObjective
    from hpa_kit.training.objectives.cam import CamObjective

    return CamObjective
