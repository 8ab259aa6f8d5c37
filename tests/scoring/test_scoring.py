"""Class maps x label map -> cell scores."""

from pathlib import Path

import numpy as np
import pytest
from scored_fields import one_cell, plain_scores, random_field

from hpa_kit.errors import InputError
from hpa_kit.scoring import score_cells


def test_scores_are_those_of_the_original(reference: Path) -> None:
    data = np.load(reference / "scoring" / "field.npz")
    scores = score_cells(*(data[k] for k in ("class_maps", "cells", "nuclei", "image_scores", "green")))
    expected = np.zeros_like(scores)
    cell, index, confidence = data["expected"].T
    expected[cell.astype(int) - 1, index.astype(int)] = confidence
    assert scores.shape == (14, 19)
    np.testing.assert_array_equal(scores > 0, expected > 0)
    np.testing.assert_allclose(scores, expected, rtol=2e-7)


@pytest.mark.parametrize("shape", [(64, 90), (90, 64), (33, 47), (128, 128)])
@pytest.mark.parametrize("seed", range(3))
def test_runs_give_what_a_mask_per_cell_gives(shape: tuple[int, int], seed: int) -> None:
    field = random_field(np.random.default_rng(seed), *shape, n_cells=12)
    np.testing.assert_allclose(score_cells(**field), plain_scores(**field), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("form", ["mean_share", "max_share", "mean", "max"])
@pytest.mark.parametrize("seed", range(3))
def test_every_form_is_what_a_mask_per_cell_gives(form, seed) -> None:
    field = random_field(np.random.default_rng(seed), 64, 90, n_cells=12)
    np.testing.assert_allclose(
        score_cells(**field, form=form), plain_scores(**field, form=form), rtol=1e-6, atol=1e-12
    )


def test_the_maximum_of_a_map_is_that_of_the_cell_alone() -> None:
    field = one_cell(2)
    field["class_maps"][3][field["cells"] == 1] = 0.4
    field["class_maps"][3][field["cells"] == 2] = 0.2
    field["class_maps"][3, 0, 0] = 0.9  # background
    field["class_maps"][3, 30, 15] = 0.6
    np.testing.assert_allclose(score_cells(**field, form="max")[:, 3], [0.3, 0.1])


def test_forms_differ_in_what_they_give_not_in_which_classes_stay() -> None:
    field = random_field(np.random.default_rng(4), 64, 90, n_cells=12)
    given = [score_cells(**field, form=form)[:, :18] > 0 for form in ("mean_share", "max_share", "max")]
    assert (given[0] == given[1]).all()
    assert (given[0] == given[2]).all()


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(InputError, match="form: 'median' is unknown; expected one of mean_share, max_share"):
        score_cells(**one_cell(), form="median")


def test_known_labels_take_the_place_of_image_scores() -> None:
    """A pseudo label's confidence is label x maximum x share: classes the field has not stay at nothing."""
    field = one_cell()
    field["class_maps"][[3, 7]] = 0.5
    field["class_maps"][3, 20, 20] = 0.9
    field["image_scores"] = np.eye(19, dtype=np.int64)[3]
    scores = score_cells(**field, form="max_share")
    assert scores[0, 3] == pytest.approx(0.9)
    assert np.count_nonzero(scores) == 1


def test_a_class_that_covers_the_cell_has_image_score_times_map() -> None:
    field = one_cell()
    field["class_maps"][3] = 0.6
    scores = score_cells(**field)
    assert scores[0, 3] == pytest.approx(0.5 * 0.6)
    assert np.count_nonzero(scores) == 1


def test_the_share_of_the_nucleus_counts_where_it_is_larger() -> None:
    field = one_cell()
    field["class_maps"][0][field["nuclei"] > 0] = 0.5
    assert score_cells(**field)[0, 0] == pytest.approx(0.5 * 0.5 * 1.0)
    field["nuclei"] = np.zeros_like(field["nuclei"])
    part = 20 * 52 / (50 * 58)
    assert score_cells(**field)[0, 0] == pytest.approx(0.5 * 0.5 * part)


def test_any_nucleus_pixel_inside_a_cell_is_its_nucleus() -> None:
    field = one_cell(3)
    field["class_maps"][0][field["nuclei"] > 0] = 0.5
    expected = score_cells(**field)
    field["nuclei"] = (field["nuclei"] > 0).astype(np.int32) * 3
    np.testing.assert_array_equal(score_cells(**field), expected)


def test_a_few_high_pixels_keep_a_class_and_a_few_low_ones_do_not() -> None:
    field = one_cell()
    field["nuclei"][:] = 0
    spot = (slice(10, 20), slice(10, 25))  # 150 of 2900 pixels: above 4 %, below 10 %
    field["class_maps"][12][spot] = 0.8
    field["class_maps"][7][spot] = 0.7
    scores = score_cells(**field)
    assert scores[0, 12] > 0
    assert scores[0, 7] == 0


def test_a_cell_without_green_is_negative() -> None:
    field = one_cell()
    field["class_maps"][3] = 0.6
    field["green"][:] = 0
    scores = score_cells(**field)
    assert np.flatnonzero(scores[0]).tolist() == [18]


def test_a_cell_no_map_covers_is_negative_at_three_quarters() -> None:
    assert score_cells(**one_cell())[0, 18] == pytest.approx(0.75)


def test_a_cell_of_an_image_without_scores_is_negative_at_almost_nothing() -> None:
    field = one_cell()
    field["class_maps"][:] = 1
    field["image_scores"] = np.full(19, 0.009)
    scores = score_cells(**field)
    assert scores[0, 18] == pytest.approx(0.75e-6)
    assert np.count_nonzero(scores) == 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_score_of_a_hundredth_is_looked_at_in_every_precision(dtype) -> None:
    field = one_cell()
    field["class_maps"][3] = 1
    field["image_scores"] = np.full(19, 0.01, dtype)
    assert score_cells(**field)[0, 3] == pytest.approx(0.01, rel=1e-3)


def test_a_cell_too_small_to_see_scores_nothing() -> None:
    field = one_cell(side=200)
    field["class_maps"][:] = 1
    field["cells"][:] = 0
    field["cells"][10:12, 10:12] = 1  # 4 pixels = (0.01 * 200) ** 2
    field["cells"][50:55, 50:51] = 2
    scores = score_cells(**field)
    assert not scores[0].any()
    assert scores[1].any()


def test_values_that_are_hardly_above_zero_are_zero() -> None:
    field = one_cell()
    field["class_maps"][3] = 1e-6
    assert np.flatnonzero(score_cells(**field)[0]).tolist() == [18]
