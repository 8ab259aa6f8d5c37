"""Scoring cells by the high values of their class maps."""

import numpy as np
import pytest

from hpa_kit.errors import InputError
from hpa_kit.scoring import score_cells_quantile


def plain(maps, cells, scores):
    rows = np.zeros((cells.max(), 19))
    for cell in range(1, cells.max() + 1):
        for index in range(19):
            values = maps[index].astype(float)
            if (cells == cell).any() and np.quantile(values, 0.99) > 0:
                ratio = np.quantile(values[cells == cell], 0.99) / np.quantile(values, 0.99)
                rows[cell - 1, index] = scores[index] * min(1, ratio)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_a_cells_score_is_the_images_times_the_ratio_of_quantiles(seed) -> None:
    rng = np.random.default_rng(seed)
    cells = np.kron(rng.integers(0, 7, (6, 5)), np.ones((rng.integers(1, 9), 7), int))
    cells[cells == 3] = 0  # a number without pixels
    maps, scores = rng.random((19, *cells.shape), np.float32), rng.random(19)
    np.testing.assert_allclose(
        score_cells_quantile(maps, cells, scores), plain(maps, cells, scores), rtol=1e-5
    )


def test_the_scale_of_a_map_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    cells = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((8, 8), int))
    maps, scores = rng.random((19, 16, 16)), rng.random(19)
    np.testing.assert_allclose(
        score_cells_quantile(maps, cells, scores), score_cells_quantile(maps / 7, cells, scores), rtol=1e-5
    )


def test_a_map_with_a_few_bright_pixels_is_its_cells_alone() -> None:
    cells = np.zeros((40, 40), int)
    cells[:5, :5], cells[20:] = 1, 2
    maps = np.zeros((19, 40, 40))
    maps[11, 1, 1] = maps[11, 1, 2] = 1  # of 1,600 pixels, below 1 %
    found = score_cells_quantile(maps, cells, np.full(19, 0.5))
    assert found[0, 11] == 0.5
    assert np.count_nonzero(found) == 1


def test_no_cells_give_no_rows_and_bad_maps_are_refused() -> None:
    assert score_cells_quantile(np.zeros((19, 4, 4)), np.zeros((4, 4), int), np.ones(19)).shape == (0, 19)
    with pytest.raises(InputError, match="class maps: expected shape"):
        score_cells_quantile(np.zeros((18, 4, 4)), np.ones((4, 4), int), np.ones(19))
