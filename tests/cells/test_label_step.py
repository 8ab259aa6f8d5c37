import numpy as np
import pytest
from scipy.spatial import KDTree

from hpa_kit.cells.label_step import label_cells
from hpa_kit.errors import InputError


def overlap(truth, found):
    """IoU of each true cell with the found cell that overlaps it most."""
    table = np.zeros((truth.max() + 1, found.max() + 1), np.int64)
    np.add.at(table, (truth.ravel(), found.ravel()), 1)
    union = table.sum(1)[:, None] + table.sum(0)[None] - table
    return (table / np.maximum(union, 1))[1:, 1:].max(axis=1, initial=0)


def maps_of(centres, shape, nucleus=9, cell=22):
    """Network maps with a round nucleus and a round cell at each centre; borders where two cells meet."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    nearest, second = np.moveaxis(KDTree(centres).query(np.stack([y, x], axis=-1), k=[1, 2])[0], -1, 0)
    nuclei, cells = np.zeros((*shape, 3), np.uint8), np.zeros((*shape, 3), np.uint8)
    nuclei[..., 2] = np.where(nearest <= nucleus, 250, 0)
    cells[..., 2] = np.where(nearest <= cell, 240, 0)
    meeting = (second - nearest < 3) & (nearest <= cell)
    cells[..., 1][meeting], cells[..., 2][meeting] = 200, 40
    return nuclei, cells


@pytest.mark.parametrize("name", ["field_11", "field_12", "field_15"])
def test_cells_are_those_of_the_reference(reference, name):
    with np.load(reference / "label_cell" / f"{name}.npz") as field:
        nuclei, cells = label_cells(field["nuclei"], field["cells"])
        expected_nuclei, expected = field["nuclei_label_ref"].astype(int), field["cell_label_ref"].astype(int)
    assert cells.dtype == nuclei.dtype == np.int32
    assert cells.max() == expected.max()
    found = overlap(expected, cells)
    assert found.mean() >= 0.98
    assert found.min() >= 0.96
    assert overlap(expected_nuclei, nuclei)[np.unique(expected_nuclei)[1:] - 1].min() >= 0.96


def test_nucleus_k_lies_in_cell_k():
    nuclei, cells = label_cells(*maps_of([(30, 40), (30, 75), (90, 100)], (128, 160)))
    assert cells.shape == (512, 640)
    assert np.unique(cells).tolist() == np.unique(nuclei).tolist() == [0, 1, 2, 3]
    assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()


def test_height_and_width_are_not_swapped():
    _, cells = label_cells(*maps_of([(60, 100)], (75, 125)), size=(300, 500))
    y, x = np.nonzero(cells)
    assert cells.shape == (300, 500)
    assert abs(x.mean() - 402) < 3
    assert y.mean() > 200


def test_cells_that_touch_lie_two_pixels_apart():
    _, cells = label_cells(*maps_of([(64, 44), (64, 84)], (128, 128)))
    row = cells[258]
    one, two = np.flatnonzero(row == 1), np.flatnonzero(row == 2)
    assert 2 <= max(one.min(), two.min()) - min(one.max(), two.max()) - 1 <= 6


def test_more_than_255_cells_keep_their_numbers():
    centres = [(12 + 24 * r, 12 + 24 * c) for r in range(18) for c in range(18)]
    nuclei, cells = label_cells(*maps_of(centres, (432, 432), nucleus=8, cell=11))
    assert cells.max() == nuclei.max() == 324
    assert len(np.unique(cells)) == 325


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(512, 512), (8, 12), (1, 1), (0, 0), (0, 7)])
def test_empty_and_full_maps_give_no_cells(shape, value):
    empty = np.full((*shape, 3), value, np.uint8)
    nuclei, cells = label_cells(empty, empty)
    assert cells.shape == nuclei.shape == (4 * shape[0], 4 * shape[1])
    assert nuclei.max(initial=0) == cells.max(initial=0) == 0


def test_a_field_half_the_size_keeps_its_cells():
    centres = [(60, 60), (60, 180), (180, 60), (180, 180), (120, 120)]
    full = label_cells(*maps_of(centres, (512, 512)), size=(2048, 2048))[1]
    reduced = label_cells(*maps_of(centres, (512, 512)), size=(512, 512))[1]
    assert full.max() == reduced.max() == 5


def test_area_limits_are_the_originals_from_1728_pixels_on():
    # A cell of 78² x 4² / 16 pixels at the networks' scale: 5,000 full-size pixels are too few, 6,000 not.
    for radius, kept in ((9.6, 0), (11.4, 1)):
        maps = maps_of([(100, 100)], (432, 432), nucleus=8, cell=radius)
        assert label_cells(*maps, size=(1728, 1728))[1].max() == kept


def test_two_runs_agree_to_the_pixel():
    random = np.random.default_rng(0)
    maps = maps_of(random.integers(0, 256, (40, 2)).tolist(), (256, 256))
    first, second = label_cells(*maps), label_cells(*maps)
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


@pytest.mark.parametrize(
    ("nuclei", "cells"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), float)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)),
    ],
)
def test_what_are_no_maps_is_refused(nuclei, cells):
    with pytest.raises(InputError, match="label_cells"):
        label_cells(nuclei, cells)
