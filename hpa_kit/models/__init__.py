"""Networks that say what the protein of a field shows."""

from hpa_kit.models.arcface import ArcFaceNet
from hpa_kit.models.cam import CamClassifier, CamOutput, mean_logits
from hpa_kit.models.losses import focal_loss

__all__ = ["ArcFaceNet", "CamClassifier", "CamOutput", "focal_loss", "mean_logits"]
