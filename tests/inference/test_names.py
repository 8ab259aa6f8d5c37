"""What other code takes from the room: names that other rooms have now too."""

import pytest

import hpa_kit.inference

OFFERED = (
    "RULES", "Effort", "Ensemble", "FieldEvidence", "FieldMaps", "ScoringRule", "Tuning", "add_rule",
    "copy_image_scores", "infer", "make_pseudo_labels", "predict", "resized", "rule_of", "score_cells",
    "score_cells_mean_logit", "score_cells_quantile", "score_field", "scores_to_prediction", "scoring_rule",
    "settle_negative", "summary_line", "tune",
)  # fmt: skip


@pytest.mark.parametrize("name", OFFERED)
def test_code_written_before_finds_what_it_takes(name):
    assert name in hpa_kit.inference.__all__
    assert getattr(hpa_kit.inference, name) is not None


def test_a_name_that_is_not_offered_is_told():
    with pytest.raises(AttributeError, match="module 'hpa_kit.inference' has no attribute 'nothing'"):
        hpa_kit.inference.nothing  # noqa: B018 - asking is what is tested
