"""Networks that say what the protein of a field shows."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.models.arcface import ArcFaceNet, add_margin
    from hpa_kit.models.cam import CamClassifier, CamHeads
    from hpa_kit.models.crop_net import CropNet
    from hpa_kit.models.field_net import Normaliser, mean_logits
    from hpa_kit.models.losses import bce_loss, ce_loss, focal_loss
    from hpa_kit.models.sides import Sides
    from hpa_kit.models.subcell import SubCell, load_subcell
    from hpa_kit.models.unet import SegmentationNet

__getattr__ = lazy(__name__)
