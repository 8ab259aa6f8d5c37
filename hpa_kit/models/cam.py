"""The classifier whose logits are the mean of its maps."""

from typing import NamedTuple

from torch import Tensor, nn

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import Normalisation, StrideBy
from hpa_kit.models.field_net import FieldNet, mean_logits
from hpa_kit.models.pretrained import Weights


class CamHeads(NamedTuple):
    """One forward pass with all that may be learnt from.

    Feature maps (B, n_features, h, w), raw class maps (B, classes, h, w), and those of the sub-categories
    (B, n_subcategories, h, w), which are None without that head.
    """

    features: Tensor
    maps: Tensor
    subcategory_maps: Tensor | None


class CamClassifier(FieldNet):
    """Fields -> logits, through class maps: logits are the mean over positions, the CAM is ReLU of the maps.

    The head is a bias-free 1×1 convolution after channel dropout, so nothing but the maps decides. A second
    such head for sub-categories may stand beside it on the same features: it shapes the features while they
    are learnt (SC-CAM, arXiv 2008.01183); maps, CAM and logits are always those of the location classes.

    Args:
        backbone: timm model name.
        stride: input pixels per map pixel: 32, 16, 14 or 8.
        stride_by: ``cut`` leaves out the last stages, ``dilate`` dilates them, ``both`` leaves out the last
            and dilates those before it.
        in_channels: 4 for red, green, blue, yellow; 3 leaves yellow out. Inputs may have 4 either way.
        n_classes: location classes.
        pretrained: None (random weights), path of the backbone's local weights, or ``"download"``: the only
            value with which a connection is opened.
        drop_rate: part of the feature channels dropped before the heads while training.
        normalisation: ``field`` or ``fixed``; see :class:`~hpa_kit.models.Normaliser`.
        n_subcategories: sub-categories of all classes together, such as 19 × 10; 0 makes no such head.
        size: side of the fields that it learns from, which a backbone of one side is made for; None for any.

    Raises:
        InputError: the backbone is unknown, has no maps of that stride or none of fields of that size, or the
            weights do not fit.
    """

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
        normalisation: Normalisation = "field",
        n_subcategories: int = 0,
        size: int | None = None,
    ) -> None:
        super().__init__(backbone, stride, stride_by, in_channels, pretrained, normalisation, size)
        self.stride = stride
        self.drop = nn.Dropout2d(drop_rate)
        self.head = _map_head(self.n_features, n_classes)
        self.subcategory_head = _map_head(self.n_features, n_subcategories) if n_subcategories else None

    def forward_heads(self, normalised: Tensor) -> CamHeads:
        """One forward pass of fields that ``self.input`` normalised, or of their tiles, through all heads."""
        features = self.backbone(normalised)
        kept = self.drop(features)
        subcategory_maps = None if self.subcategory_head is None else self.subcategory_head(kept)
        return CamHeads(features, self.head(kept), subcategory_maps)

    def forward_maps(self, fields: Tensor) -> Tensor:
        """Fields (B, 4 or in_channels, S, S) -> raw class maps (B, n_classes, h, w), before ReLU."""
        maps: Tensor = self.head(self.drop(self.forward_features(fields)))
        return maps

    def forward(self, fields: Tensor) -> Tensor:
        """Fields (B, 4 or in_channels, S, S) -> logits float32 (B, n_classes)."""
        return mean_logits(self.forward_maps(fields))


def _map_head(n_features: int, n_maps: int) -> nn.Conv2d:
    head = nn.Conv2d(n_features, n_maps, 1, bias=False)
    nn.init.xavier_uniform_(head.weight)
    return head
