"""What networks are trained for."""

import logging
import math

import pandas as pd
import torch
from torch import nn

from hpa_kit.config import TrainSettings
from hpa_kit.models import ArcFaceNet, CamClassifier
from hpa_kit.training.objectives.arcface import ArcFaceObjective
from hpa_kit.training.objectives.base import Losses, Objective
from hpa_kit.training.objectives.cam import CamObjective, Pass, Subcategories, Term, classification
from hpa_kit.training.objectives.puzzle import Puzzle
from hpa_kit.training.objectives.segmentation import SegmentationObjective
from hpa_kit.training.subcategory_table import read_subcategories

log = logging.getLogger(__name__)

__all__ = [
    "ArcFaceObjective",
    "CamObjective",
    "Losses",
    "Objective",
    "Pass",
    "Puzzle",
    "SegmentationObjective",
    "Subcategories",
    "Term",
    "classification",
    "make_objective",
    "no_fields",
]


def make_objective(settings: TrainSettings, model: nn.Module, fields: pd.DataFrame) -> Objective:
    """The objective that settings describe.

    Args:
        settings: of the run.
        model: the network that they describe, where it is trained.
        fields: columns ID and Label of the fields by their number, as
            :attr:`~hpa_kit.training.dataset.Batch.numbers` counts them.

    Raises:
        InputError: the table of sub-categories cannot be read or does not fit the fields' labels.
    """
    if isinstance(model, CamClassifier):
        return CamObjective(model, _terms(settings, model, fields))
    if isinstance(model, ArcFaceNet):
        return ArcFaceObjective(
            model, settings.arcface_margin, settings.arcface_loss, settings.arcface_plain_weight
        )
    return SegmentationObjective(model)


def _terms(settings: TrainSettings, model: CamClassifier, fields: pd.DataFrame) -> list[Term]:
    """Classification, then sub-categories from round 1 on, then the puzzle where it is asked for."""
    terms: list[Term] = [classification]
    subcategories = None
    if settings.subcategories is not None:
        table = read_subcategories(settings.subcategories)
        numbers = torch.from_numpy(table.of_fields(fields)).to(model.head.weight.device)
        subcategories = Subcategories(numbers, table.k, settings.subcategory_weight)
        terms.append(subcategories)
    if settings.puzzle != "off":
        tile = settings.size // math.isqrt(settings.puzzle_tiles)
        if not model.sides.takes(tile):
            log.info(
                f"puzzle: {settings.backbone} takes no tiles of {tile} px; they are looked at at "
                f"{model.sides.nearest(tile)} px"
            )
        terms.append(
            Puzzle(
                settings.puzzle_tiles,
                settings.puzzle,
                settings.puzzle_weight,
                settings.puzzle_tile_weight,
                settings.puzzle_masked,
                subcategories if settings.puzzle_subcategories else None,
            )
        )
    return terms


def no_fields() -> pd.DataFrame:
    """A table ID, Label without rows, for an objective that looks nothing up."""
    return pd.DataFrame({"ID": [], "Label": []}, dtype=object)
