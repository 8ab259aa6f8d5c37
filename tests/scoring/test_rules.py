import numpy as np
import pytest

from hpa_kit.classes import NEGATIVE
from hpa_kit.scoring import SCORING_FUNCTIONS, FieldEvidence


@pytest.fixture
def seen():
    cells = np.zeros((8, 8), np.int32)
    cells[:4], cells[4:] = 1, 2
    logits = np.full((19, 8, 8), -4, np.float32)
    logits[7, :4] = 4
    return FieldEvidence(
        image_scores=np.full(19, 0.8, np.float32),
        class_maps=np.zeros((19, 8, 8), np.float32),
        logit_maps=logits,
        cells=cells,
        nuclei=cells,
        green=np.full((8, 8), 50, np.uint8),
        n_cells=3,
    )


def test_a_cell_that_shows_nothing_else_is_negative(seen):
    rows = SCORING_FUNCTIONS["mean_logit_negative"](seen)
    assert rows[0, NEGATIVE] == pytest.approx(1 - rows[0, 7])
    assert rows[0, 7] > 0.7
    assert rows[1, NEGATIVE] > 0.95


def test_the_other_classes_are_those_of_the_plain_rule(seen):
    plain, with_negative = (
        SCORING_FUNCTIONS["mean_logit"](seen),
        SCORING_FUNCTIONS["mean_logit_negative"](seen),
    )
    assert (plain[:, :NEGATIVE] == with_negative[:, :NEGATIVE]).all()


def test_a_cell_that_is_nowhere_is_not_negative_either(seen):
    assert not SCORING_FUNCTIONS["mean_logit_negative"](seen)[2].any()


@pytest.mark.parametrize("name", SCORING_FUNCTIONS)
def test_every_rule_gives_a_row_per_cell(seen, name):
    rows = SCORING_FUNCTIONS[name](seen)
    assert rows.shape == (3, 19)
    assert ((rows >= 0) & (rows <= 1)).all()
