"""An ArcFace network's objective: classes told apart by angles, with a margin."""

import logging
from typing import Any, Self

import pandas as pd
from torch import Tensor

from hpa_kit.config import ArcFaceSettings, TrainSettings
from hpa_kit.models import ArcFaceNet, add_margin, bce_loss, ce_loss, focal_loss
from hpa_kit.training.data import Batch
from hpa_kit.training.objectives.base import Losses, Objective

log = logging.getLogger(__name__)

LOSSES = {"bce": bce_loss, "ce": ce_loss, "focal": focal_loss}


class ArcFaceObjective(Objective):
    """A loss of scaled cosines after a margin, and perhaps the same loss without it.

    Args:
        model: the network.
        settings: ``margin``, the angle added to the classes that a field shows, in radians; ``loss``, all of
            which are summed over classes and averaged over fields; ``plain_weight`` of the same loss without
            margin, 0 leaving it out.
    """

    model: ArcFaceNet

    def __init__(self, model: ArcFaceNet, settings: ArcFaceSettings) -> None:
        super().__init__(model)
        self.margin, self.plain_weight = settings.margin, settings.plain_weight
        self.loss = LOSSES[settings.loss]

    @classmethod
    def check(cls, settings: TrainSettings) -> None:
        """Say that label maps are passed over, where some are given."""
        if settings.masks is not None:
            log.warning(
                f"train: network arcface looks at whole fields; masks {settings.masks} are not looked at"
            )

    @classmethod
    def of(cls, settings: TrainSettings, model: Any, fields: pd.DataFrame) -> Self:
        """The objective of a run; labels of fields stand in its batches."""
        return cls(model, settings.arcface)

    def losses(self, batch: Batch, progress: float) -> Losses:
        """The loss with the margin and, where it has a weight, the one without."""
        cosines, scale = self.model.forward_cosines(batch.fields), self.model.scale
        harder = add_margin(cosines, batch.targets, self.margin)
        losses = {"arcface": self.loss(scale * harder, batch.targets)}
        if self.plain_weight:
            losses["plain"] = self.plain_weight * self.loss(scale * cosines, batch.targets)
        return losses

    def validation_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss without margin."""
        return self.loss(logits, targets)
