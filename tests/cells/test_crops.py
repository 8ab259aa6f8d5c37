"""Crops of cells, cut out of a field at its size."""

import numpy as np
import pytest

from hpa_kit.cells import resized
from hpa_kit.cells.crops import centres, crops_of, cut_crops, field_statistics, fitting_side
from hpa_kit.scoring.inputs import cell_places


@pytest.fixture
def field():
    return np.random.default_rng(0).integers(1, 256, (4, 40, 40), dtype=np.uint8)


@pytest.fixture
def two_cells():
    cells = np.zeros((40, 40), np.int32)
    cells[10:20, 12:16] = 1
    cells[0:4, 30:40] = 2
    return cells


def test_a_crop_shows_the_field_around_the_middle_of_the_cell(field, two_cells) -> None:
    crops = crops_of(field, two_cells, 16)
    assert crops.pixels.shape == (2, 4, 16, 16) and crops.pixels.dtype == np.uint8
    # The box is 10 to 20 and 12 to 16, so its middle is 15, 14, and the window begins 8 before.
    np.testing.assert_array_equal(crops.pixels[0], field[:, 7:23, 6:22])
    np.testing.assert_array_equal(crops.masks[0], two_cells[7:23, 6:22] == 1)


def test_beyond_the_border_a_crop_is_black_and_without_mask(field, two_cells) -> None:
    crops = crops_of(field, two_cells, 16)
    # Cell 2 has its middle at 2, 35: six rows above the field, three columns beside it.
    assert not crops.pixels[1, :, :6].any() and not crops.pixels[1, :, :, 13:].any()
    np.testing.assert_array_equal(crops.pixels[1, :, 6:, :13], field[:, :10, 27:])
    np.testing.assert_array_equal(crops.masks[1, 6:, :13], two_cells[:10, 27:] == 2)


def test_a_crop_may_be_larger_than_the_field(field, two_cells) -> None:
    crops = crops_of(field, two_cells, 96)
    assert [int(mask.sum()) for mask in crops.masks] == [40, 40]
    assert [np.count_nonzero(pixels) for pixels in crops.pixels] == [field.size] * 2


def test_a_cell_lost_at_the_fields_size_is_where_it_was_with_a_mask_of_one_pixel(field) -> None:
    large = np.zeros((400, 400), np.int32)
    large[100:200, 120:160] = 1
    large[301:303, 201:203] = 2  # between the pixels that are taken
    small = resized(large, (40, 40))
    assert small.max() == 1
    crops = crops_of(field, small, 16, 2, cell_places(large).centre)
    assert crops.masks[1].sum() == 1 and crops.masks[1, 8, 8] == 1
    np.testing.assert_array_equal(crops.pixels[1], field[:, 22:38, 12:28])


def test_a_number_that_no_pixel_has_gets_a_black_crop(field, two_cells) -> None:
    cells = np.where(two_cells == 2, 3, two_cells)
    crops = crops_of(field, cells, 16, 4, np.full((4, 2), np.nan))
    assert [bool(mask.any()) for mask in crops.masks] == [True, False, True, False]
    assert not crops.pixels[[1, 3]].any()


def test_statistics_are_those_of_the_whole_field(field) -> None:
    expected = [field.mean((1, 2)), field.std((1, 2))]
    np.testing.assert_allclose(field_statistics(field), expected, rtol=1e-5)


def test_one_cell_is_cut_as_all_are(field, two_cells) -> None:
    at = centres(two_cells)
    alone = cut_crops(field, two_cells, [2], at[1:], 16)
    together = cut_crops(field, two_cells, [1, 2], at, 16)
    for one, all_of_them in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[0], all_of_them[1])


@pytest.mark.parametrize(
    ("sides", "fits"),
    [([], 32), ([5], 32), ([32] * 9 + [90], 32), ([33] * 10, 64), ([20] * 8 + [70] * 2, 96)],
)
def test_the_side_that_fits_holds_nine_in_ten_boxes(sides, fits) -> None:
    assert fitting_side(np.array(sides, np.int64)) == fits
