"""Networks that find cells: they learn nuclei, cells and the borders between them from label maps."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.cells import MaskFolder
from hpa_kit.cells.dpn_unet import STRIDE
from hpa_kit.cells.label_step import FULL_SIDE, labels_of_maps
from hpa_kit.cells.matching import Matched, match_cells
from hpa_kit.cells.networks import NETWORK_SIDE
from hpa_kit.cells.published import network_maps
from hpa_kit.config import TrainSettings
from hpa_kit.data import labelled_fields
from hpa_kit.errors import InputError
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.cell_targets import BORDER, FOREGROUND, IGNORED
from hpa_kit.training.cell_windows import LabelledFields, WindowDataset
from hpa_kit.training.data import Batch, RunFields, TrainingData, load_batches, read_run_fields
from hpa_kit.training.log import Metrics
from hpa_kit.training.objectives.base import Losses, Objective
from hpa_kit.training.processes import Processes

log = logging.getLogger(__name__)

NETWORKS = ("nuclei", "cells")  # in the order of logits and targets
_MIN_WINDOWS = 32  # of an epoch: validating and keeping a checkpoint take as long as learning from some
# Weights of background, border and foreground in the cross-entropy. The label step takes pixels for nuclei
# from 0.4 of foreground on and for cells from about 0.25, so that with equal weights outlines would lie too
# far outside; and it parts nuclei only where hardly any foreground is left.
_WEIGHTS = {"nuclei": (1.5, 5.0, 1.0), "cells": (3.0, 2.0, 1.0)}

# Settings that such networks would not look at, and groups of such.
_OPTIONS = ("loss", "normalisation", "stride", "stride_by", "drop_rate", "threshold")
_IGNORED = (*_OPTIONS, "cells", "crops", "arcface")


def _default(name: str) -> Any:
    return TrainSettings.model_fields[name].get_default(call_default_factory=True)


def load_window_data(
    settings: TrainSettings, device: torch.device, processes: Processes | None = None
) -> TrainingData:
    """The batches of a run that learns to find cells: an epoch shows a window of each field with a label map.

    Of few fields it shows several, each time changed in another way, unless sampling is balanced.

    Args:
        settings: of the run; ``masks`` is set.
        device: where batches go.
        processes: that train together.

    Raises:
        InputError: as :func:`~hpa_kit.training.data.read_run_fields`; or label maps are damaged or of other
            sizes than their fields, or too few fields have one with a cell.
    """
    masks = _masks(settings)

    def labelled(folders: Mapping[str, Any], ids: Sequence[str], *_: object) -> LabelledFields:
        return LabelledFields(folders, ids, masks, settings.size, settings.cache, settings.in_channels)

    read = read_run_fields(settings, labelled)
    fields: Any = read.store

    def dataset(augmentation: Augmentation) -> WindowDataset:
        return WindowDataset(fields, augmentation)

    learnt = _with_cells(read, fields, settings)
    data = load_batches(settings, learnt, dataset, device, processes or Processes())
    return data._replace(contents={"masks": fields.checksum})


def _masks(settings: TrainSettings) -> MaskFolder:
    assert settings.masks is not None
    masks = MaskFolder(settings.masks)
    masks.check()
    return masks


def _with_cells(read: RunFields, fields: LabelledFields, settings: TrainSettings) -> RunFields:
    """The fields that have a label map, some of them a cell; numbers of windows for those to learn from.

    Raises:
        InputError: there are too few to learn from or to validate on.
    """
    train, validation = (numbers[fields.there[numbers]] for numbers in (read.train, read.validation))
    for numbers, least, what in ((train, 2, "to learn from"), (validation, 1, "to validate on")):
        with_cells = int(fields.has_cell[numbers].sum())
        if len(numbers) < least or not with_cells:
            raise InputError(
                f"train: {settings.masks} has label maps of {len(numbers)} fields {what} in fold "
                f"{settings.fold} of {settings.folds}, with cells in {with_cells}; expected {least} at "
                "least, with cells in one; take another fold, or other folds"
            )
    times = 1 if settings.sampling == "balanced" else math.ceil(_MIN_WINDOWS / len(train))
    windows = (train + len(fields.ids) * np.arange(times)[:, None]).ravel()
    return read._replace(train=windows, validation=validation)


class CellNetworksObjective(Objective):
    """Both networks' loss: cross-entropy of pixels, and the Dice of what is border and what is foreground.

    They are evaluated by the loss, and by the cells that the label step makes of what they say, against the
    true ones: ``cells_met``, the share of true cells that a found one meets at an IoU of 0.5 or more;
    ``cells_right``, the share of found ones that meet a true one; ``cells_iou``, the mean IoU of true cells.

    Args:
        model: gives logits (B, 2, 3, H, W), of nuclei and of cells.
        side: of 2048 px at the networks' scale.
    """

    load_data = staticmethod(load_window_data)

    def __init__(self, model: nn.Module, side: int = NETWORK_SIDE) -> None:
        super().__init__(model)
        self.side = side

    @classmethod
    def of(cls, settings: TrainSettings, model: nn.Module, fields: pd.DataFrame) -> Self:
        """The objective of a run; label maps stand in its batches."""
        return cls(model, settings.size)

    @classmethod
    def completed(cls, settings: TrainSettings) -> TrainSettings:
        """Settings as they are; those are refused that such networks cannot learn by, or would not look at.

        Raises:
            InputError: which, and why.
        """
        if settings.masks is None:
            raise InputError("train: network cells needs masks, a folder of label maps, which it learns")
        if settings.pseudo_labels is not None:
            raise InputError(
                "train: network cells learns where cells are, not what they show: leave pseudo_labels out"
            )
        ignored = [name for name in _IGNORED if getattr(settings, name) != _default(name)]
        if ignored:
            raise InputError(
                f"train: network cells has a loss and inputs of its own, so {ignored[0]} would change "
                "nothing; leave it out"
            )
        if settings.store is not None:
            raise InputError(
                "train: network cells looks at another scale than a store's fields: leave store out"
            )
        if settings.size % STRIDE or settings.size > FULL_SIDE:
            near = min(max(settings.size // STRIDE, 1) * STRIDE, FULL_SIDE)
            raise InputError(
                f"train: network cells needs a size that is a multiple of {STRIDE}, {FULL_SIDE} at most, "
                f"found {settings.size}; take {near}"
            )
        return settings

    @classmethod
    def check(cls, settings: TrainSettings) -> None:
        """Some fields have label maps; of how many there are none is said."""
        masks = _masks(settings)
        ids = labelled_fields(settings).table["ID"].tolist()
        missing = [id for id in ids if not masks.has(id)]
        if len(missing) == len(ids):
            raise InputError(
                f"masks: {settings.masks} has no label map of any of the {len(ids)} fields of "
                f"{settings.data}, such as ID {ids[0]}; hpa-kit segment makes them, of training fields with "
                "--split train"
            )
        if missing:
            log.warning(
                f"train: {len(missing)} of {len(ids)} fields have no label map in {settings.masks}, such as "
                f"ID {missing[0]}; left out"
            )

    def losses(self, batch: Batch, progress: float) -> Losses:
        """The loss of each network."""
        return self._losses(self.model(batch.fields), batch.targets)

    def _losses(self, logits: Tensor, targets: Tensor) -> Losses:
        return {
            name: pixel_loss(logits[:, place], targets[:, place], _WEIGHTS[name])
            for place, name in enumerate(NETWORKS)
        }

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Metrics:
        """The mean loss of validation windows, and how well the true cells in them are met."""
        total, windows = 0.0, 0
        matched = Matched(np.zeros(0), np.zeros(0))
        for batch in batches:
            logits = model(batch.fields).float()
            total += float(sum(self._losses(logits, batch.targets).values())) * len(logits)
            windows += len(logits)
            assert batch.cells is not None
            maps = (network_maps(logits[:, place]) for place in range(len(NETWORKS)))
            known = (batch.targets[:, 1] != IGNORED).cpu().numpy()
            for nuclei, cells, true, inside in zip(*maps, batch.cells.cpu().numpy(), known, strict=True):
                found = labels_of_maps(nuclei, cells, (self.side / FULL_SIDE) ** 2)[1]
                matched += match_cells(true, np.where(inside, found, 0))
        shares = {"cells_met": matched.met, "cells_right": matched.right, "cells_iou": matched.iou}
        # Of no cells there is no share: before anything is learnt none may be found.
        return {"val_loss": total / windows, **{name: float(np.nan_to_num(n)) for name, n in shares.items()}}


def pixel_loss(logits: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """Cross-entropy of pixels plus 1 minus the mean Dice of border and foreground, over a batch.

    Args:
        logits: (B, 3, H, W).
        targets: uint8 (B, H, W), see :func:`~hpa_kit.training.cell_targets.network_target`.
        weights: of background, border and foreground in the cross-entropy.
    """
    logits, targets = logits.float(), targets.long()
    known = targets != IGNORED
    entropy = functional.cross_entropy(logits, targets, logits.new_tensor(weights), ignore_index=IGNORED)
    shares = logits.softmax(1) * known[:, None]
    overlaps = []
    for kind in (BORDER, FOREGROUND):
        true = (targets == kind).float()
        given = shares[:, kind]
        # 1 where neither is anything: a batch without borders says nothing of them.
        overlaps.append((2 * (given * true).sum() + 1) / (given.sum() + true.sum() + 1))
    return torch.nan_to_num(entropy) + 1 - torch.stack(overlaps).mean()
