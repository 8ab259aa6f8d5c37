"""What a network is trained for: one forward from a batch to the named parts of its loss."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hpa_kit.models import focal_loss
from hpa_kit.training.dataset import Batch
from hpa_kit.training.log import Metrics
from hpa_kit.training.metrics import macro_f1

Losses = dict[str, Tensor]


class Objective(nn.Module):
    """A network and its losses; variants override :meth:`losses`, and :meth:`held_out_loss` to fit.

    All that is learnt belongs to ``model``: it alone is optimised, averaged and kept. The objective is a
    module so that one forward of it is one forward of everything, whatever it is wrapped in.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

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

    def held_out_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss by which epochs are told apart: of logits (B, classes) against image labels."""
        return focal_loss(logits, targets)

    def judge(self, model: nn.Module, batches: Iterable[Batch]) -> Metrics:
        """Metrics of a network, such as the averaged one, on held-out fields; least ``val_loss`` is best."""
        logits, targets = [], []
        for batch in batches:
            logits.append(model(batch.fields).float())
            targets.append(batch.targets)
        return self.metrics(torch.cat(logits), torch.cat(targets))

    def metrics(self, logits: Tensor, targets: Tensor) -> Metrics:
        """Loss and macro F1 of all held-out fields' logits (n, classes)."""
        scores = torch.sigmoid(logits).cpu().numpy()
        loss = float(self.held_out_loss(logits, targets))
        return {"val_loss": loss, "macro_f1": macro_f1(scores, targets.cpu().numpy())}
