"""From a data folder to the batches of a run: labels, folds, fields."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from hpa_kit.classes import multi_hot, parse_label
from hpa_kit.config import TrainSettings
from hpa_kit.data import FieldStore, find_folds, labelled_fields, write_folds
from hpa_kit.errors import InputError
from hpa_kit.training.augment import Augmentation
from hpa_kit.training.dataset import EpochBatches, FieldDataset, Loader, Row
from hpa_kit.training.processes import Processes
from hpa_kit.training.run import FOLDS, find_start
from hpa_kit.training.sampling import balanced_weights

_UNCHANGED = 0
_WANTED_STEPS, _SMALLEST_BATCH, _LARGEST_BATCH = 400, 8, 40


class TrainingData(NamedTuple):
    """What a run learns from.

    Attributes:
        train, validation: batches to learn from, and to validate on.
        folds: the table ID, Label, fold of all fields.
        contents: by setting, a text that changes where files do that the table does not tell of.
    """

    train: Loader
    validation: Loader
    folds: pd.DataFrame
    contents: Mapping[str, str] = MappingProxyType({})

    @property
    def fingerprint(self) -> str:
        """A text that changes where a field, its label or its fold does."""
        return hashlib.sha256(self.folds.to_csv(index=False).encode()).hexdigest()


class RunFields(NamedTuple):
    """A run's fields: the table ID, Label, fold; resized; the numbers to learn from and to validate on."""

    folds: pd.DataFrame
    store: FieldStore
    learnt: NDArray[np.int64]
    held_out: NDArray[np.int64]

    @property
    def targets(self) -> NDArray[np.float32]:
        """Image labels, float32 (fields, 19)."""
        return multi_hot(parse_label(label) for label in self.folds["Label"])


def run_folds(settings: TrainSettings) -> pd.DataFrame:
    """Tell the folds that a run has, or will have once it is started; nothing is written.

    They are those in its folder or, where it goes on from another, in that; else those of ``folds_of``; else
    they are made. External fields are among them, those that are always learnt from with fold -1.

    Returns:
        Columns ``ID``, ``Label`` and ``fold``.

    Raises:
        InputError: as :func:`~hpa_kit.training.run.find_start`, :func:`~hpa_kit.data.labelled_fields` and
            :func:`~hpa_kit.data.find_folds`.
    """
    return _folds(settings, find_start(settings).folds, labelled_fields(settings).table)


def read_run_fields(settings: TrainSettings) -> RunFields:
    """Read labels, find all images, divide the fields into folds, which are stored, resize them.

    Raises:
        InputError: a table or a field is missing or damaged, or too few fields are left for either part.
    """
    # Before anything is written or read: a field that is missing must not show after an hour.
    fields = labelled_fields(settings)
    kept, found = settings.out / FOLDS, find_start(settings).folds
    folds = _folds(settings, found, fields.table)
    if found != kept:
        write_folds(kept, folds)
    learnt, held_out = _split(folds, settings.fold, settings.data)
    store = FieldStore(
        fields.folders,
        folds["ID"].tolist(),
        settings.size,
        settings.cache,
        settings.store,
        settings.in_channels,
    )
    return RunFields(folds, store, learnt, held_out)


def load_training_data(
    settings: TrainSettings, device: torch.device, processes: Processes | None = None
) -> TrainingData:
    """The batches of a run that learns from image labels.

    Args:
        settings: of the run.
        device: where batches go.
        processes: that train together; each learns from its share of every batch and may validate on all.

    Raises:
        InputError: as :func:`read_run_fields`.
    """
    fields = read_run_fields(settings)

    def dataset(augmentation: Augmentation) -> FieldDataset:
        return FieldDataset(fields.store, fields.targets, augmentation)

    return load_batches(settings, fields, dataset, device, processes or Processes())


def load_batches(
    settings: TrainSettings,
    fields: RunFields,
    dataset: Callable[[Augmentation], Dataset[Row]],
    device: torch.device,
    processes: Processes,
) -> TrainingData:
    """The batches of a run, whatever it learns from.

    Args:
        settings: of the run.
        fields: of the run.
        dataset: makes all fields with their targets, for an augmentation: the run's to learn from, none to
            validate.
        device: where batches go.
        processes: that train together.
    """
    weights = None
    if settings.sampling == "balanced":
        weights = balanced_weights(fields.targets, settings.sampling_clip)[fields.learnt]
    workers = processes.workers(reading_workers(settings, fields.store, device))
    batch = batch_size(settings, len(fields.learnt))
    train = EpochBatches(fields.learnt, batch, settings.seed, processes.rank, processes.world, weights)
    return TrainingData(
        Loader(dataset(Augmentation(settings.augmentation)), train, workers, device),
        Loader(
            dataset(Augmentation(_UNCHANGED)), EpochBatches(fields.held_out, batch, None), workers, device
        ),
        fields.folds,
    )


def reading_workers(settings: TrainSettings, store: FieldStore, device: torch.device) -> int:
    """Processes that read; where the CPU trains on fields in memory, they would only take its time."""
    return 0 if store.in_memory and device.type == "cpu" else settings.workers


def batch_size(settings: TrainSettings, n_fields: int) -> int:
    """Fields per step: as set, else as many as give a run the wanted steps, within bounds."""
    return settings.batch or _batch_of(n_fields, settings.epochs)


def _batch_of(n_fields: int, epochs: int) -> int:
    return min(max(n_fields * epochs // _WANTED_STEPS, _SMALLEST_BATCH), _LARGEST_BATCH)


def _folds(settings: TrainSettings, found: Path | None, fields: pd.DataFrame) -> pd.DataFrame:
    return find_folds(found, fields, settings.folds, settings.seed, settings.folds_of)


def _split(folds: pd.DataFrame, fold: int, data: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from, those of fold -1 among them, and rows of the held-out fold."""
    held_out = folds["fold"].to_numpy() == fold
    learnt, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if len(validation) < 1 or len(learnt) < 2:
        raise InputError(
            f"train: {data} leaves {len(learnt)} fields to learn from and {len(validation)} in fold {fold} "
            f"of {folds['fold'].max() + 1}; expected 2 and 1 at least"
        )
    return learnt, validation
