"""From a data folder to the batches of a run: labels, folds, fields."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hpa_kit.classes import multi_hot, parse_label
from hpa_kit.config import TrainSettings
from hpa_kit.data import DataFolder, load_folds, read_labels
from hpa_kit.errors import InputError
from hpa_kit.training.augment import Augmentation
from hpa_kit.training.dataset import EpochBatches, FieldDataset, Loader
from hpa_kit.training.run import FOLDS
from hpa_kit.training.store import FieldStore, require_images

_UNCHANGED = 0
_WANTED_STEPS, _SMALLEST_BATCH, _LARGEST_BATCH = 400, 8, 40


class TrainingData(NamedTuple):
    """Batches to learn from, batches to validate on, and the table ID, Label, fold of all fields."""

    train: Loader
    validation: Loader
    folds: pd.DataFrame

    @property
    def fingerprint(self) -> str:
        """A text that changes where a field, its label or its fold does."""
        return hashlib.sha256(self.folds.to_csv(index=False).encode()).hexdigest()


def load_training_data(settings: TrainSettings, device: torch.device) -> TrainingData:
    """Read labels, divide them into folds, read the fields.

    Raises:
        InputError: a table or a field is missing or damaged, or too few fields are left for either part.
    """
    folder = DataFolder(settings.data)
    images, table = folder.images("train"), folder.labels()
    labels = read_labels(table)
    # Before anything is written or read: a field that is missing must not show after an hour.
    require_images(images, labels["ID"].tolist())
    folds = load_folds(settings.out / FOLDS, labels, settings.folds, settings.seed)
    learnt, held_out = _split(folds, settings.fold, table)
    targets = multi_hot(parse_label(label) for label in folds["Label"])
    store = FieldStore(images, folds["ID"].tolist(), settings.size, settings.cache)
    # Where the CPU trains on fields in memory, workers would only take its time.
    workers = 0 if store.in_memory and device.type == "cpu" else settings.workers
    changed = FieldDataset(store, targets, Augmentation(settings.augmentation))
    unchanged = FieldDataset(store, targets, Augmentation(_UNCHANGED))
    batch = settings.batch or _batch_of(len(learnt), settings.epochs)
    return TrainingData(
        Loader(changed, EpochBatches(learnt, batch, settings.seed), workers, device),
        Loader(unchanged, EpochBatches(held_out, batch, None), workers, device),
        folds,
    )


def _batch_of(n_fields: int, epochs: int) -> int:
    """Fields per step that give a run the wanted steps, within the bounds of batch norm and of memory."""
    return min(max(n_fields * epochs // _WANTED_STEPS, _SMALLEST_BATCH), _LARGEST_BATCH)


def _split(folds: pd.DataFrame, fold: int, table: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from and rows of the held-out fold."""
    held_out = folds["fold"].to_numpy() == fold
    learnt, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if len(validation) < 1 or len(learnt) < 2:
        raise InputError(
            f"train: {table} leaves {len(learnt)} fields to learn from and {len(validation)} in fold {fold} "
            f"of {folds['fold'].nunique()}; expected 2 and 1 at least"
        )
    return learnt, validation
