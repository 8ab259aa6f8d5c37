"""The classifier whose logits are the mean of its maps."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.classes import N_CLASSES
from hpa_kit.errors import InputError
from hpa_kit.models.backbones import Backbone, StrideBy
from hpa_kit.models.pretrained import Weights

# ImageNet's statistics; yellow takes those of blue, as the 15th-place solution does.
_MEAN = (0.485, 0.456, 0.406, 0.406)
_STD = (0.229, 0.224, 0.225, 0.225)
# Of 255: about the noise of a channel that shows nothing, which must not be blown up to a signal.
_LEAST_SPREAD = 4.0

Contrast = Literal["field", "fixed"]


class CamOutput(NamedTuple):
    """One pass: raw class maps (B, classes, h, w) and their means, the logits float32 (B, classes)."""

    maps: Tensor
    logits: Tensor


class CamClassifier(nn.Module):
    """Fields -> logits, through class maps: logits are the mean over positions, the CAM is ReLU of the maps.

    The head is a bias-free 1×1 convolution after channel dropout, so nothing but the maps decides.

    Args:
        backbone: timm model name.
        stride: input pixels per map pixel: 32, 16 or 8.
        stride_by: ``cut`` leaves out the last stages, ``dilate`` dilates them.
        in_channels: 4 for red, green, blue, yellow; 3 leaves yellow out. Inputs may have 4 either way.
        n_classes: location classes.
        pretrained: None (random weights), path of the backbone's local weights, or ``"download"``: the only
            value with which a connection is opened.
        drop_rate: part of the feature channels dropped before the head while training.
        contrast: ``field`` gives each channel of each field its own mean and spread, so that a dim protein
            looks like a bright one (instance normalisation of the input, as the competition's 7th place did);
            ``fixed`` takes ImageNet's statistics for all, as the 15th place did.

    Raises:
        InputError: the backbone is unknown, has no maps of that stride, or the weights do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = "resnet50",
        stride: int = 32,
        stride_by: StrideBy = "cut",
        *,
        in_channels: int = 4,
        n_classes: int = N_CLASSES,
        pretrained: Weights = None,
        drop_rate: float = 0.0,
        contrast: Contrast = "field",
    ) -> None:
        super().__init__()
        if in_channels not in (3, 4):
            raise InputError(f"in_channels: {in_channels} is not 3 (red, green, blue) or 4 (and yellow)")
        self.in_channels = in_channels
        self.contrast = contrast
        self.backbone = Backbone(backbone, stride, stride_by, in_channels, pretrained)
        self.n_features = self.backbone.n_features
        self.drop = nn.Dropout2d(drop_rate)
        self.head = nn.Conv2d(self.n_features, n_classes, 1, bias=False)
        nn.init.xavier_uniform_(self.head.weight)
        # Constants, so not part of the saved weights.
        self.register_buffer("mean", _per_channel(_MEAN[:in_channels]), persistent=False)
        self.register_buffer("std", _per_channel(_STD[:in_channels]), persistent=False)

    def forward_features(self, fields: Tensor) -> Tensor:
        """Fields, uint8 or float 0–255 (B, 4 or in_channels, S, S) -> feature maps (B, n_features, h, w)."""
        if fields.ndim != 4 or fields.shape[1] < self.in_channels:
            raise ValueError(
                f"CamClassifier: input {tuple(fields.shape)} is not (B, {self.in_channels}, S, S)"
            )
        x = fields[:, : self.in_channels].to(self.mean.dtype)
        if self.contrast == "field":
            spread, mean = torch.std_mean(x, dim=(-2, -1), keepdim=True, correction=0)
            x = (x - mean) / (spread + _LEAST_SPREAD)
        else:
            x = (x - self.mean) / self.std
        features: Tensor = self.backbone(x)
        return features

    def forward_maps(self, fields: Tensor) -> Tensor:
        """Fields (B, 4 or in_channels, S, S) -> raw class maps (B, n_classes, h, w), before ReLU."""
        maps: Tensor = self.head(self.drop(self.forward_features(fields)))
        return maps

    def forward_both(self, fields: Tensor) -> CamOutput:
        """Maps and logits of one pass."""
        maps = self.forward_maps(fields)
        return CamOutput(maps, mean_logits(maps))

    def forward_cam(self, fields: Tensor) -> Tensor:
        """Fields -> CAM (B, n_classes, h, w): ReLU of the maps, not yet scaled."""
        return functional.relu(self.forward_maps(fields))

    def forward(self, fields: Tensor) -> Tensor:
        """Fields (B, 4 or in_channels, S, S) -> logits float32 (B, n_classes)."""
        return mean_logits(self.forward_maps(fields))


def mean_logits(maps: Tensor) -> Tensor:
    """Class maps (B, classes, h, w) of any precision -> their means over positions, float32 (B, classes)."""
    return maps.float().mean(dim=(-2, -1))


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).mul(255).reshape(1, -1, 1, 1)
