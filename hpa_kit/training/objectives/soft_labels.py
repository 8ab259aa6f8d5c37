"""Soft labels of cells: a classifier's cells learn the probabilities that an earlier ensemble gave them."""

import warnings
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.config import TrainSettings
from hpa_kit.data import PseudoLabels, read_pseudo_labels
from hpa_kit.errors import InputError
from hpa_kit.models import focal_loss
from hpa_kit.models.cell_pooling import cell_shares, mean_in_cells
from hpa_kit.training.cell_maps import warn_of_seen
from hpa_kit.training.objectives.base import Losses
from hpa_kit.training.objectives.cam import ForwardOutputs


class SoftLabels:
    """The cross-entropy of cell logits against the cells' probabilities, of all classes but Negative.

    A cell's share of the loss is the same in every field; cells that a crop left out have none.

    Args:
        rows: float (cells of all fields, 19) in [0, 1].
        first: int64 (fields + 1,), where the rows of each field begin, by its number.
    """

    def __init__(self, rows: Tensor, first: Tensor) -> None:
        self.rows, self.first = rows, first

    @classmethod
    def of(cls, settings: TrainSettings, ids: Sequence[str], device: torch.device) -> Self:
        """The soft labels that a run's settings name, of fields by their number.

        Raises:
            InputError: they cannot be read, or are no soft ones.
        """
        rows, first = soft_rows(settings, ids)
        return cls(torch.from_numpy(rows).to(device), torch.from_numpy(first).to(device))

    def targets(self, numbers: Tensor, n_cells: int) -> Tensor:
        """Numbers of fields (B,) -> probabilities (B, n, 19); rows beyond a field's cells say nothing."""
        if not len(self.rows):
            return self.rows.new_zeros((len(numbers), n_cells, N_CLASSES))
        rows = self.first[numbers][:, None] + torch.arange(n_cells, device=numbers.device)
        return self.rows[rows.clamp_max(len(self.rows) - 1)].float()

    def __call__(self, outputs: ForwardOutputs) -> Losses:
        cells, maps = outputs.batch.cells, outputs.heads.maps
        assert cells is not None
        shares = cell_shares(cells, (maps.shape[-2], maps.shape[-1]))
        there = shares.any(dim=2).flatten()
        logits = mean_in_cells(maps, shares)[..., :NEGATIVE].flatten(0, 1)
        targets = self.targets(outputs.batch.numbers, shares.shape[1])[..., :NEGATIVE].flatten(0, 1)
        # Of what is not there logit and target are far below 0 and 0, which costs nothing.
        logits = logits.masked_fill(~there[:, None], -1e4)
        loss = focal_loss(logits, targets * there[:, None], gamma=0) if len(logits) else maps.sum() * 0
        return {"soft": loss * len(there) / there.sum().clamp_min(1)}


def read_soft_labels(settings: TrainSettings) -> PseudoLabels:
    """The pseudo labels that a run's settings name, which are soft ones.

    Raises:
        InputError: the folder cannot be read, or holds hard labels.
    """
    assert settings.pseudo_labels is not None
    pseudo = read_pseudo_labels(settings.pseudo_labels, settings.masks)
    if not pseudo.soft:
        raise InputError(
            f"train: {settings.pseudo_labels} holds hard labels, from which network {settings.network} "
            "cannot learn; expected those of hpa-kit pseudo-labels --labels soft"
        )
    return pseudo


def soft_rows(settings: TrainSettings, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The soft labels of all cells, float32 (cells, 19), and where each field's begin, int64 (fields + 1,).

    Raises:
        InputError: the folder that the settings name cannot be read, or holds no soft labels.
    """
    assert settings.pseudo_labels is not None
    pseudo = read_soft_labels(settings)
    warn_of_seen(pseudo, ids, settings.pseudo_labels)
    lacking = [id for id in ids if id not in pseudo.scores]
    if len(lacking) == len(ids):
        raise InputError(f"train: {settings.pseudo_labels} has labels of none of the {len(ids)} fields")
    if lacking:
        warnings.warn(
            f"train: {len(lacking)} of {len(ids)} fields have no pseudo labels in {settings.pseudo_labels}, "
            f"such as ID {lacking[0]}; nothing is learnt from them",
            stacklevel=2,
        )
    none = np.zeros((0, N_CLASSES), np.float32)
    parts = [pseudo.scores.get(id, none) for id in ids]
    first = np.cumsum([0, *map(len, parts)])
    return np.concatenate([none, *parts]), first.astype(np.int64)
