"""What is done to cell scores after a rule has formed them."""

import numpy as np
import pytest

from hpa_kit.classes import NEGATIVE
from hpa_kit.config.scoring import STEPS, CalibrateStep, make_step
from hpa_kit.errors import InputError
from hpa_kit.scoring import SCORING_FUNCTIONS, FieldEvidence, scoring_function
from hpa_kit.scoring.post_processing import CellContext, apply_steps, cell_context


def scores(n: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.05, 0.95, (n, 19))


def context(n: int = 4) -> CellContext:
    images = np.random.default_rng(9).uniform(0.05, 0.95, 19)
    return CellContext(images, np.full(n, 100_000.0), np.zeros(n, bool))


def after(rows: np.ndarray, known: CellContext, *steps: object) -> np.ndarray:
    return apply_steps(rows, known, [make_step(step) for step in steps])


def test_a_cells_score_times_its_images() -> None:
    rows, known = scores(), context()
    np.testing.assert_allclose(after(rows, known, "image"), rows * known.image_scores)


def test_fusion_is_seven_tenths_of_the_cell_and_three_of_the_images_mean() -> None:
    rows = scores()
    np.testing.assert_allclose(after(rows, context(), "fuse"), 0.7 * rows + 0.3 * rows.mean(axis=0))
    assert np.ptp(after(rows, context(), {"step": "fuse", "cell": 0}), axis=0).max() < 1e-12


def test_a_cell_too_small_to_be_scored_weighs_in_no_mean_and_stays_without() -> None:
    rows = scores()
    rows[2] = 0
    fused = after(rows, context(), "fuse", "negative")
    assert not fused[2].any()
    alone = np.delete(rows, 2, axis=0)
    np.testing.assert_allclose(fused[0, :18], 0.7 * rows[0, :18] + 0.3 * alone.mean(axis=0)[:18])


def test_negative_is_the_least_of_what_the_others_leave() -> None:
    rows = scores()
    found = after(rows, context(), "negative")
    np.testing.assert_allclose(found[:, NEGATIVE], 1 - rows[:, :18].max(axis=1))
    np.testing.assert_array_equal(found[:, :18], rows[:, :18])


def test_the_other_classes_lose_what_is_negative() -> None:
    rows = scores()
    found = after(rows, context(), "others")
    np.testing.assert_allclose(found[:, :18], rows[:, :18] * (1 - rows[:, [18]]))
    np.testing.assert_array_equal(found[:, 18], rows[:, 18])


def test_steps_come_in_their_order() -> None:
    rows = scores()
    one, other = (
        after(rows, context(), *order) for order in (("negative", "others"), ("others", "negative"))
    )
    negative = 1 - rows[:, :18].max(axis=1)
    np.testing.assert_allclose(one[:, 0], rows[:, 0] * (1 - negative))
    np.testing.assert_allclose(other[:, 0], rows[:, 0] * (1 - rows[:, 18]))


def test_a_calibrated_score_is_a_line_in_two_logits() -> None:
    rows, known = scores(), context()
    slope, image, intercept = np.linspace(0.5, 2, 19), np.linspace(0, 1, 19), np.linspace(-1, 1, 19)
    step = CalibrateStep(slope=tuple(slope), image=tuple(image), intercept=tuple(intercept))
    found = apply_steps(rows, known, [step])
    odds = (rows / (1 - rows)) ** slope * (known.image_scores / (1 - known.image_scores)) ** image
    odds = odds * np.exp(intercept)
    np.testing.assert_allclose(found, odds / (1 + odds), rtol=1e-9)


def test_scores_at_the_ends_are_calibrated_to_finite_ones() -> None:
    rows = scores(2)
    rows[0, 0], rows[1, 0] = 0, 1
    step = CalibrateStep(slope=(1,) * 19, image=(0,) * 19, intercept=(0,) * 19)
    np.testing.assert_allclose(apply_steps(rows, context(2), [step]), rows, atol=2e-6)


def test_cells_at_the_border_weigh_by_eighty_thousand_pixels_and_inside_by_thirty_two() -> None:
    """As the competition's 7th place had it, in pixels of a field of 2048 x 2048."""
    rows = scores(4)
    known = CellContext(
        np.ones(19), np.array([40_000, 90_000, 16_000, 40_000.0]), np.array([1, 1, 0, 0], bool)
    )
    np.testing.assert_allclose(after(rows, known, "small"), rows * np.array([[0.5], [1], [0.5], [1]]))
    off = after(rows, known, {"step": "small", "border": 0, "inside": 32_000})
    np.testing.assert_allclose(off, rows * np.array([[1], [1], [0.5], [1]]))


@pytest.mark.parametrize("cut", [False, True])
def test_small_that_is_off_leaves_a_cell_of_any_area(cut) -> None:
    rows = scores(2)
    known = CellContext(np.ones(19), np.array([0.0, 1e-12]), np.full(2, cut))
    np.testing.assert_array_equal(after(rows, known, {"step": "small", "border": 0, "inside": 0}), rows)


@pytest.mark.parametrize("scale", [1, 4])
def test_areas_do_not_depend_on_the_fields_scale(scale) -> None:
    cells = np.zeros((64, 64), np.int32)
    cells[0:10, 5:15], cells[20:30, 20:40], cells[50:60, 60:64] = 1, 2, 3
    known = cell_context(np.ones(19), np.kron(cells, np.ones((scale, scale), np.int32)), 4)
    np.testing.assert_allclose(known.areas, np.array([100, 200, 40, 0]) * 1024)
    assert known.cut.tolist() == [True, False, True, False]


def test_a_class_that_was_dropped_comes_last_but_comes() -> None:
    rows, known = scores(), context()
    rows[0, :5] = 0
    found = after(rows, known, "fill")
    np.testing.assert_allclose(found[0, :5], 0.001 * known.image_scores[:5])
    np.testing.assert_array_equal(found[1:], rows[1:])


def test_scores_below_the_floor_are_left_out() -> None:
    rows = scores()
    found = after(rows, context(), {"step": "floor", "least": 0.5})
    np.testing.assert_array_equal(found, np.where(rows >= 0.5, rows, 0))
    assert (found == 0).any()


@pytest.mark.parametrize("name", list(STEPS))
def test_every_step_leaves_its_input_and_a_field_without_cells(name) -> None:
    options = dict.fromkeys(("slope", "image", "intercept"), (1.0,) * 19) if name == "calibrate" else {}
    rows = scores()
    before = rows.copy()
    found = after(rows, context(), {"step": name} | options)
    np.testing.assert_array_equal(rows, before)
    assert found.shape == rows.shape
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert after(np.zeros((0, 19)), context(0), {"step": name} | options).shape == (0, 19)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("fusee", "unknown step 'fusee'; did you mean 'fuse'"),
        ({"step": "fuse", "sell": 0.5}, "fuse: unknown setting 'sell'; did you mean 'cell'"),
        ({"step": "fuse", "cell": 2}, "fuse: cell: .*less than or equal to 1, found 2"),
        ({"cell": 0.5}, "expected a step's name, or step: name with options"),
        ({"step": "calibrate", "slope": [1], "image": [1], "intercept": [1]}, "slope: .*19"),
    ],
)
def test_a_step_that_does_not_exist_is_refused_by_name(value, message) -> None:
    with pytest.raises(InputError, match=message):
        make_step(value)


def evidence() -> FieldEvidence:
    rng = np.random.default_rng(3)
    cells = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((8, 8), int)).astype(np.int32)
    return FieldEvidence(
        image_scores=rng.uniform(0.2, 0.9, 19).astype(np.float32),
        class_maps=rng.random((19, 16, 16), np.float32),
        logit_maps=rng.normal(size=(19, 16, 16)).astype(np.float32),
        cells=cells,
        nuclei=cells * 0,
        green=np.full((16, 16), 90, np.uint8),
        n_cells=4,
    )


def test_a_rule_takes_further_steps_after_its_own() -> None:
    seen = evidence()
    plain, adjusted = (
        SCORING_FUNCTIONS["mean_logit_negative"](seen),
        scoring_function("mean_logit_negative", steps=[make_step("others")]),
    )
    np.testing.assert_allclose(adjusted(seen)[:, :18], plain[:, :18] * (1 - plain[:, [18]]))


def test_the_cells_own_logit_times_the_image_score_is_the_rule_mean_logit() -> None:
    seen = evidence()
    np.testing.assert_allclose(
        scoring_function("cell_logit", steps=[make_step("image")])(seen),
        SCORING_FUNCTIONS["mean_logit"](seen),
    )


def test_best_is_mean_logit_with_negative_above_a_floor() -> None:
    seen = evidence()
    best, full = SCORING_FUNCTIONS["best"](seen), SCORING_FUNCTIONS["mean_logit_negative"](seen)
    np.testing.assert_array_equal(best, np.where(full >= 1e-3, full, 0))


def test_a_form_is_passed_to_the_reference_rule() -> None:
    seen = evidence()
    assert (
        scoring_function("cam_share", "max")(seen)[:, :18] > SCORING_FUNCTIONS["cam_share"](seen)[:, :18]
    ).all()
