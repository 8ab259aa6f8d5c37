"""A CAM classifier's objective: a list of terms that share one pass of the whole fields."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hpa_kit.models import CamClassifier, CamHeads, focal_loss, mean_logits
from hpa_kit.training.dataset import Batch
from hpa_kit.training.objectives.base import Losses, Objective


class Pass(NamedTuple):
    """The pass of whole fields that all terms share.

    Attributes:
        model: the network, to look at parts of fields with.
        batch: fields and their targets.
        progress: part of all steps that are done, from 0 to 1.
        normalised: the fields as the backbone saw them, float (B, in_channels, S, S).
        heads: what came out.
    """

    model: CamClassifier
    batch: Batch
    progress: float
    normalised: Tensor
    heads: CamHeads


class Term(Protocol):
    """Part of a loss: looks at the shared pass, gives named losses that are weighted already."""

    def __call__(self, seen: Pass) -> Losses: ...


class CamObjective(Objective):
    """The sum of terms over one pass.

    Args:
        model: the classifier.
        terms: at least one; their losses have different names.
    """

    model: CamClassifier

    def __init__(self, model: CamClassifier, terms: Sequence[Term]) -> None:
        super().__init__(model)
        self.terms = tuple(terms)

    def losses(self, batch: Batch, progress: float) -> Losses:
        """All terms' losses by name."""
        normalised = self.model.input(batch.fields)
        seen = Pass(self.model, batch, progress, normalised, self.model.forward_heads(normalised))
        found: Losses = {}
        for term in self.terms:
            found |= term(seen)
        return found


def classification(seen: Pass) -> Losses:
    """The term that every classifier has: the focal loss of its logits against the image labels."""
    return {"focal": focal_loss(mean_logits(seen.heads.maps), seen.batch.targets)}


class Subcategories:
    """SC-CAM's term: the focal loss of the sub-categories' logits (Chang et al. 2020, arXiv 2008.01183).

    Args:
        table: int64 (fields, 19), the sub-category of each field, by its number, in each class it shows, or
            −1; on the network's device.
        k: sub-categories per class.
        weight: of the loss; the paper and the 15th place take 5.
    """

    def __init__(self, table: Tensor, k: int, weight: float) -> None:
        self.table, self.k, self.weight = table, k, weight

    def targets(self, numbers: Tensor) -> Tensor:
        """Numbers of fields (B,) -> zeros and ones (B, 19 × k), a one at class × k + sub-category."""
        rows = self.table[numbers]
        return functional.one_hot(rows + 1, self.k + 1)[..., 1:].flatten(1).to(torch.float32)

    def __call__(self, seen: Pass) -> Losses:
        assert seen.heads.subcategory_maps is not None
        logits = mean_logits(seen.heads.subcategory_maps)
        loss = focal_loss(logits, self.targets(seen.batch.numbers))
        return {"subcategories": self.weight * loss}
