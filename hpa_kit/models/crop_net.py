"""The network that looks at one cell at a time: a crop and the cell's mask -> logits of the cell."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import Normalisation, StrideBy
from hpa_kit.models.cell_pooling import with_negative
from hpa_kit.models.field_net import FieldNet
from hpa_kit.models.pretrained import Weights

Neighbours = Literal["kept", "faded", "zeroed"]

# What is left of pixels outside the cell, once their field's mean is taken away.
FADED: dict[Neighbours, float] = {"kept": 1.0, "faded": 0.3, "zeroed": 0.0}
HIDDEN = 256


def two_layers(width: int, drop_rate: float = 0.0) -> nn.Sequential:
    """What reads the logits of 18 classes off the features of a cell, Negative being what these leave."""
    return nn.Sequential(
        nn.Dropout(drop_rate), nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, N_CLASSES - 1)
    )


class CropNet(FieldNet):
    """Crops of cells -> logits, by the average and the maximum of the feature maps and a two-layer head.

    That of Negative is not learnt: its probability is 1 − the largest of the others'. The competition's 1st
    place had such pooling and such a head.

    Args:
        backbone: timm model name.
        stride: input pixels per map pixel: 32, 16, 14 or 8.
        stride_by: see :class:`~hpa_kit.models.backbones.Backbone`.
        in_channels: 4 for red, green, blue, yellow; 3 leaves yellow out. Inputs may have 4 either way.
        mask_channel: give the backbone the cell's mask as one more channel.
        neighbours: what becomes of pixels outside the cell: ``kept``; ``faded`` to 0.3 of what they differ
            from their field's mean; ``zeroed``, which is that mean. With normalisation ``fixed`` ImageNet's
            mean takes its place.
        pretrained: None (random weights), path of the backbone's local weights, or ``"download"``.
        drop_rate: part of the pooled features dropped before the head while training.
        normalisation: ``field`` or ``fixed``; see :class:`~hpa_kit.models.Normaliser`.
        size: side of the crops that it learns from; None for any.

    Raises:
        InputError: the backbone is unknown, has no maps of that stride or none of crops of that side, or the
            weights do not fit.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        stride: int = 32,
        stride_by: StrideBy = "cut",
        *,
        in_channels: int = 4,
        mask_channel: bool = True,
        neighbours: Neighbours = "zeroed",
        pretrained: Weights = None,
        drop_rate: float = 0.0,
        normalisation: Normalisation = "field",
        size: int | None = None,
    ) -> None:
        super().__init__(
            backbone, stride, stride_by, in_channels, pretrained, normalisation, size, int(mask_channel)
        )
        self.mask_channel, self.outside = mask_channel, FADED[neighbours]
        self.head = two_layers(2 * self.n_features, drop_rate)

    def prepare(self, crops: Tensor, masks: Tensor | None = None, statistics: Tensor | None = None) -> Tensor:
        """Crops as the backbone sees them.

        Args:
            crops: uint8 or float 0–255 (B, 4 or in_channels, s, s).
            masks: (B, s, s), 1 in the cell; by default a crop is all cell.
            statistics: float (B, 2, 4 or in_channels), mean and spread of the crops' fields; by default their
                own.

        Returns:
            float (B, in_channels and one of the mask, s, s).
        """
        seen: Tensor = self.input(crops, statistics)
        inside = torch.ones_like(seen[:, :1]) if masks is None else masks[:, None].to(seen.dtype)
        if self.outside < 1:
            seen = seen * (self.outside + (1 - self.outside) * inside)
        return torch.cat([seen, inside], dim=1) if self.mask_channel else seen

    def classify(self, prepared: Tensor) -> Tensor:
        """Crops as :meth:`prepare` gives them -> logits float32 (B, 19)."""
        return self.classify_features(self.pooled(prepared))

    def pooled(self, prepared: Tensor) -> Tensor:
        """Crops as :meth:`prepare` gives them -> average and maximum of their maps (B, 2 x n_features)."""
        maps = self.backbone(prepared)
        return torch.cat([maps.mean((-2, -1)), maps.amax((-2, -1))], dim=1)

    def classify_features(self, pooled: Tensor) -> Tensor:
        """What :meth:`pooled` gives -> logits float32 (B, 19)."""
        return self.classify_embedded(self.head[:-1](pooled))

    def embed(self, prepared: Tensor) -> Tensor:
        """Crops as :meth:`prepare` gives them -> what their classes are told from, (B, 256), not below 0."""
        embedded: Tensor = self.head[:-1](self.pooled(prepared))
        return embedded

    def classify_embedded(self, embedded: Tensor) -> Tensor:
        """Embeddings of crops -> logits float32 (B, 19)."""
        return with_negative(functional.pad(self.head[-1](embedded).float(), (0, 1)))

    def cell_features(
        self, crops: Tensor, masks: Tensor | None = None, statistics: Tensor | None = None
    ) -> Tensor:
        """Crops -> one vector per cell, float32 (B, 2 x n_features), to be kept; see :meth:`prepare`."""
        return self.pooled(self.prepare(crops, masks, statistics)).float()

    def forward(self, crops: Tensor, masks: Tensor | None = None, statistics: Tensor | None = None) -> Tensor:
        """Crops -> logits float32 (B, 19); see :meth:`prepare`."""
        return self.classify(self.prepare(crops, masks, statistics))
