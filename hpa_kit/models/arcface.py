"""A network that learns features by angles: the ArcFace head with sub-centres."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.classes import N_CLASSES
from hpa_kit.models.backbones import StrideBy
from hpa_kit.models.cam import mean_logits
from hpa_kit.models.contrast import Contrast
from hpa_kit.models.field_net import FieldNet
from hpa_kit.models.pretrained import Weights

EMBEDDING = 512
# The slope of the sine of an angle is infinite at cosines of ±1.
_LARGEST_COSINE = 1 - 1e-6


class ArcFaceNet(FieldNet):
    """Fields -> cosines between the field's embedding and its nearest sub-centre of each class.

    Mean feature -> linear to 512 -> batch norm -> cosine to every sub-centre, the largest per class. There is
    no 1×1 convolution and so no CAM: the network is a source of features to cluster, nothing more.

    Args:
        backbone, stride, stride_by, in_channels, pretrained, contrast, size: as in
            :class:`~hpa_kit.models.CamClassifier`.
        n_classes: location classes.
        n_centres: sub-centres per class.
        scale: factor of the cosines that :meth:`forward` gives.
        drop_rate: part of the feature channels dropped before the embedding while training.

    Source: Deng et al., ArcFace (2019), and Sub-center ArcFace (2020), here with several labels per field, as
    the 15th-place solution has it.
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
        contrast: Contrast = "field",
        n_centres: int = 3,
        scale: float = 30.0,
        size: int | None = None,
    ) -> None:
        super().__init__(backbone, stride, stride_by, in_channels, pretrained, contrast, size)
        self.drop = nn.Dropout(drop_rate)
        self.embed = nn.Linear(self.n_features, EMBEDDING)
        self.norm = nn.BatchNorm1d(EMBEDDING)
        self.centres = nn.Parameter(torch.empty(n_classes, n_centres, EMBEDDING))
        nn.init.xavier_uniform_(self.centres)
        self.scale = scale

    def forward_embedding(self, fields: Tensor) -> Tensor:
        """Fields -> embeddings (B, 512), not normed."""
        embedding: Tensor = self.embed(self.drop(mean_logits(self.forward_features(fields))))
        if self.training and len(embedding) == 1 and isinstance(self.norm, nn.BatchNorm1d):
            # A process's share of a last batch may be one field, which has no spread of its own.
            norm = self.norm
            return functional.batch_norm(
                embedding, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        normed: Tensor = self.norm(embedding)
        return normed

    def forward_cosines(self, fields: Tensor) -> Tensor:
        """Fields -> cosine to the nearest sub-centre of each class, float32 (B, n_classes) in [-1, 1]."""
        embedding = self.forward_embedding(fields)
        # Half precision has three digits, too few for angles.
        kind = embedding.device.type
        with torch.autocast("cpu" if kind == "meta" else kind, enabled=False):
            directions = functional.normalize(self.centres.float(), dim=-1).flatten(0, 1)
            cosines = functional.normalize(embedding.float(), dim=-1) @ directions.t()
        return cosines.unflatten(-1, self.centres.shape[:2]).amax(dim=-1)

    def forward(self, fields: Tensor) -> Tensor:
        """Fields -> scaled cosines, float32 (B, n_classes), without margin: the logits at inference."""
        return self.forward_cosines(fields) * self.scale


def add_margin(cosines: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Make it harder for the classes that a field shows: cos θ becomes cos(θ + margin).

    Beyond θ = π − margin, where that would rise again, cos θ − margin × sin(margin) goes on falling.

    Args:
        cosines: float (B, classes) in [-1, 1].
        targets: (B, classes) of zeros and ones.
        margin: in radians, 0 to π.

    Returns:
        float32 (B, classes); where the target is 0 the cosine itself.
    """
    cosines = cosines.float()
    inside = cosines.clamp(-_LARGEST_COSINE, _LARGEST_COSINE)
    sines = (1 - inside.square()).sqrt()
    moved = inside * math.cos(margin) - sines * math.sin(margin)
    fallback = cosines - margin * math.sin(margin)
    harder = torch.where(cosines > math.cos(math.pi - margin), moved, fallback)
    return torch.where(targets > 0, harder, cosines)
