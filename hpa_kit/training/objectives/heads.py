"""Heads on kept features of cells: bags of vectors, the loss of their images' labels, and the member."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpa_kit.classes import NEGATIVE, multi_hot, parse_label
from hpa_kit.config import TrainSettings
from hpa_kit.data import DataFolder, find_folds, read_labels, write_folds
from hpa_kit.data.external import PLACEHOLDER_LINE
from hpa_kit.errors import InputError
from hpa_kit.models import focal_loss
from hpa_kit.models.cell_head import CellHead
from hpa_kit.models.losses import FOCAL_GAMMA
from hpa_kit.training.cell_features_file import CellFeatures, read_cell_features
from hpa_kit.training.data import Batch, EpochBatches, Loader, TrainingData, balanced_weights, batch_size
from hpa_kit.training.objectives.base import Losses, Objective
from hpa_kit.training.processes import Processes
from hpa_kit.training.run_folder import FOLDS, find_start

ENCODER = "encoder.safetensors"  # beside a head's checkpoint, where what its settings name is not there
_ROWS = 50_000  # of which mean and spread are summed at once


def head_folds(settings: TrainSettings) -> pd.DataFrame:
    """Tell the folds of a run of kept features, as any run has them; no image is looked for.

    Raises:
        InputError: as :func:`~hpa_kit.training.data.run_folds`.
    """
    labels = read_labels(DataFolder(settings.data).labels())
    if labels.empty:
        raise InputError(f"data: {DataFolder(settings.data).labels()} has no row; expected one per field")
    table = labels.assign(Cellline=PLACEHOLDER_LINE, External=False)
    found = find_start(settings).folds
    return find_folds(found, table, settings.folds, settings.seed, settings.folds_of)


@lru_cache(maxsize=1)  # a run asks for its vectors' mean, spread and batches
def _features(path: Path, _: int) -> CellFeatures:
    return read_cell_features(path)


def features_of(settings: TrainSettings) -> CellFeatures:
    """The kept features that a run learns from.

    Raises:
        InputError: as :func:`~hpa_kit.training.cell_features_file.read_cell_features`.
    """
    assert settings.features is not None
    path = settings.features
    return _features(path, path.stat().st_mtime_ns if path.exists() else 0)


def build_head(settings: TrainSettings, width: int | None = None) -> CellHead:
    """The head that settings describe, for vectors of a width; by default of those of its features."""
    if width is None:
        width = features_of(settings).values.shape[1]
    return CellHead(width, settings.cells.how, settings.drop_rate)


def load_head_data(
    settings: TrainSettings, device: torch.device, processes: Processes | None = None
) -> TrainingData:
    """The batches of a run of kept features: bags of vectors, one per image that has a cell.

    Raises:
        InputError: labels or features cannot be read, a labelled field has none, or too few are left.
    """
    processes = processes or Processes()
    folds, features = head_folds(settings), features_of(settings)
    if find_start(settings).folds != settings.out / FOLDS:
        write_folds(settings.out / FOLDS, folds)
    place = {id: number for number, id in enumerate(features.ids)}
    lacking = [id for id in folds["ID"] if id not in place]
    if lacking:
        raise InputError(
            f"features: {settings.features} lacks {len(lacking)} of {len(folds)} labelled fields, such as ID "
            f"{lacking[0]}; make it of all, or take their rows out of train.csv"
        )
    bags = Bags(features, np.array([place[id] for id in folds["ID"]]), _targets(folds))
    chosen = folds["fold"].to_numpy() == settings.fold
    with_cells = bags.counts > 0
    train, validation = np.flatnonzero(~chosen & with_cells), np.flatnonzero(chosen & with_cells)
    if len(validation) < 1 or len(train) < 2:
        raise InputError(
            f"train: {settings.features} leaves {len(train)} fields with cells to learn from and "
            f"{len(validation)} in fold {settings.fold}; expected 2 and 1 at least"
        )
    weights = None
    if settings.sampling == "balanced":
        weights = balanced_weights(bags.targets[train], settings.sampling_clip)
    batch = batch_size(settings, len(train))
    learnt = EpochBatches(train, batch, settings.seed, processes.rank, processes.world, weights)
    content = hashlib.sha256(repr((features.source, features.stamps)).encode()).hexdigest()
    return TrainingData(
        BagLoader(bags, learnt, device),
        BagLoader(bags, EpochBatches(validation, batch, None), device),
        folds,
        {"features": content},
    )


def _targets(folds: pd.DataFrame) -> NDArray[np.float32]:
    return multi_hot(parse_label(label) for label in folds["Label"])


class Bags:
    """The vectors of fields, by the fields' number in a run.

    Args:
        features: of all fields.
        places: int64 (fields,), where each is among them.
        targets: float32 (fields, 19), image labels.

    Attributes:
        counts: int64 (fields,), cells of each.
    """

    def __init__(
        self, features: CellFeatures, places: NDArray[np.int64], targets: NDArray[np.float32]
    ) -> None:
        self._values, self.targets = features.values, targets
        self.counts = features.counts[places]
        self._starts = features.starts[places]

    def batch(self, numbers: list[int]) -> Batch:
        """Fields by number: vectors float16 (B, n, d), labels, and which cells there are, bool (B, n)."""
        counts = self.counts[numbers]
        values = np.zeros((len(numbers), int(counts.max(initial=1)), self._values.shape[1]), np.float16)
        for row, number, count in zip(values, numbers, counts.tolist(), strict=True):
            start = self._starts[number]
            row[:count] = self._values[start : start + count]
        there = values.any(axis=2)  # a cell that no pixel shows is 0
        return Batch(
            torch.from_numpy(values),
            torch.from_numpy(self.targets[numbers]),
            torch.tensor(numbers),
            torch.from_numpy(there),
        )

    def mean_and_spread(self, numbers: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Of the vectors of all cells of some fields, float32 (d,) each."""
        rows = np.concatenate(
            [np.arange(self._starts[k], self._starts[k] + self.counts[k]) for k in numbers.tolist()]
        )
        parts = [self._values[rows[k : k + _ROWS]].astype(np.float64) for k in range(0, len(rows), _ROWS)]
        mean = sum(part.sum(axis=0) for part in parts) / len(rows)
        square = sum(((part - mean) ** 2).sum(axis=0) for part in parts) / len(rows)
        return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(square)).float()


class BagLoader(Loader):
    """Gives the bags of any epoch, on the device.

    Args:
        bags: of all fields.
        batches: which of them make up a batch.
        device: where the batches go.
    """

    def __init__(self, bags: Bags, batches: EpochBatches, device: torch.device) -> None:
        self.bags, self.batches, self.device = bags, batches, device

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the ``first`` on; the same numbers give the same batches."""
        self.batches.epoch, self.batches.first = epoch, first
        for draws in self.batches:
            yield self.bags.batch([draw.number for draw in draws]).to(self.device)


class HeadObjective(Objective):
    """The focal loss of image labels against what the image's cells show, pooled; Negative is not learnt.

    Args:
        model: the head.
        gamma: of the focal loss; 0 is cross-entropy.
    """

    load_data = staticmethod(load_head_data)
    fields = staticmethod(head_folds)
    model: CellHead

    def __init__(self, model: CellHead, gamma: float = FOCAL_GAMMA) -> None:
        super().__init__(model)
        self.gamma = gamma

    @classmethod
    def completed(cls, settings: TrainSettings) -> TrainSettings:
        """Take what gave the features for the encoder, unless it is given.

        Raises:
            InputError: as :func:`features_of`.
        """
        assert settings.features is not None
        if settings.encoder_sha256 is not None:  # as the start of the run found it
            return settings
        where = read_cell_features(settings.features, values=False).encoder
        found = {"encoder": settings.encoder or Path(where["path"]), "encoder_sha256": where["sha256"]}
        return settings.model_copy(update=found)

    @classmethod
    def of(cls, settings: TrainSettings, model: CellHead, fields: pd.DataFrame) -> Self:
        """The objective of a run; the head takes mean and spread of the vectors that it learns from."""
        features = features_of(settings)
        place = {id: number for number, id in enumerate(features.ids)}
        bags = Bags(features, np.array([place[id] for id in fields["ID"]]), _targets(fields))
        learnt = (fields["fold"].to_numpy() != settings.fold) & (bags.counts > 0)
        model.fit(*bags.mean_and_spread(np.flatnonzero(learnt)))
        return cls(model, FOCAL_GAMMA if settings.loss == "focal" else 0.0)

    def losses(self, batch: Batch, progress: float) -> Losses:
        """The loss of a batch's images."""
        return {"focal": self.validation_loss(self.model(batch.fields, batch.cells), batch.targets)}

    def validation_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of 18 classes; Negative is what these leave."""
        return focal_loss(logits[:, :NEGATIVE], targets[:, :NEGATIVE], self.gamma)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """What a head says of a batch's images."""
        said: Tensor = model(batch.fields, batch.cells)
        return said


def joined(settings: TrainSettings, weights: dict[str, Tensor], file: Path) -> tuple[Any, TrainSettings]:
    """A head behind its encoder, a network of crops or SubCell, and the settings of what both are.

    Args:
        settings: of the head's run.
        weights: of the head.
        file: its checkpoint.

    Raises:
        InputError: the encoder is not where the settings say, nor beside the checkpoint, or is another one.
    """
    from hpa_kit.training.cell_features import load_encoder
    from hpa_kit.training.member import load_weights

    head = build_head(settings, weights["mean"].shape[0] if "mean" in weights else 1)
    load_weights(head, weights, file)
    beside = file.with_name(ENCODER)
    path = next((one for one in (beside, settings.encoder) if one is not None and one.exists()), None)
    if path is None:
        raise InputError(
            f"checkpoint: {file} is a head on features of {settings.encoder}, which is not there; put that "
            f"checkpoint beside it as {ENCODER}"
        )
    encoder = load_encoder(path)
    if encoder.sha256 != settings.encoder_sha256:
        raise InputError(
            f"checkpoint: {file} is a head on features of another encoder than {path} is now; give that one "
            f"as {beside}, or make features and head anew"
        )
    model = encoder.model
    model.head = head.plain()
    own = ("data", "out", "fold", "folds", "folds_of", "seed", "features", "encoder", "encoder_sha256")
    changes = {name: getattr(settings, name) for name in own[:6]} | dict.fromkeys(own[6:])
    return model, encoder.settings.model_copy(update=changes)
