"""Stage 2: a segmentation network that learns pseudo labels of cells, drawn into maps after augmentation."""

import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import TrainSettings
from hpa_kit.data import FieldStore, PseudoLabels, read_pseudo_labels
from hpa_kit.errors import InputError
from hpa_kit.models import focal_loss
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.cell_maps import CellMaps, cell_maps_of, warn_of_seen
from hpa_kit.training.data import (
    Batch,
    Draw,
    Row,
    RunFields,
    TrainingData,
    load_batches,
    read_run_fields,
    run_folds,
)
from hpa_kit.training.log import Metrics
from hpa_kit.training.objectives.base import Losses, Objective, class_counts, macro_f1
from hpa_kit.training.processes import Processes
from hpa_kit.training.targets import FULL, make_soft_target, make_target


def load_segmentation_data(
    settings: TrainSettings, device: torch.device, processes: Processes | None = None
) -> TrainingData:
    """The batches of a run that learns from pseudo labels.

    Fields without pseudo labels are left out, with a warning. Targets are uint8 (B, 20, S, S), a target of 1
    being 255.

    Args:
        settings: of the run; ``pseudo_labels`` is set.
        device: where batches go.
        processes: that train together.

    Raises:
        InputError: as :func:`~hpa_kit.training.data.read_run_fields`; or pseudo labels or label maps are
            missing, damaged, or do not belong together.
    """
    if settings.pseudo_labels is None:
        raise InputError("train: network unet needs pseudo_labels, a folder of hpa-kit pseudo-labels")
    # Before the fields are read, which takes longer.
    pseudo = read_pseudo_labels(settings.pseudo_labels, settings.masks)
    fields = _with_pseudo_labels(read_run_fields(settings), pseudo, settings.pseudo_labels)
    cells = cell_maps_of(settings, fields.folds["ID"].tolist(), pseudo)
    warn_of_seen(pseudo, cells.ids, settings.pseudo_labels)

    def dataset(augmentation: Augmentation) -> SegmentationDataset:
        return SegmentationDataset(fields.store, cells, pseudo, augmentation, settings.threshold)

    data = load_batches(settings, fields, dataset, device, processes or Processes())
    folds = _with_checksums(data.folds, pseudo)
    return data._replace(folds=folds, contents={"pseudo_labels": cells.checksum})


def segmentation_fields(settings: TrainSettings) -> pd.DataFrame:
    """The fields of a run that learns from pseudo labels, as its data have them; label maps are not read.

    Raises:
        InputError: as :func:`~hpa_kit.training.data.run_folds`, or pseudo labels are missing or damaged.
    """
    if settings.pseudo_labels is None:
        raise InputError("train: network unet needs pseudo_labels, a folder of hpa-kit pseudo-labels")
    return _with_checksums(run_folds(settings), read_pseudo_labels(settings.pseudo_labels, settings.masks))


def _with_checksums(folds: pd.DataFrame, pseudo: PseudoLabels) -> pd.DataFrame:
    """A table of fields that changes where a pseudo label does."""
    sums = [zlib.crc32(pseudo.scores[id].tobytes()) if id in pseudo.scores else 0 for id in folds["ID"]]
    return folds.assign(PseudoLabels=sums)


class SegmentationObjective(Objective):
    """A segmentation network that learns maps uint8 (B, 20, S, S), a target of 1 being 255.

    It is evaluated by the loss, and by the macro F1 of pixels: how well each class is drawn that any cell
    shows.
    """

    load_data = staticmethod(load_segmentation_data)
    fields = staticmethod(segmentation_fields)

    def losses(self, batch: Batch, progress: float) -> Losses:
        """The focal loss of pixels."""
        return {"focal": _pixel_loss(self.model(batch.fields), batch.targets / FULL)}

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Metrics:
        """The mean loss of validation fields, and the macro F1 of their pixels."""
        counts = np.zeros((3, N_CLASSES), np.int64)
        total, fields = 0.0, 0
        for batch in batches:
            logits, targets = model(batch.fields).float(), batch.targets / FULL
            total += float(_pixel_loss(logits, targets)) * len(targets)
            fields += len(targets)
            counts += class_counts(logits[:, :N_CLASSES] > 0, targets[:, :N_CLASSES] > 0.5)
        return {"val_loss": total / fields, "macro_f1": macro_f1(counts)}


def _pixel_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return focal_loss(logits, targets, reduction="mean", soft=True)


class SegmentationDataset(Dataset[Row]):
    """Fields, and targets drawn from their augmented label maps, by :class:`~hpa_kit.training.data.Draw`.

    Args:
        store: all fields.
        cells: their label maps.
        pseudo: the cells' scores.
        augmentation: how field and label map are changed.
        threshold: confidence from which a cell is drawn in a class; soft pseudo labels know none.
    """

    def __init__(
        self,
        store: FieldStore,
        cells: CellMaps,
        pseudo: PseudoLabels,
        augmentation: Augmentation,
        threshold: float,
    ) -> None:
        self.store, self.cells, self.pseudo = store, cells, pseudo
        self.augmentation, self.threshold = augmentation, threshold

    def __getitem__(self, draw: Draw) -> Row:
        number = draw.number
        image, labels = self.augmentation(self.store[number], draw.seed, mask=self.cells[number])
        scores = self.pseudo.scores[self.cells.ids[number]]
        if self.pseudo.soft:
            return image, make_soft_target(labels, scores), number
        return image, make_target(labels, scores, self.threshold) * np.uint8(FULL), number


def _with_pseudo_labels(fields: RunFields, pseudo: PseudoLabels, folder: Path) -> RunFields:
    """The fields without those that have no pseudo labels, which neither part gets."""
    there = fields.folds["ID"].isin(pseudo.scores.keys()).to_numpy()
    train, validation = fields.train[there[fields.train]], fields.validation[there[fields.validation]]
    if len(train) < 2 or len(validation) < 1:
        raise InputError(
            f"train: {folder} has pseudo labels of {len(train)} fields to learn from and of "
            f"{len(validation)} to validate on; expected 2 and 1 at least"
        )
    if not there.all():
        example = fields.folds["ID"][~there].iloc[0]
        warnings.warn(
            f"train: {(~there).sum()} of {len(there)} fields have no pseudo labels in {folder}, such as ID "
            f"{example}; left out",
            stacklevel=3,
        )
    return fields._replace(train=train, validation=validation)
