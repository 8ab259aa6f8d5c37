"""From class maps and label maps to cell scores and a submission."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpa_kit.inference.arrays import resized
    from hpa_kit.inference.cell_table import predict
    from hpa_kit.inference.ensemble import Effort, Ensemble, FieldMaps
    from hpa_kit.inference.pipeline import infer
    from hpa_kit.inference.pseudo_labels import make_pseudo_labels
    from hpa_kit.inference.quantiles import score_cells_quantile
    from hpa_kit.inference.rules import (
        RULES,
        FieldEvidence,
        ScoringRule,
        add_rule,
        rule_of,
        score_field,
        scores_to_prediction,
        scoring_rule,
    )
    from hpa_kit.inference.scoring import (
        copy_image_scores,
        score_cells,
        score_cells_mean_logit,
        settle_negative,
    )
    from hpa_kit.inference.summary import summary_line
    from hpa_kit.inference.tuning import Tuning, tune

# Imported when first asked for: torch takes seconds, and scoring maps needs none.
_HOME = {
    "RULES": "rules",
    "Tuning": "tuning",
    "tune": "tuning",
    "Effort": "ensemble",
    "Ensemble": "ensemble",
    "FieldEvidence": "rules",
    "FieldMaps": "ensemble",
    "ScoringRule": "rules",
    "add_rule": "rules",
    "copy_image_scores": "scoring",
    "infer": "pipeline",
    "make_pseudo_labels": "pseudo_labels",
    "predict": "cell_table",
    "resized": "arrays",
    "rule_of": "rules",
    "score_cells": "scoring",
    "score_cells_mean_logit": "scoring",
    "score_cells_quantile": "quantiles",
    "score_field": "rules",
    "scores_to_prediction": "rules",
    "scoring_rule": "rules",
    "settle_negative": "scoring",
    "summary_line": "summary",
}

__all__ = [
    "RULES",
    "Effort",
    "Ensemble",
    "FieldEvidence",
    "FieldMaps",
    "ScoringRule",
    "Tuning",
    "add_rule",
    "copy_image_scores",
    "infer",
    "make_pseudo_labels",
    "predict",
    "resized",
    "rule_of",
    "score_cells",
    "score_cells_mean_logit",
    "score_cells_quantile",
    "score_field",
    "scores_to_prediction",
    "scoring_rule",
    "settle_negative",
    "summary_line",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"hpa_kit.inference.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
