"""The target of stage 2: cells drawn in their classes, and what is no cell."""

import numpy as np
import pytest

from hpa_kit.errors import InputError
from hpa_kit.training.targets import make_soft_target, make_target

NEGATIVE, NO_CELL = 18, 19
CELLS = np.array([[0, 1, 1], [2, 2, 3]], np.int32)


def rows(*cells):
    table = np.zeros((len(cells), 19))
    for row, values in zip(table, cells, strict=True):
        for index, confidence in values.items():
            row[index] = confidence
    return table


def channels_of(target, cell):
    """The channels in which a cell is set; all of its pixels have to agree."""
    inside = target[:, cell == CELLS]
    assert (inside == inside[:, :1]).all()
    return np.flatnonzero(inside[:, 0]).tolist()


def test_a_cell_is_set_in_every_class_that_reaches_the_threshold_and_in_no_other():
    target = make_target(CELLS, rows({0: 0.225, 5: 0.9, 7: 0.2249}, {18: 0.75}, {16: 1.0}))
    assert target.dtype == np.uint8
    assert target.shape == (20, 2, 3)
    assert [channels_of(target, cell) for cell in (1, 2, 3)] == [[0, 5], [NEGATIVE], [16]]


def test_a_cell_with_no_class_over_the_threshold_is_negative():
    target = make_target(CELLS, rows({0: 0.2}, {}, {18: 0.1, 3: 0.3}))
    assert [channels_of(target, cell) for cell in (1, 2, 3)] == [[NEGATIVE], [NEGATIVE], [3]]


def test_the_last_channel_holds_what_is_in_no_cell_and_nothing_else():
    target = make_target(CELLS, rows({0: 1}, {1: 1}, {2: 1}))
    assert np.array_equal(target[NO_CELL], CELLS == 0)
    assert target[:NO_CELL, CELLS == 0].sum() == 0


def test_what_augmentation_dropped_counts_as_no_cell():
    dropped = CELLS.copy()
    dropped[:, 1] = 0
    target = make_target(dropped, rows({0: 1}, {1: 1}, {2: 1}))
    assert target[NO_CELL, :, 1].tolist() == [1, 1]
    assert target[:NO_CELL, :, 1].sum() == 0


def test_a_threshold_given_to_the_digit_is_reached_in_any_precision():
    for dtype in (np.float16, np.float32, np.float64):
        for threshold in (0.225, np.float64(0.225)):
            target = make_target(CELLS, rows({4: 0.225}, {}, {}).astype(dtype), threshold=threshold)
            assert channels_of(target, 1) == [4]


def test_another_threshold_draws_others():
    assert channels_of(make_target(CELLS, rows({4: 0.2}, {}, {}), threshold=0.15), 1) == [4]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_label_maps_of_any_integers_and_any_memory_order_are_drawn_alike(dtype):
    table = rows({0: 1}, {1: 1}, {2: 1, 3: 1})
    expected = make_target(CELLS, table)
    assert np.array_equal(make_target(CELLS.astype(dtype), table), expected)
    assert np.array_equal(make_target(np.asfortranarray(CELLS.astype(dtype)), table), expected)
    assert np.array_equal(make_target(np.repeat(CELLS, 2, axis=1).astype(dtype)[:, ::2], table), expected)


def test_more_cells_than_a_byte_counts_keep_their_classes():
    cells = np.arange(1, 601, dtype=np.int32).reshape(20, 30)
    table = np.zeros((600, 19))
    table[np.arange(600), np.arange(600) % 18] = 1
    target = make_target(cells, table)
    assert np.array_equal(target[:18].argmax(axis=0), (cells - 1) % 18)


def test_a_field_without_cells_is_all_no_cell():
    target = make_target(np.zeros((4, 5), int), np.zeros((0, 19)))
    assert target[NO_CELL].all()
    assert target[:NO_CELL].sum() == 0


def test_soft_targets_are_the_cells_own_probabilities_and_negative_is_the_rest():
    target = make_soft_target(CELLS, rows({0: 0.4, 5: 0.8}, {}, {18: 0.9, 2: 0.6}))
    assert target[[0, 5, NEGATIVE], 0, 1].tolist() == [102, 204, 51]
    assert target[NEGATIVE, 1].tolist() == [255, 255, 230]
    assert target[NO_CELL].tolist() == [[255, 0, 0], [0, 0, 0]]


def test_a_label_map_that_the_table_does_not_know_is_refused():
    with pytest.raises(InputError, match="holds 3, the table 2 cells"):
        make_target(CELLS, rows({}, {}))
    with pytest.raises(InputError, match="holds -1"):
        make_target(CELLS - 1, rows({}, {}, {}))


@pytest.mark.parametrize(
    "table", [np.zeros((3, 18)), np.zeros(19), np.full((3, 19), np.nan), np.full((3, 19), 1.5)]
)
def test_confidences_that_are_none_are_refused(table):
    with pytest.raises(InputError, match="confidences"):
        make_target(CELLS, table)


@pytest.mark.parametrize("cells", [CELLS.astype(float), CELLS[None], CELLS.astype(str)])
def test_what_is_no_label_map_is_refused(cells):
    with pytest.raises(InputError, match="label map"):
        make_target(cells, np.zeros((3, 19)))
