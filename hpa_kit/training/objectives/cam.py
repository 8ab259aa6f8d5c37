"""A CAM classifier's objective: the sum of loss terms that share one forward pass of the whole fields."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, Self, cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.config import CellBag, CellPooling, TrainSettings
from hpa_kit.models import CamClassifier, CamHeads, focal_loss, mean_logits
from hpa_kit.models.losses import FOCAL_GAMMA
from hpa_kit.training.data import Batch
from hpa_kit.training.log import Metrics
from hpa_kit.training.objectives.base import Losses, Objective

log = logging.getLogger(__name__)


class ForwardOutputs(NamedTuple):
    """The forward pass of whole fields that all loss terms share.

    Attributes:
        model: the network, to look at parts of fields with.
        batch: fields and their targets.
        progress: part of all steps that are done, from 0 to 1.
        normalised: the fields as the backbone saw them, float (B, in_channels, S, S).
        heads: what came out.
        protein: which cells count for the labels of their image, bool (B, n); None where all do.
    """

    model: CamClassifier
    batch: Batch
    progress: float
    normalised: Tensor
    heads: CamHeads
    protein: Tensor | None = None


class ImageLoss:
    """What image labels cost: of the means of class maps or, pooled, of what their cells show.

    Pooled, the loss leaves out Negative, which is what the others leave, and fields without a cell.

    Args:
        pooling: how image logits come from those of cells; None takes the means of the maps.
        gamma: of the focal loss; 0 is cross-entropy.
        bag: which cells count for the labels of their image.
    """

    def __init__(
        self,
        pooling: CellPooling | None = None,
        gamma: float = FOCAL_GAMMA,
        bag: CellBag = "all",
    ) -> None:
        self.pooling, self.gamma, self.bag = pooling, gamma, bag

    def logits(
        self,
        maps: Tensor,
        cells: Tensor | None,
        protein: Tensor | None = None,
        shown: Tensor | None = None,
    ) -> Tensor:
        """Class maps (B, C, h, w) of fields with these label maps (B, S, S) -> image logits (B, C).

        See :func:`~hpa_kit.models.cell_pooling.pooled_logits`.
        """
        if self.pooling is None:
            return mean_logits(maps)
        from hpa_kit.models.cell_pooling import pooled_logits

        assert cells is not None
        return pooled_logits(maps, cells, self.pooling, protein, shown)

    def protein(self, batch: Batch) -> Tensor | None:
        """Which cells of a batch count for the labels of their image; None where all do."""
        if self.pooling is None or self.bag == "all":
            return None
        from hpa_kit.models.cell_pooling import cells_with_protein

        assert batch.cells is not None
        return cells_with_protein(batch.fields, batch.cells)

    def of_logits(self, logits: Tensor, targets: Tensor, cells: Tensor | None) -> Tensor:
        """The loss of image logits against labels (B, C), of the 19 classes or of their sub-categories."""
        if self.pooling is not None:
            assert cells is not None
            learnt = logits.shape[1] // N_CLASSES * NEGATIVE
            # A field without a cell has logits that never change; without labels they cost nothing.
            there = (cells > 0).flatten(1).any(dim=1)
            logits, targets = logits[:, :learnt], targets[:, :learnt] * there[:, None]
        return focal_loss(logits, targets, self.gamma)

    def __call__(
        self, maps: Tensor, targets: Tensor, cells: Tensor | None, protein: Tensor | None = None
    ) -> Tensor:
        return self.of_logits(self.logits(maps, cells, protein, targets), targets, cells)


class LossTerm(Protocol):
    """Part of a loss: takes the shared forward outputs, gives named losses that are weighted already."""

    def __call__(self, outputs: ForwardOutputs) -> Losses: ...


class CamObjective(Objective):
    """The focal loss of the image labels, and what further terms add, over one forward pass.

    Args:
        model: the classifier.
        terms: further ones; their losses have different names, and none is called ``focal``.
        image_loss: of the image labels.
    """

    model: CamClassifier

    def __init__(
        self, model: CamClassifier, terms: Sequence[LossTerm] = (), image_loss: ImageLoss | None = None
    ) -> None:
        super().__init__(model)
        self.terms = tuple(terms)
        self.image_loss = ImageLoss() if image_loss is None else image_loss

    @classmethod
    def of(cls, settings: TrainSettings, model: Any, fields: pd.DataFrame) -> Self:
        """Sub-categories from round 1 on; puzzle, consistency and soft labels where they are asked for."""
        terms: list[LossTerm] = []
        pooling = settings.cells.how if settings.pools_cells else None
        gamma = FOCAL_GAMMA if settings.loss == "focal" else 0.0
        image_loss = ImageLoss(pooling, gamma, settings.cells.bag)
        subcategories = None
        if settings.sc_cam.subcategories is not None:
            from hpa_kit.training.subcategories import read_subcategories

            table = read_subcategories(settings.sc_cam.subcategories)
            numbers = torch.from_numpy(table.of_fields(fields)).to(model.head.weight.device)
            subcategories = Subcategories(numbers, table.k, settings.sc_cam.weight, image_loss)
            terms.append(subcategories)
        if settings.puzzle_cam.source != "off":
            from hpa_kit.training.objectives.puzzle import Puzzle

            puzzle = settings.puzzle_cam
            tile = settings.size // puzzle.per_side
            if not model.sides.takes(tile):
                log.info(
                    f"puzzle: {settings.backbone} takes no tiles of {tile} px; they are looked at at "
                    f"{model.sides.nearest(tile)} px"
                )
            terms.append(Puzzle(puzzle, subcategories if puzzle.subcategories else None, image_loss))
        if settings.cells.consistency:
            from hpa_kit.training.objectives.consistency import Consistency

            terms.append(Consistency(settings.cells.consistency))
        if settings.pseudo_labels is not None:
            from hpa_kit.training.objectives.soft_labels import SoftLabels

            terms.append(SoftLabels.of(settings, fields["ID"].tolist(), model.head.weight.device))
        return cls(model, terms, image_loss)

    @classmethod
    def check(cls, settings: TrainSettings) -> None:
        """Label maps are there, and soft labels are soft ones."""
        if settings.pools_cells:
            from hpa_kit.training.cell_maps import check_label_maps

            check_label_maps(settings)
        if settings.pseudo_labels is not None:
            from hpa_kit.training.objectives.soft_labels import read_soft_labels

            read_soft_labels(settings)

    def losses(self, batch: Batch, progress: float) -> Losses:
        """All terms' losses by name."""
        normalised = self.model.input(batch.fields)
        heads = self.model.forward_heads(normalised)
        protein = self.image_loss.protein(batch)
        outputs = ForwardOutputs(self.model, batch, progress, normalised, heads, protein)
        found = {"focal": self.image_loss(heads.maps, batch.targets, batch.cells, protein)}
        for term in self.terms:
            found |= term(outputs)
        return found

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Metrics:
        """By the location classes, fields without a cell left out where cells count; the sub-categories' own
        loss is told beside."""
        term = next((term for term in self.terms if isinstance(term, Subcategories)), None)
        classifier = cast(CamClassifier, model)
        logits, targets, losses, fields = [], [], [], 0
        for batch in batches:
            heads = classifier.forward_heads(classifier.input(batch.fields))
            there = slice(None) if batch.cells is None else (batch.cells > 0).flatten(1).any(dim=1)
            logits.append(self.image_loss.logits(heads.maps, batch.cells)[there])
            targets.append(batch.targets[there])
            fields += len(batch.targets)
            if term is not None:
                losses.append(term.loss(heads, batch) * len(batch.targets))
        found = self.metrics(torch.cat(logits), torch.cat(targets))
        if losses:
            found |= {"val_subcategories": float(torch.stack(losses).sum()) / fields}
        return found

    def validation_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As what is learnt, of fields with cells."""
        return self.image_loss.of_logits(logits, targets, torch.ones_like(targets[:, :1, None]))


class Subcategories:
    """SC-CAM's term: the focal loss of the sub-categories' logits (Chang et al. 2020, arXiv 2008.01183).

    Args:
        table: int64 (fields, 19), the sub-category of each field, by its number, in each class it shows, or
            −1; on the network's device.
        k: sub-categories per class.
        weight: of the loss; the paper and the 15th place take 5.
        image_loss: of image labels, pooled over cells or not; sub-categories are labels of images too.
    """

    def __init__(self, table: Tensor, k: int, weight: float, image_loss: ImageLoss | None = None) -> None:
        self.table, self.k, self.weight = table, k, weight
        self.image_loss = ImageLoss() if image_loss is None else image_loss

    def targets(self, numbers: Tensor) -> Tensor:
        """Numbers of fields (B,) -> zeros and ones (B, 19 × k), a one at class × k + sub-category."""
        rows = self.table[numbers]
        return functional.one_hot(rows + 1, self.k + 1)[..., 1:].flatten(1).to(torch.float32)

    def loss(self, heads: CamHeads, batch: Batch, protein: Tensor | None = None) -> Tensor:
        """The loss of a batch's heads, not weighted."""
        assert heads.subcategory_maps is not None
        return self.image_loss(heads.subcategory_maps, self.targets(batch.numbers), batch.cells, protein)

    def __call__(self, outputs: ForwardOutputs) -> Losses:
        return {"subcategories": self.weight * self.loss(outputs.heads, outputs.batch, outputs.protein)}
