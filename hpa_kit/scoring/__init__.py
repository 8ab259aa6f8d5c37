"""Scoring: the evidence of a field -> one row of scores per cell, and post-processing; without torch."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.scoring.cam_share import score_cells
    from hpa_kit.scoring.functions import (
        SCORING_FUNCTIONS,
        FieldEvidence,
        ScoringFunction,
        add_rule,
        score_field,
        scores_to_prediction,
        scoring_function,
        scoring_of,
    )
    from hpa_kit.scoring.mean_logit import copy_image_scores, score_cells_mean_logit
    from hpa_kit.scoring.post_processing import settle_negative
    from hpa_kit.scoring.quantile import score_cells_quantile

__getattr__ = lazy(__name__)
