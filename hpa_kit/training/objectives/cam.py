"""A CAM classifier's objective: the sum of loss terms that share one forward pass of the whole fields."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, Self, cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.config import TrainSettings
from hpa_kit.models import CamClassifier, CamHeads, focal_loss, mean_logits
from hpa_kit.training.data import Batch
from hpa_kit.training.log import Metrics
from hpa_kit.training.objectives.base import Losses, Objective


class ForwardOutputs(NamedTuple):
    """The forward pass of whole fields that all loss terms share.

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


class LossTerm(Protocol):
    """Part of a loss: takes the shared forward outputs, gives named losses that are weighted already."""

    def __call__(self, outputs: ForwardOutputs) -> Losses: ...


class CamObjective(Objective):
    """The focal loss of the image labels, and what further terms add, over one forward pass.

    Args:
        model: the classifier.
        terms: further ones; their losses have different names, and none is called ``focal``.
    """

    model: CamClassifier

    def __init__(self, model: CamClassifier, terms: Sequence[LossTerm] = ()) -> None:
        super().__init__(model)
        self.terms = tuple(terms)

    @classmethod
    def of(cls, settings: TrainSettings, model: Any, fields: pd.DataFrame) -> Self:
        """Sub-categories from round 1 on, then the puzzle where it is asked for."""
        terms: list[LossTerm] = []
        subcategories = None
        if settings.sc_cam.subcategories is not None:
            from hpa_kit.training.subcategories import read_subcategories

            table = read_subcategories(settings.sc_cam.subcategories)
            numbers = torch.from_numpy(table.of_fields(fields)).to(model.head.weight.device)
            subcategories = Subcategories(numbers, table.k, settings.sc_cam.weight)
            terms.append(subcategories)
        if settings.puzzle_cam.source != "off":
            from hpa_kit.training.objectives.puzzle import Puzzle

            terms.append(
                Puzzle(settings.puzzle_cam, subcategories if settings.puzzle_cam.subcategories else None)
            )
        return cls(model, terms)

    def losses(self, batch: Batch, progress: float) -> Losses:
        """All terms' losses by name."""
        normalised = self.model.input(batch.fields)
        heads = self.model.forward_heads(normalised)
        outputs = ForwardOutputs(self.model, batch, progress, normalised, heads)
        found = {"focal": focal_loss(mean_logits(heads.maps), batch.targets)}
        for term in self.terms:
            found |= term(outputs)
        return found

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Metrics:
        """As of any objective, by the location classes; the sub-categories' own loss is told beside."""
        term = next((term for term in self.terms if isinstance(term, Subcategories)), None)
        if term is None:
            return super().evaluate(model, batches)
        classifier = cast(CamClassifier, model)
        logits, targets, losses = [], [], []
        for batch in batches:
            heads = classifier.forward_heads(classifier.input(batch.fields))
            logits.append(mean_logits(heads.maps))
            targets.append(batch.targets)
            losses.append(term.loss(heads, batch) * len(batch.targets))
        mean = float(torch.stack(losses).sum()) / sum(map(len, targets))
        return self.metrics(torch.cat(logits), torch.cat(targets)) | {"val_subcategories": mean}


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
        """The loss of a batch's heads, not weighted."""
        assert heads.subcategory_maps is not None
        return focal_loss(mean_logits(heads.subcategory_maps), self.targets(batch.numbers))

    def __call__(self, outputs: ForwardOutputs) -> Losses:
        return {"subcategories": self.weight * self.loss(outputs.heads, outputs.batch)}
