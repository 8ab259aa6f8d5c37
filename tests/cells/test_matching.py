"""Found cells against true ones."""

import numpy as np
import pytest

from hpa_kit.cells.matching import match_cells
from hpa_kit.errors import InputError


def squares(*corners, side=4, shape=(20, 20)):
    labels = np.zeros(shape, np.int32)
    for number, (y, x) in enumerate(corners, 1):
        labels[y : y + side, x : x + side] = number
    return labels


def test_a_cell_is_met_where_half_of_both_together_is_shared():
    # Moved by one of four pixels they share 12 of 20; by two, 8 of 24.
    found = match_cells(squares((0, 0), (10, 0)), squares((0, 1), (10, 2)))
    np.testing.assert_allclose(found.true_iou, [12 / 20, 8 / 24])
    assert (found.met, found.right) == (0.5, 0.5)
    assert found.iou == pytest.approx((12 / 20 + 8 / 24) / 2)


def test_cells_that_are_missed_and_cells_that_are_none_are_told_apart():
    missed = match_cells(squares((0, 0), (10, 10)), squares((0, 0)))
    assert (missed.met, missed.right) == (0.5, 1.0)
    invented = match_cells(squares((0, 0)), squares((0, 0), (10, 10)))
    assert (invented.met, invented.right) == (1.0, 0.5)


def test_numbers_do_not_matter_and_fields_add_up():
    true = squares((0, 0), (10, 10))
    one = match_cells(true, np.where(true > 0, 3 * true + 4, 0))
    both = one + match_cells(true, np.zeros_like(true))
    assert (one.met, one.right, one.iou) == (1, 1, 1)
    assert (both.met, both.right, both.iou) == (0.5, 1, 0.5)


def test_a_field_without_cells_has_no_share():
    nothing = match_cells(squares(), squares())
    assert np.isnan([nothing.met, nothing.right, nothing.iou]).all()


def test_label_maps_of_two_sizes_are_refused():
    with pytest.raises(InputError, match=r"\(20, 20\) and \(20, 21\)"):
        match_cells(squares(), squares(shape=(20, 21)))
