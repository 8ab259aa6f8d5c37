"""What networks are trained for: an objective per kind of network, imported when it is asked for."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.training.objectives.arcface import ArcFaceObjective
    from hpa_kit.training.objectives.base import Losses, Objective, objective_of
    from hpa_kit.training.objectives.cam import CamObjective, ForwardOutputs, LossTerm, Subcategories
    from hpa_kit.training.objectives.crops import CropObjective
    from hpa_kit.training.objectives.puzzle import Puzzle
    from hpa_kit.training.objectives.segmentation import SegmentationObjective

__getattr__ = lazy(__name__)
