"""Networks that say what the protein of a field shows."""

from hpa_kit.models.arcface import ArcFaceNet
from hpa_kit.models.cam import CamClassifier, CamOutput, mean_logits
from hpa_kit.models.losses import bce_loss, ce_loss, focal_loss
from hpa_kit.models.unet import SegmentationNet

__all__ = [
    "ArcFaceNet",
    "CamClassifier",
    "CamOutput",
    "SegmentationNet",
    "bce_loss",
    "ce_loss",
    "focal_loss",
    "mean_logits",
]
