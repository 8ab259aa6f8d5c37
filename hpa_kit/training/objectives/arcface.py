"""An ArcFace network's objective: classes told apart by angles, with a margin."""

from typing import Literal

from torch import Tensor

from hpa_kit.models import ArcFaceNet, add_margin, bce_loss, ce_loss, focal_loss
from hpa_kit.training.dataset import Batch
from hpa_kit.training.objectives.base import Losses, Objective

LOSSES = {"bce": bce_loss, "ce": ce_loss, "focal": focal_loss}


class ArcFaceObjective(Objective):
    """A loss of scaled cosines after a margin, and perhaps the same loss without it.

    Args:
        model: the network.
        margin: angle added to the classes that a field shows, in radians.
        loss: ``bce``, ``ce`` or ``focal``; all are summed over classes and averaged over fields.
        plain_weight: weight of the same loss without margin; 0 leaves it out.
    """

    model: ArcFaceNet

    def __init__(
        self,
        model: ArcFaceNet,
        margin: float = 0.5,
        loss: Literal["bce", "ce", "focal"] = "bce",
        plain_weight: float = 0.0,
    ) -> None:
        super().__init__(model)
        self.margin, self.loss, self.plain_weight = margin, LOSSES[loss], plain_weight

    def losses(self, batch: Batch, progress: float) -> Losses:
        """The loss with the margin and, where it has a weight, the one without."""
        cosines, scale = self.model.forward_cosines(batch.fields), self.model.scale
        harder = add_margin(cosines, batch.targets, self.margin)
        losses = {"arcface": self.loss(scale * harder, batch.targets)}
        if self.plain_weight:
            losses["plain"] = self.plain_weight * self.loss(scale * cosines, batch.targets)
        return losses

    def held_out_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss without margin."""
        return self.loss(logits, targets)
