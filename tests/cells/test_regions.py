import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from skimage.measure import label

from hpa_kit.cells.regions import areas, components, drop_small, fill_holes, pair_up, relabel
from hpa_kit.cells.resize import resized
from hpa_kit.errors import InputError

small_maps = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3))


@settings(deadline=None)  # the first example compiles
@given(small_maps)
@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_are_scikit_images_to_the_number(connectivity, image):
    expected = label(image, background=0, connectivity=connectivity // 4)
    np.testing.assert_array_equal(components(image, connectivity), expected)


def test_more_than_65535_components_keep_their_numbers():
    image = np.zeros((600, 600), bool)
    image[::2, ::2] = True
    assert components(image).max() == 90_000


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (5, 0), (1, 1)])
def test_an_empty_label_map_stays_empty(shape):
    image = np.zeros(shape, np.int32)
    for result in (components(image), fill_holes(image), relabel(image), drop_small(image, 5)):
        assert result.shape == shape
        assert result.dtype == np.int32
        assert not result.any()
    assert areas(image).tolist() == [image.size]


@settings(deadline=None)  # the first example compiles
@given(small_maps)
def test_holes_of_a_mask_are_filled_as_scipy_does(image):
    np.testing.assert_array_equal(fill_holes(image > 0) > 0, ndimage.binary_fill_holes(image > 0))


def test_a_hole_takes_the_number_around_it_if_there_is_but_one_and_the_hole_is_small():
    image = np.zeros((9, 15), np.int32)
    image[1:8, 1:8] = 4
    image[3:5, 3:5] = 0  # 4 pixels inside cell 4
    image[6, 6] = 0  # one pixel inside cell 4
    image[1:8, 8:14] = 7
    image[4, 8] = 0  # between 4 and 7
    filled = fill_holes(image, largest=4)
    assert filled[6, 6] == 4
    assert filled[3, 3] == 0
    assert filled[4, 8] == 0
    assert fill_holes(image)[3, 3] == 4


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int64, np.uint64])
def test_relabel_closes_gaps_in_order_whatever_the_dtype(dtype):
    values = np.array([[0, 1, 0], [1, 1, 0]]) if dtype is bool else np.array([[0, 90, 7], [7, 0, 90]])
    expected = [[0, 1, 0], [1, 1, 0]] if dtype is bool else [[0, 2, 1], [1, 0, 2]]
    result = relabel(values.astype(dtype))
    assert result.dtype == np.int32
    assert result.tolist() == expected


def test_relabel_takes_numbers_beyond_int32():
    assert relabel(np.array([[2**63, 0, 5]], np.uint64)).tolist() == [[2, 0, 1]]


def test_small_regions_go_and_the_others_keep_their_numbers():
    labels = np.array([[1, 1, 0, 3], [2, 0, 3, 3]], np.int32)
    assert drop_small(labels, 2).tolist() == [[1, 1, 0, 3], [0, 0, 3, 3]]


def test_a_pair_has_no_orphans_and_nuclei_lie_in_their_cells():
    cells = np.array([[1, 1, 1, 0], [2, 2, 0, 0], [5, 5, 5, 5]], np.int32)
    nuclei = np.array([[0, 1, 5, 1], [0, 0, 0, 9], [0, 5, 5, 1]], np.int32)
    new_nuclei, new_cells = pair_up(nuclei, cells)
    assert new_cells.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [2, 2, 2, 2]]
    assert new_nuclei.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 2, 2, 0]]


def test_only_label_maps_are_taken():
    with pytest.raises(ValueError, match="2-D"):
        components(np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="float"):
        relabel(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="connectivity"):
        components(np.zeros((3, 3), bool), 6)


@given(
    arrays(
        np.int64,
        array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.sampled_from([0, 1, 2, 7, 2**40]),
    )
)
def test_relabel_gives_each_number_its_rank(labels):
    ranks = {number: rank for rank, number in enumerate(sorted({0, *labels.ravel().tolist()}))}
    expected = [[ranks[number] for number in row] for row in labels.tolist()]
    assert relabel(labels).tolist() == expected


INTEGERS = [np.bool_, *np.typecodes["AllInteger"]]


@pytest.mark.parametrize("shape", [(64, 64), (33, 50), (200, 10), (7, 301)])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_label_map_is_resized_by_pixel_centres_whatever_its_integers(shape, dtype):
    """As OpenCV does it for the few dtypes that it takes."""
    kind = np.dtype(dtype)
    largest = 1 if kind.kind == "b" else np.iinfo(kind).max
    numbers = np.random.default_rng(0).integers(0, 120, (90, 130))
    labels = (numbers % 2 if kind.kind == "b" else numbers).astype(kind)
    labels[numbers > 100] = largest
    places = np.arange(labels.size, dtype=np.int32).reshape(labels.shape)
    at = cv2.resize(places, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    found = resized(labels, shape)
    assert found.dtype == kind
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, labels.ravel()[at])
    assert largest in found


def test_every_second_pixel_is_the_one_behind_the_centre_of_two():
    labels = np.arange(8).reshape(1, 8)
    np.testing.assert_array_equal(resized(labels, (1, 4)), [[1, 3, 5, 7]])
    assert resized(labels, (1, 8)) is labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, object, "U3"])
def test_what_is_no_label_map_is_not_resized_and_its_dtype_is_named(dtype):
    labels = np.ones((4, 4)).astype(dtype)
    with pytest.raises(InputError, match=f"expected bool or integers of any size, found {labels.dtype}"):
        resized(labels, (2, 2))


@pytest.mark.parametrize(("before", "after"), [((4, 0), (2, 2)), ((4, 4), (0, 2)), ((4, 4, 2), (2, 2))])
def test_a_label_map_without_pixels_cannot_be_resized(before, after):
    with pytest.raises(InputError, match="cannot be resized to"):
        resized(np.zeros(before, np.int32), after)
