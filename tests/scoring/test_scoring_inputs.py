"""Cell scores of maps and label maps of any type and size; what cannot be scored is refused."""

import cv2
import numpy as np
import pytest
from scored_fields import SIDE, one_cell, plain_scores, random_field

from hpa_kit.errors import InputError
from hpa_kit.scoring import SCORING_FUNCTIONS, FieldEvidence, score_cells, score_cells_mean_logit


def test_label_maps_and_green_of_full_size_are_brought_to_the_maps() -> None:
    field = random_field(np.random.default_rng(5), 64, 96, 10)
    expected = score_cells(**field)
    for name in ("cells", "nuclei", "green"):
        field[name] = np.kron(field[name], np.ones((4, 4), field[name].dtype))
    np.testing.assert_array_equal(score_cells(**field), expected)


def test_score_cells_resizes_as_the_original_did_and_the_rule_as_the_kit_does() -> None:
    """The original took the number at a pixel's corner; all of the kit takes that at its centre."""
    field = random_field(np.random.default_rng(6), 64, 64, 10)
    whole = {name: np.kron(field[name], np.ones((3, 3), np.int32)) for name in ("cells", "nuclei")}
    whole = {name: np.roll(labels, 1, axis=(0, 1)) for name, labels in whole.items()}
    found = {}
    for by, way in ((False, cv2.INTER_NEAREST), (True, cv2.INTER_NEAREST_EXACT)):
        small = {name: cv2.resize(labels, (64, 64), interpolation=way) for name, labels in whole.items()}
        expected = score_cells(**(field | small))
        found[by] = score_cells(**(field | whole), by_centres=by)
        np.testing.assert_array_equal(found[by], expected)
    assert (found[True] != found[False]).any()
    arrays = {"logit_maps": field["class_maps"], "n_cells": int(whole["cells"].max())}
    seen = FieldEvidence(**(field | whole | arrays))
    np.testing.assert_array_equal(SCORING_FUNCTIONS["cam_share"](seen), found[True])


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
