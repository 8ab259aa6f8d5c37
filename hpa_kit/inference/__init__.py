"""From class maps and label maps to cell scores and a submission."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpa_kit.inference.ensemble import Ensemble, FieldMaps
    from hpa_kit.inference.pipeline import infer
    from hpa_kit.inference.rules import RULES, FieldEvidence, ScoringRule, score_field, scores_to_prediction
    from hpa_kit.inference.scoring import (
        copy_image_scores,
        score_cells,
        score_cells_mean_logit,
        settle_negative,
    )

# Imported when first asked for: torch takes seconds, and scoring maps needs none.
_HOME = {
    "RULES": "rules",
    "Ensemble": "ensemble",
    "FieldEvidence": "rules",
    "FieldMaps": "ensemble",
    "ScoringRule": "rules",
    "copy_image_scores": "scoring",
    "infer": "pipeline",
    "score_cells": "scoring",
    "score_cells_mean_logit": "scoring",
    "score_field": "rules",
    "scores_to_prediction": "rules",
    "settle_negative": "scoring",
}

__all__ = [
    "RULES",
    "Ensemble",
    "FieldEvidence",
    "FieldMaps",
    "ScoringRule",
    "copy_image_scores",
    "infer",
    "score_cells",
    "score_cells_mean_logit",
    "score_field",
    "scores_to_prediction",
    "settle_negative",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"hpa_kit.inference.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
