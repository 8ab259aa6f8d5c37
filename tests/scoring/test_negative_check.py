"""The 15th place's Negative check: Negative alone or not at all."""

import numpy as np
import pytest

from hpa_kit.errors import InputError
from hpa_kit.scoring import settle_negative


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
