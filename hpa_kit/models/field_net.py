"""A backbone that looks at fields: what classifiers and feature networks share."""

from torch import Tensor, nn

from hpa_kit.models.backbones import Backbone, StrideBy
from hpa_kit.models.contrast import Contrast, ContrastNorm
from hpa_kit.models.pretrained import Weights
from hpa_kit.models.sides import Sides


class FieldNet(nn.Module):
    """Fields -> normalised -> feature maps; variants add what is read from these.

    Args:
        backbone: timm model name.
        stride: input pixels per map pixel: 32, 16 or 8.
        stride_by: see :class:`~hpa_kit.models.backbones.Backbone`.
        in_channels: 4 for red, green, blue, yellow; 3 leaves yellow out. Inputs may have 4 either way.
        pretrained: None (random weights), path of the backbone's local weights, or ``"download"``.
        contrast: ``field`` or ``fixed``; see :class:`~hpa_kit.models.contrast.ContrastNorm`.
        size: side of the fields that it learns from, None for any.

    Raises:
        InputError: the backbone is unknown, has no maps of that stride or none of fields of that size, or the
            weights do not fit.
    """

    def __init__(
        self,
        backbone: str,
        stride: int,
        stride_by: StrideBy,
        in_channels: int,
        pretrained: Weights,
        contrast: Contrast,
        size: int | None,
    ) -> None:
        super().__init__()
        self.input = ContrastNorm(in_channels, contrast)
        self.backbone = Backbone(backbone, stride, stride_by, in_channels, pretrained, size)
        self.n_features = self.backbone.n_features

    @property
    def in_channels(self) -> int:
        """Channels that are read: 3 or 4."""
        return self.input.in_channels

    @property
    def sides(self) -> Sides:
        """Which sides of fields it takes."""
        return self.backbone.sides

    def forward_features(self, fields: Tensor) -> Tensor:
        """Fields, uint8 or float 0–255 (B, 4 or in_channels, S, S) -> feature maps (B, n_features, h, w)."""
        features: Tensor = self.backbone(self.input(fields))
        return features
