"""Cell scores by the mean logit in the cell, and copied ones."""

import numpy as np
from scored_fields import SIDE, one_cell

from hpa_kit.scoring import copy_image_scores, score_cells_mean_logit


def test_the_mean_logit_of_a_cell_weighs_the_image_score() -> None:
    field = one_cell(2)
    logits = np.zeros((19, SIDE, SIDE))
    logits[6][field["cells"] == 1], logits[6][field["cells"] == 2] = 2, -1
    scores = score_cells_mean_logit(logits, field["cells"], np.linspace(0, 0.9, 19))
    np.testing.assert_allclose(scores[:, 6], 0.3 / (1 + np.exp([-2.0, 1.0])))
    np.testing.assert_allclose(scores[:, 18], 0.45)


def test_extreme_logits_stay_finite() -> None:
    logits = np.full((19, SIDE, SIDE), -1e4)
    scores = score_cells_mean_logit(logits, one_cell()["cells"], np.ones(19))
    assert np.isfinite(scores).all()
    assert scores.max() < 1e-6


def test_a_number_that_no_pixel_has_has_no_mean_logit() -> None:
    cells = np.zeros((80, 80), np.int32)
    cells[:40] = 1
    scores = score_cells_mean_logit(np.zeros((19, 8, 8)), cells, np.ones(19), n_cells=2)
    assert scores.shape == (2, 19)
    assert not scores[1].any()


def test_copied_scores_are_the_images() -> None:
    scores = np.linspace(0, 1, 19)
    np.testing.assert_array_equal(copy_image_scores(scores, 3), [scores, scores, scores])
    assert copy_image_scores(scores, 0).shape == (0, 19)
