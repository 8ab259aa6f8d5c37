"""A head on kept features of cells: a bag of vectors -> logits of cells and, pooled, of their image."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.config import CellPooling
from hpa_kit.models.cell_pooling import pool_cells, with_negative
from hpa_kit.models.crop_net import two_layers


class CellHead(nn.Module):
    """Features of cells -> logits, by two layers behind the features' own mean and spread.

    Args:
        width: of the features.
        pooling: how an image's logits come from those of its cells.
        drop_rate: part of the features dropped while training.

    Attributes:
        mean, spread: float32 (width,), of the features learnt from; see :meth:`fit`.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int, pooling: CellPooling = "linear", drop_rate: float = 0.0) -> None:
        super().__init__()
        self.width, self.pooling = width, pooling
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.head = two_layers(width, drop_rate)

    def fit(self, mean: Tensor, spread: Tensor) -> None:
        """Take mean and spread of the features, float (width,); one that never differs stays as it is."""
        self.mean.copy_(mean)
        self.spread.copy_(torch.where(spread > 0, spread, 1.0))

    def cell_logits(self, features: Tensor) -> Tensor:
        """Features (..., width) -> logits of cells, float32 (..., 19)."""
        scaled = (features.float() - self.mean) / self.spread
        return with_negative(functional.pad(self.head(scaled).float(), (0, 1)))

    def forward(self, features: Tensor, there: Tensor | None = None) -> Tensor:
        """Bags of features (B, n, width) -> logits of images, float32 (B, 19).

        Args:
            features: of the cells of each image.
            there: bool (B, n), which of them there are; by default all.
        """
        if there is None:
            there = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        return with_negative(pool_cells(self.cell_logits(features), there, self.pooling))

    @torch.no_grad()
    def plain(self) -> nn.Sequential:
        """The same head on features as they are, their mean and spread worked into its first layer."""
        dropout, first = cast(nn.Dropout, self.head[0]), cast(nn.Linear, self.head[1])
        made = two_layers(self.width, dropout.p)
        made.load_state_dict(self.head.state_dict())
        weight = first.weight / self.spread
        made[1].weight.copy_(weight)  # type: ignore[operator]
        made[1].bias.copy_(first.bias - weight @ self.mean)  # type: ignore[operator]
        return made
