"""A CAM classifier's objective: a list of terms that share one pass of the whole fields."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.models import CamClassifier, CamHeads, focal_loss, mean_logits
from hpa_kit.training.dataset import Batch
from hpa_kit.training.log import Metrics
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

    def judge(self, model: nn.Module, batches: Iterable[Batch]) -> Metrics:
        """As of any objective, by the location classes; the sub-categories' own loss is told beside."""
        term = next((term for term in self.terms if isinstance(term, Subcategories)), None)
        if term is None:
            return super().judge(model, batches)
        classifier = cast(CamClassifier, model)
        logits, targets, losses = [], [], []
        for batch in batches:
            heads = classifier.forward_heads(classifier.input(batch.fields))
            logits.append(mean_logits(heads.maps))
            targets.append(batch.targets)
            losses.append(term.loss(heads, batch) * len(batch.targets))
        mean = float(torch.stack(losses).sum()) / sum(map(len, targets))
        return self.metrics(torch.cat(logits), torch.cat(targets)) | {"val_subcategories": mean}


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

    def loss(self, heads: CamHeads, batch: Batch) -> Tensor:
        """The loss of a pass, not weighted."""
        assert heads.subcategory_maps is not None
        return focal_loss(mean_logits(heads.subcategory_maps), self.targets(batch.numbers))

    def __call__(self, seen: Pass) -> Losses:
        return {"subcategories": self.weight * self.loss(seen.heads, seen.batch)}
