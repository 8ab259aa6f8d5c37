"""Ensembles of members, and what they say of fields as a submission or a table of cells."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.cells import resized
    from hpa_kit.inference.ensemble import Effort, Ensemble, FieldMaps
    from hpa_kit.inference.infer_submission import infer
    from hpa_kit.inference.predict_cells import predict
    from hpa_kit.inference.prediction import Prediction, PreparedField
    from hpa_kit.inference.stream import predict_fields
    from hpa_kit.inference.summary import summary_line
    from hpa_kit.scoring import (
        RULES,
        FieldEvidence,
        ScoringRule,
        add_rule,
        copy_image_scores,
        rule_of,
        score_cells,
        score_cells_mean_logit,
        score_cells_quantile,
        score_field,
        scores_to_prediction,
        scoring_rule,
        settle_negative,
    )

# Rooms that stand on this one now.
_MOVED = {
    "Tuning": "hpa_kit.tuning",
    "make_pseudo_labels": "hpa_kit.pseudo_labels",
    "tune": "hpa_kit.tuning",
}

__getattr__ = lazy(__name__, _MOVED)
