"""What classifiers and feature networks share: fields, normalised, through a backbone to feature maps."""

import torch
from torch import Tensor, nn

from hpa_kit.config import Normalisation, StrideBy
from hpa_kit.errors import InputError
from hpa_kit.models.backbones import Backbone
from hpa_kit.models.pretrained import Weights
from hpa_kit.models.sides import Sides

# ImageNet's statistics; yellow takes those of blue, as the 15th-place solution does.
_MEAN = (0.485, 0.456, 0.406, 0.406)
_STD = (0.229, 0.224, 0.225, 0.225)
# Of 255: about the noise of a channel that shows nothing, which must not be blown up to a signal.
_MIN_SPREAD = 4.0
_NAMES = ("red", "green", "blue", "yellow")


class Normaliser(nn.Module):
    """Fields, uint8 or float 0–255 (B, 4 or in_channels, H, W) -> float (B, in_channels, H, W), normalised.

    Args:
        in_channels: 4 for red, green, blue, yellow; 3 leaves yellow out. Inputs may have 4 either way.
        normalisation: ``field`` gives each channel of each field its own mean and spread, so that a dim
            protein looks like a bright one (instance normalisation of the input, as the competition's 7th
            place did); ``fixed`` takes ImageNet's statistics for all, as the 15th place did; ``joint`` puts
            each field or crop between 0 and 1 over all its channels, as SubCell's authors did.

    Raises:
        InputError: ``in_channels`` is neither 3 nor 4.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int = 4, normalisation: Normalisation = "field") -> None:
        super().__init__()
        if in_channels not in (3, 4):
            raise InputError(f"in_channels: {in_channels} is not 3 (red, green, blue) or 4 (and yellow)")
        self.in_channels = in_channels
        self.normalisation = normalisation
        # Constants, so not part of the saved weights.
        self.register_buffer("mean", _per_channel(_MEAN[:in_channels]), persistent=False)
        self.register_buffer("std", _per_channel(_STD[:in_channels]), persistent=False)

    def forward(self, fields: Tensor, statistics: Tensor | None = None) -> Tensor:
        """Normalise a batch of fields.

        Args:
            fields: see above.
            statistics: float (B, 2, 4 or in_channels), mean and spread of each channel, for parts of fields;
                by default of what is given. ``fixed`` and ``joint`` look at none.

        Raises:
            InputError: the batch has another number of axes, or too few channels.
        """
        if fields.ndim != 4 or fields.shape[1] < self.in_channels:
            names = ", ".join(_NAMES[: self.in_channels])
            raise InputError(
                f"fields: input {tuple(fields.shape)} is not (B, {self.in_channels}, H, W); "
                f"the network reads {names}"
            )
        x = fields[:, : self.in_channels].to(self.mean.dtype)
        if self.normalisation == "joint":
            low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
            return (x - low) / (high - low + 1e-6)
        if self.normalisation == "field":
            if statistics is None:
                spread, mean = torch.std_mean(x, dim=(-2, -1), keepdim=True, correction=0)
            else:
                mean, spread = statistics[:, :, : self.in_channels, None, None].to(x.dtype).unbind(1)
            return (x - mean) / (spread + _MIN_SPREAD)
        return (x - self.mean) / self.std


class FieldNet(nn.Module):
    """Fields -> normalised -> feature maps; variants add what is read from these.

    Args:
        backbone: timm model name.
        stride: input pixels per map pixel: 32, 16, 14 or 8.
        stride_by: see :class:`~hpa_kit.models.backbones.Backbone`.
        in_channels: 4 for red, green, blue, yellow; 3 leaves yellow out. Inputs may have 4 either way.
        pretrained: None (random weights), path of the backbone's local weights, or ``"download"``.
        normalisation: ``field``, ``fixed`` or ``joint``; see :class:`Normaliser`.
        size: side of the fields that it learns from, None for any.
        further_channels: of the backbone's input, beside those of the fields.

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
        normalisation: Normalisation,
        size: int | None,
        further_channels: int = 0,
    ) -> None:
        super().__init__()
        self.input = Normaliser(in_channels, normalisation)
        channels = in_channels + further_channels
        self.backbone = Backbone(backbone, stride, stride_by, channels, pretrained, size)
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


def mean_logits(maps: Tensor) -> Tensor:
    """Class maps (B, classes, h, w) of any precision -> their means over positions, float32 (B, classes)."""
    return maps.float().mean(dim=(-2, -1))


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).mul(255).reshape(1, -1, 1, 1)
