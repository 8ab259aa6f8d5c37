"""Networks that say what the protein of a field shows."""

from hpa_kit.models.arcface import ArcFaceNet, add_margin
from hpa_kit.models.cam import CamClassifier, CamHeads, CamOutput, mean_logits
from hpa_kit.models.losses import bce_loss, ce_loss, focal_loss
from hpa_kit.models.sides import Sides
from hpa_kit.models.unet import SegmentationNet

__all__ = [
    "ArcFaceNet",
    "CamClassifier",
    "CamHeads",
    "CamOutput",
    "SegmentationNet",
    "Sides",
    "add_margin",
    "bce_loss",
    "ce_loss",
    "focal_loss",
    "mean_logits",
]
