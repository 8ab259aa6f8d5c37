"""Class maps x label map -> cell scores."""

from pathlib import Path

import numpy as np
import pytest

from hpa_kit.errors import InputError
from hpa_kit.inference import copy_image_scores, score_cells, score_cells_mean_logit, settle_negative

SIDE = 60


def one_cell(n=1, side=SIDE):
    """Cells side by side as strips, a nucleus in the middle of each, empty maps, bright green."""
    cells = np.zeros((side, side), np.int32)
    nuclei = np.zeros_like(cells)
    width = side // n
    for cell in range(n):
        cells[5:-5, cell * width + 1 : (cell + 1) * width - 1] = cell + 1
        nuclei[20:40, cell * width + 4 : (cell + 1) * width - 4] = cell + 1
    return {
        "class_maps": np.zeros((19, side, side), np.float32),
        "cells": cells,
        "nuclei": nuclei,
        "image_scores": np.full(19, 0.5),
        "green": np.full((side, side), 100, np.uint8),
    }


def plain_scores(class_maps, cells, nuclei, image_scores, green, form="mean_share"):
    """The same rule with a mask per cell and class."""
    least = (0.01 * class_maps.shape[2]) ** 2
    rows = np.zeros((cells.max(initial=0), 19))
    for row, cell in enumerate(range(1, len(rows) + 1)):
        inside = cells == cell
        nucleus = inside & (nuclei > 0)
        if inside.sum() <= least:
            continue
        shares = []
        for index in np.flatnonzero(image_scores >= 0.01):
            values = class_maps[index].astype(np.float64)
            positive = values > 1e-6
            share, high = positive[inside].mean(), (values[inside] >= 0.75).mean()
            if nucleus.sum() >= least and nucleus.any():
                share = max(share, positive[nucleus].mean())
                high = max(high, (values[nucleus] >= 0.75).mean())
            shares.append(share)
            if (share >= 0.1 or high >= 0.04) and green[inside].mean() >= 1:
                strength = getattr(values[inside & positive], form.split("_")[0])()
                rows[row, index] = image_scores[index] * strength * (share if "share" in form else 1)
        if not rows[row].any():
            empty = np.median(1 - np.array(shares)) if shares else 0
            rows[row, 18] = 0.75 * max(1e-6, (empty - 0.9) / 0.1)
    return rows


def random_field(rng, height, width, n_cells):
    """Blocks of cells with gaps and lost numbers, patchy maps."""
    cells = np.kron(rng.integers(0, n_cells + 1, (8, 9)), np.ones((height // 8, width // 9), np.int64))
    cells = np.pad(cells, ((0, height - cells.shape[0]), (0, width - cells.shape[1])))
    maps = rng.random((19, height, width), dtype=np.float32)
    maps[maps < rng.random((19, 1, 1))] = 0
    return {
        "class_maps": maps,
        "cells": cells.astype(np.int32),
        "nuclei": np.where(rng.random((height, width)) < 0.3, cells, 0).astype(np.int32),
        "image_scores": np.where(rng.random(19) < 0.3, 0.005, rng.random(19)),
        "green": (rng.random((height, width)) * rng.choice([1.5, 30], (1, width))).astype(np.uint8),
    }


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


def test_every_cell_of_a_negative_field_is_negative_at_three_quarters() -> None:
    rows = np.zeros((3, 19))
    rows[0, [2, 5]], rows[1, 18] = 0.4, 0.1
    settled = settle_negative(rows, np.eye(19)[18])
    assert settled[:2, 18].tolist() == [0.75, 0.75]
    assert np.count_nonzero(settled) == 2  # the third cell was too small to be scored
    assert rows[0, 2] == 0.4  # left as they were


def test_negative_stays_alone_where_it_is_most_confident_and_goes_elsewhere() -> None:
    rows = np.zeros((3, 19))
    rows[0, [2, 18]], rows[1, 2], rows[1, 18], rows[2, 4] = 0.5, 0.3, 0.6, 0.2
    rows[0, 18] = 0.4
    labels = np.eye(19)[2] + np.eye(19)[18]
    settled = settle_negative(rows, labels)
    expected = np.zeros((3, 19))
    expected[0, 2], expected[1, 18], expected[2, 4] = 0.5, 0.6, 0.2
    np.testing.assert_array_equal(settled, expected)
    assert settle_negative(np.zeros((0, 19)), labels).shape == (0, 19)


def test_rows_of_another_shape_cannot_be_settled() -> None:
    with pytest.raises(InputError, match=r"expected shape \(n_cells, 19\), found \(2, 18\)"):
        settle_negative(np.zeros((2, 18)), np.zeros(19))


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


def test_label_maps_and_green_of_full_size_are_brought_to_the_maps() -> None:
    field = random_field(np.random.default_rng(5), 64, 96, 10)
    expected = score_cells(**field)
    for name in ("cells", "nuclei", "green"):
        field[name] = np.kron(field[name], np.ones((4, 4), field[name].dtype))
    np.testing.assert_array_equal(score_cells(**field), expected)


def test_cells_that_get_lost_on_the_way_keep_their_rows() -> None:
    field = one_cell()
    cells = np.kron(field["cells"], np.ones((8, 8), np.int32))
    cells[3:5, 3:5] = 5
    field |= {"cells": cells, "nuclei": np.zeros_like(cells), "green": np.full(cells.shape, 9, np.uint8)}
    scores = score_cells(**field)
    assert scores.shape == (5, 19)
    assert not scores[1:].any()


def test_fields_that_are_not_square_keep_their_cells_apart() -> None:
    cells = np.zeros((300, 500), np.int32)
    cells[50:250, 20:200], cells[50:250, 300:490] = 1, 2
    maps = np.zeros((19, 64, 64), np.float32)
    maps[4, :, 32:] = 1
    scores = score_cells(
        maps, cells, np.zeros_like(cells), np.full(19, 0.5), np.full((300, 500), 50, np.uint8)
    )
    assert scores[0, 4] == 0
    assert scores[1, 4] == pytest.approx(0.5)


def test_no_cells_give_no_rows() -> None:
    field = one_cell()
    field["cells"] = np.zeros((30, 40), np.int32)
    field["nuclei"] = np.zeros((30, 40), np.int32)
    field["green"] = np.zeros((30, 40), np.uint8)
    assert score_cells(**field).shape == (0, 19)
    assert score_cells_mean_logit(field["class_maps"], field["cells"], field["image_scores"]).shape == (0, 19)


def test_more_cells_than_a_byte_counts() -> None:
    side = 20 * 5
    cells = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((5, 5), np.int64))
    maps = np.zeros((19, side, side), np.float32)
    maps[0][cells == 300] = 1
    scores = score_cells(
        maps, cells, np.zeros_like(cells), np.full(19, 0.5), np.full((side, side), 9, np.uint8)
    )
    assert scores.shape == (400, 19)
    assert np.flatnonzero(scores[:, 0]).tolist() == [299]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("label_type", [np.uint8, np.int64, np.uint16])
@pytest.mark.parametrize("map_type", [np.float64, np.float32])
def test_scores_do_not_depend_on_types_and_memory_order(order, label_type, map_type) -> None:
    field = random_field(np.random.default_rng(7), 64, 90, 10)
    expected = score_cells(**field)
    field["class_maps"] = np.asarray(field["class_maps"], map_type, order=order)
    for name in ("cells", "nuclei"):
        field[name] = np.asarray(field[name], label_type, order=order)
    for green_type in (np.uint8, np.uint16, np.float32, np.float64):
        field["green"] = np.asarray(field["green"], green_type, order=order)
        np.testing.assert_array_equal(score_cells(**field), expected)


def test_strided_views_are_read_as_they_look() -> None:
    field = random_field(np.random.default_rng(8), 64, 90, 10)
    expected = score_cells(**field)
    views = {}
    for name in ("class_maps", "cells", "nuclei", "green"):
        wide = np.repeat(field[name], 2, axis=-1)
        wide[..., 1::2] = 0
        views[name] = wide[..., ::2]
    np.testing.assert_array_equal(score_cells(**(field | views)), expected)


def test_half_precision_maps_are_scored() -> None:
    field = random_field(np.random.default_rng(9), 64, 90, 10)
    field["class_maps"] = field["class_maps"].astype(np.float16)
    np.testing.assert_allclose(score_cells(**field), plain_scores(**field), rtol=1e-6)


def test_inputs_are_left_as_they_were() -> None:
    field = random_field(np.random.default_rng(3), 64, 90, 10)
    before = {name: array.copy() for name, array in field.items()}
    score_cells(**field)
    for name, array in field.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("class_maps", np.zeros((18, SIDE, SIDE)), "class maps: expected shape"),
        ("class_maps", np.zeros((SIDE, SIDE)), "class maps: expected shape"),
        ("class_maps", np.full((19, SIDE, SIDE), "a"), "class maps: expected numbers"),
        ("cells", np.zeros((1, SIDE, SIDE), int), "cells: expected a label map"),
        ("cells", np.zeros((SIDE, SIDE)), "cells: expected integers"),
        ("cells", np.full((SIDE, SIDE), -1), "cells: .* found -1"),
        ("cells", np.full((SIDE, SIDE), 2**40), "cells: .* found 1099511627776"),
        ("nuclei", np.zeros((SIDE, SIDE - 1), int), "nuclei: expected the shape of the cells"),
        ("image_scores", np.zeros(18), "image scores: expected shape"),
        ("image_scores", np.full(19, np.nan), "image scores: .*NaN"),
        ("green", np.zeros((SIDE, SIDE, 3)), "green: expected one channel"),
        ("green", np.zeros((SIDE, SIDE // 2)), "green: expected the shape of the cells"),
        ("green", np.full((SIDE, SIDE), 4095, np.uint16), "green: expected values from 0 to 255"),
        ("green", np.full((SIDE, SIDE), np.nan), "green: expected values from 0 to 255"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(name, value, match) -> None:
    with pytest.raises(InputError, match=match):
        score_cells(**(one_cell() | {name: value}))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0, 0), (5, 30, 30), (18, SIDE - 1, SIDE - 1)])
def test_a_map_value_that_is_not_finite_is_refused_wherever_it_is(bad, where) -> None:
    field = one_cell()
    field["image_scores"][:] = 0.001  # no class is looked at
    field["class_maps"][where] = bad
    with pytest.raises(InputError, match="class maps: expected finite values"):
        score_cells(**field)


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


def test_a_cell_the_maps_do_not_show_has_no_mean_logit() -> None:
    cells = np.zeros((80, 80), np.int32)
    cells[:40], cells[51, 51] = 1, 2
    scores = score_cells_mean_logit(np.zeros((19, 8, 8)), cells, np.ones(19))
    assert scores.shape == (2, 19)
    assert not scores[1].any()


def test_copied_scores_are_the_images() -> None:
    scores = np.linspace(0, 1, 19)
    np.testing.assert_array_equal(copy_image_scores(scores, 3), [scores, scores, scores])
    assert copy_image_scores(scores, 0).shape == (0, 19)
