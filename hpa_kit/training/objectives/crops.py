"""Single cells: crops cut out of resized fields, what each cell shows, and the loss that it is learnt by."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from hpa_kit.cells import MaskFolder
from hpa_kit.cells.crops import centres, cut_crops, field_statistics, fitting_side
from hpa_kit.cells.regions import cell_geometry
from hpa_kit.cells.resize import resized
from hpa_kit.classes import NEGATIVE
from hpa_kit.config import TrainSettings
from hpa_kit.data import FieldStore, labelled_fields, read_pseudo_labels
from hpa_kit.devices import cpus
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, attempt
from hpa_kit.models import CropNet, focal_loss
from hpa_kit.models.losses import FOCAL_GAMMA
from hpa_kit.models.sides import on_meta
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.cell_maps import CellMaps, cell_maps_of, check_label_maps
from hpa_kit.training.data import (
    Batch,
    Draw,
    EpochBatches,
    Loader,
    Row,
    RunFields,
    TrainingData,
    balanced_weights,
    batch_size,
    read_run_fields,
)
from hpa_kit.training.member import build_network
from hpa_kit.training.objectives.base import Losses, Objective
from hpa_kit.training.processes import Processes

_MEASURED = 400  # fields whose label maps tell how large cells are
_LARGEST_BATCH = 64  # crops
_SHOWN = 0.5  # of a soft label: the class counts as one of the cell's
_MIXING = 0.4  # both parameters of the Beta distribution of mixed shares


class CellTable(NamedTuple):
    """All cells of a run's fields that have a pixel at the fields' size.

    Attributes:
        field: int64 (N,), the number of the field; number: of the cell in its label map.
        at: int64 (N, 2), y and x of the middle of the cell's box.
        targets: float32 (N, 19), what the cell shows.
    """

    field: NDArray[np.int64]
    number: NDArray[np.int64]
    at: NDArray[np.int64]
    targets: NDArray[np.float32]

    def of_fields(self, fields: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the cells of some fields."""
        return np.flatnonzero(np.isin(self.field, fields))


def load_crop_data(
    settings: TrainSettings, device: torch.device, processes: Processes | None = None
) -> TrainingData:
    """The batches of a run that looks at single cells: every cell once in an epoch.

    Folds are of fields. A batch has crops as its fields and the cells' masks as its label maps.

    Args:
        settings: of the run, with a side of the crops.
        device: where batches go.
        processes: that train together.

    Raises:
        InputError: as :func:`~hpa_kit.training.data.read_run_fields`; or label maps or pseudo labels are
            missing, damaged, or do not belong together; or there are too few cells.
    """
    processes = processes or Processes()
    fields = read_run_fields(settings)
    ids = fields.folds["ID"].tolist()
    maps = cell_maps_of(settings, ids)
    table = _cell_table(settings, fields, maps)
    train, validation = table.of_fields(fields.train), table.of_fields(fields.validation)
    if len(train) < 2 or len(validation) < 1:
        raise InputError(
            f"train: {len(train)} cells to learn from and {len(validation)} to validate on; expected 2 and 1 "
            "at least: the label maps have no more"
        )
    weights = None
    if settings.sampling == "balanced":
        shown = table.targets[train] >= _SHOWN
        shown[:, NEGATIVE] |= ~shown.any(axis=1)
        weights = balanced_weights(shown.astype(np.float32), settings.sampling_clip)
    batch = batch_size(settings, len(train), _LARGEST_BATCH)
    # Where the CPU trains on fields in memory, processes that read would only take its time.
    idle = fields.store.in_memory and device.type == "cpu"
    workers = processes.workers(0 if idle else settings.workers)
    side = settings.crops.side
    assert side is not None

    def loader(augmentation: Augmentation, batches: EpochBatches) -> Loader:
        dataset = CropDataset(fields.store, maps, table, side, augmentation)
        return Loader(dataset, batches, workers, device)

    return TrainingData(
        loader(
            Augmentation(settings.augmentation),
            EpochBatches(train, batch, settings.seed, processes.rank, processes.world, weights),
        ),
        loader(Augmentation(0), EpochBatches(validation, batch, None)),
        fields.folds,
        {"masks" if settings.pseudo_labels is None else "pseudo_labels": _checksum(maps, table)},
    )


def _cell_table(settings: TrainSettings, fields: RunFields, maps: CellMaps) -> CellTable:
    """All cells: where they are, and what they show by soft labels or, without, by their image's labels."""
    numbers = range(len(maps.ids))
    with ThreadPoolExecutor(cpus(), "cells") as pool:
        places = list(pool.map(lambda number: centres(maps[number]), numbers))
    counts = [len(at) for at in places]
    field = np.repeat(np.arange(len(places)), counts)
    cell = np.concatenate([np.arange(1, count + 1) for count in counts])
    if settings.pseudo_labels is None:
        targets = fields.targets[field]
    else:
        from hpa_kit.training.objectives.soft_labels import soft_rows

        rows, first = soft_rows(settings, maps.ids)
        targets = rows[first[field] + cell - 1].astype(np.float32)
        targets[:, NEGATIVE] = 1 - targets[:, :NEGATIVE].max(axis=1, initial=0)
    at = np.concatenate([np.zeros((0, 2), np.int64), *places])
    there = at[:, 0] >= 0
    return CellTable(field[there], cell[there], at[there], targets[there])


def _checksum(maps: CellMaps, table: CellTable) -> str:
    """A text that changes where a label map or a soft label does."""
    return hashlib.sha256(maps.checksum.encode() + table.targets.tobytes()).hexdigest()


class CropDataset(Dataset[Row]):
    """Crops, what their cells show, masks and statistics of their fields, by :class:`Draw` of a cell.

    Args:
        store: all fields.
        maps: their label maps.
        table: all cells.
        side: of the crops in pixels.
        augmentation: how a crop and its mask are changed.
    """

    def __init__(
        self, store: FieldStore, maps: CellMaps, table: CellTable, side: int, augmentation: Augmentation
    ) -> None:
        self.store, self.maps, self.table = store, maps, table
        self.side, self.augmentation = side, augmentation
        # In order, as validation goes, cells of one field follow one another.
        self._last: tuple[int, NDArray[np.uint8], NDArray[np.integer]] = (
            -1,
            np.empty(0, np.uint8),
            np.empty(0, np.int32),
        )
        self._statistics: dict[int, NDArray[np.float32]] = {}

    def __getitem__(self, draw: Draw) -> Row:
        row = draw.number
        field, cells, statistics = self._field(int(self.table.field[row]))
        pixels, masks = cut_crops(
            field, cells, self.table.number[row : row + 1], self.table.at[row : row + 1], self.side
        )
        crop = np.ascontiguousarray(pixels[0].transpose(1, 2, 0))
        image, mask = self.augmentation(crop, draw.seed, mask=masks[0])
        return image, self.table.targets[row], row, mask, statistics

    def _field(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.integer], NDArray[np.float32]]:
        """Planes of a field, its label map and its statistics."""
        if self._last[0] != number:
            self._last = number, self.store[number].transpose(2, 0, 1), self.maps[number]
        _, field, cells = self._last
        if number not in self._statistics:
            self._statistics[number] = field_statistics(field)
        return field, cells, self._statistics[number]


class CropObjective(Objective):
    """The loss of cells' logits of 18 classes, against soft labels or the labels of their images.

    Negative is what the others leave, so nothing is learnt of it. An image's label is true of some of its
    cells only: a cell is surely without the classes that the image lacks, and weakly with those it has. So
    positives from image labels count ``image_weight`` of what negatives do, as the competition's 2nd place
    had it; soft labels count whole.

    Args:
        model: the network.
        gamma: of the focal loss; 0 is cross-entropy.
        positives: weight of positives.
        mix: crops of a batch are mixed with one another: ``mixup`` adds two, ``cutmix`` puts a window of one
            into the other; targets are mixed by the same share.
    """

    load_data = staticmethod(load_crop_data)
    model: CropNet

    def __init__(
        self, model: CropNet, gamma: float = FOCAL_GAMMA, positives: float = 1.0, mix: str = "none"
    ) -> None:
        super().__init__(model)
        self.gamma, self.positives, self.mix = gamma, positives, mix

    @classmethod
    def completed(cls, settings: TrainSettings) -> TrainSettings:
        """Choose the side of the crops: what holds nine in ten cells, or the nearest that the network takes.

        Raises:
            InputError: label maps cannot be read, or the backbone takes no crops.
        """
        if settings.crops.side is not None:
            return settings
        side = fitting_side(_boxes(settings))

        def network(chosen: int | None) -> CropNet:
            bare = {"pretrained": None, "warm_start": None, "crop_size": chosen}
            return cast(CropNet, on_meta(lambda: build_network(settings.model_copy(update=bare))))

        try:
            network(side)
        except InputError:
            side = network(None).sides.nearest(side)
        return settings.model_copy(update={"crop_size": side})

    @classmethod
    def of(cls, settings: TrainSettings, model: CropNet, fields: pd.DataFrame) -> Self:
        """The objective of a run; labels of cells stand in its batches."""
        positives = settings.crops.image_weight if settings.pseudo_labels is None else 1.0
        return cls(model, FOCAL_GAMMA if settings.loss == "focal" else 0.0, positives, settings.crops.mix)

    def losses(self, batch: Batch, progress: float) -> Losses:
        """The loss of a batch's cells, mixed or not."""
        prepared = self.model.prepare(batch.fields, batch.cells, batch.statistics)
        targets = batch.targets
        if self.mix != "none":
            prepared, targets = mixed(prepared, targets, self.mix)
        return {"cells": self.cell_loss(self.model.classify(prepared), targets)}

    @classmethod
    def check(cls, settings: TrainSettings) -> None:
        """Label maps are there, and soft labels are soft ones."""
        check_label_maps(settings)
        if settings.pseudo_labels is not None:
            from hpa_kit.training.objectives.soft_labels import read_soft_labels

            read_soft_labels(settings)

    def cell_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, 19) against targets (B, 19) in [0, 1]."""
        logits, targets = logits[:, :NEGATIVE].float(), targets[:, :NEGATIVE].float()
        if self.positives == 1:
            return focal_loss(logits, targets, self.gamma, soft=True)
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        surely = (targets - logits.sigmoid()).abs() ** self.gamma if self.gamma else 1.0
        weights = 1 + (self.positives - 1) * targets
        return (weights * losses * surely).sum(dim=1).mean()

    def validation_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As what is learnt, of crops that are not mixed."""
        return self.cell_loss(logits, targets)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Of crops with their masks and the statistics of their fields."""
        said: Tensor = model(batch.fields, batch.cells, batch.statistics)
        return said


def mixed(crops: Tensor, targets: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """Mix crops (B, C, s, s), and their targets (B, 19), with others of the batch.

    One share of Beta(0.4, 0.4) and one order per batch, drawn by torch's generator, which a resumed run
    continues. Sources: Zhang et al., mixup (2017); Yun et al., CutMix (2019).
    """
    share = float(torch.distributions.Beta(_MIXING, _MIXING).sample())
    order = torch.randperm(len(crops)).to(crops.device)
    if how == "mixup":
        crops = share * crops + (1 - share) * crops[order]
    else:
        height, width = crops.shape[-2:]
        part = (1 - share) ** 0.5
        tall, wide = round(part * height), round(part * width)
        top, left = int(torch.randint(height - tall + 1, ())), int(torch.randint(width - wide + 1, ()))
        inside = torch.zeros((height, width), dtype=torch.bool, device=crops.device)
        inside[top : top + tall, left : left + wide] = True
        crops = torch.where(inside, crops[order], crops)
        share = 1 - tall * wide / (height * width)
    return crops, share * targets + (1 - share) * targets[order]


def _boxes(settings: TrainSettings) -> NDArray[np.int64]:
    """The larger sides of cells' boxes at the fields' size, of some hundred fields that are labelled.

    Raises:
        InputError: of a field there is no label map, or a damaged one.
    """
    if settings.pseudo_labels is None:
        assert settings.masks is not None
        ids, folders = sorted(labelled_fields(settings).table["ID"]), [settings.masks]
    else:
        pseudo = read_pseudo_labels(settings.pseudo_labels, settings.masks)
        ids, folders = sorted(pseudo.scores), list(pseudo.masks)
    known = [MaskFolder(folder) for folder in folders]
    for one in known:
        one.check()
    some = [ids[k] for k in np.unique(np.linspace(0, len(ids) - 1, min(len(ids), _MEASURED)).astype(int))]

    def larger_sides(id: str) -> NDArray[np.int64]:
        folder = next((one for one in known if one.has(id)), known[-1])
        measured = cell_geometry(resized(folder.read_cells(id), (settings.size, settings.size)))
        sides = (measured.box[:, 2:] - measured.box[:, :2]).max(axis=1, initial=0)
        return np.asarray(sides[measured.area > 0])

    with ThreadPoolExecutor(cpus(), "label maps") as pool:
        found = list(pool.map(lambda id: attempt(larger_sides, id), some))
    failed = [one.reason for one in found if isinstance(one, Failure)]
    if failed:
        raise InputError(f"train: label maps of {len(failed)} of {len(some)} fields: {failed[0]}")
    good = [one for one in found if not isinstance(one, Failure)]
    return np.concatenate([np.zeros(0, np.int64), *good])
