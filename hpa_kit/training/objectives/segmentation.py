"""Stage 2's objective: maps of the classes, pixel by pixel."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.classes import N_CLASSES
from hpa_kit.training.dataset import Batch
from hpa_kit.training.log import Metrics
from hpa_kit.training.objectives.base import Losses, Objective
from hpa_kit.training.targets import FULL


class SegmentationObjective(Objective):
    """A segmentation network that learns maps uint8 (B, 20, S, S), a target of 1 being 255.

    Judged by the loss, and by the macro F1 of pixels: how well each class is drawn that any cell shows.
    """

    def losses(self, batch: Batch, progress: float) -> Losses:
        """The focal loss of pixels."""
        return {"focal": pixel_focal_loss(self.model(batch.fields), batch.targets / FULL)}

    def judge(self, model: nn.Module, batches: Iterable[Batch]) -> Metrics:
        """The mean loss of held-out fields, and the macro F1 of their pixels."""
        counts = torch.zeros(3, N_CLASSES, dtype=torch.float64)
        total, fields = 0.0, 0
        for batch in batches:
            logits, targets = model(batch.fields).float(), batch.targets / FULL
            total += float(pixel_focal_loss(logits, targets)) * len(targets)
            fields += len(targets)
            counts += _pixel_counts(logits[:, :N_CLASSES] > 0, targets[:, :N_CLASSES] > 0.5).cpu()
        return {"val_loss": total / fields, "macro_f1": _macro_f1(counts)}


def pixel_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Focal loss with γ 2, averaged over everything: BCE × (target − p)².

    Of targets 0 and 1 it is the focal loss of the 15th place's segmentation; for those between it is the
    quality focal loss of Li et al., Generalized Focal Loss (2020). In float32, whatever the logits are.

    Args:
        logits: float, any shape.
        targets: float in [0, 1], the same shape.

    Returns:
        float32 scalar.
    """
    logits, targets = logits.float(), targets.float()
    bce = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (bce * (targets - logits.sigmoid()).square()).mean()


def _pixel_counts(given: Tensor, true: Tensor) -> Tensor:
    """Pixels of each class that are both, given, and true: (3, classes)."""
    parts = [(given & true), given, true]
    return torch.stack([part.sum(dim=(0, 2, 3)) for part in parts]).double()


def _macro_f1(counts: Tensor) -> float:
    """The mean F1 over classes that any pixel shows; NaN where none does."""
    hits, given, true = counts
    shown = true > 0
    return float((2 * hits / (given + true).clamp_min(1))[shown].mean())
