"""Ensembles of members, and what they say of fields as a submission or a table of cells."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.cells import resized
    from hpa_kit.inference.ensemble import Ensemble, QualityLevel
    from hpa_kit.inference.infer_submission import infer
    from hpa_kit.inference.predict_cells import predict
    from hpa_kit.inference.prediction import FieldMaps, Prediction, PreparedField
    from hpa_kit.inference.stream import predict_fields
    from hpa_kit.inference.summary import summary_line
    from hpa_kit.scoring import (
        FieldEvidence,
        add_rule,
        copy_image_scores,
        score_cells,
        score_cells_mean_logit,
        score_cells_quantile,
        score_field,
        scores_to_prediction,
        settle_negative,
    )

# What earlier versions had here, or called otherwise.
_EARLIER = {
    "Effort": "hpa_kit.inference.ensemble.QualityLevel",
    "RULES": "hpa_kit.scoring.SCORING_FUNCTIONS",
    "ScoringRule": "hpa_kit.scoring.ScoringFunction",
    "Tuning": "hpa_kit.tuning.Tuning",
    "make_pseudo_labels": "hpa_kit.pseudo_labels.make_pseudo_labels",
    "rule_of": "hpa_kit.scoring.scoring_of",
    "scoring_rule": "hpa_kit.scoring.scoring_function",
    "tune": "hpa_kit.tuning.tune",
}

__getattr__ = lazy(__name__, _EARLIER)
