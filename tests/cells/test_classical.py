import csv
import logging

import cv2
import numpy as np
import pytest
from skimage.measure import label

from hpa_kit.cells import ClassicalSegmenter
from hpa_kit.cells.classical import Scale
from hpa_kit.cells.matching import match_cells
from hpa_kit.config import SimulateSettings
from hpa_kit.data import find_fields, read_field, resize_field
from hpa_kit.data.simulate.field import draw, prepare
from hpa_kit.data.simulate.plan import plan_fields
from hpa_kit.errors import InputError

CENTRES = [(0.2, 0.2), (0.2, 0.75), (0.55, 0.4), (0.8, 0.8), (0.85, 0.15)]


def report(name, iou, extra):
    met = np.sum(np.array(iou) >= 0.6)
    print(f"\n{name}: {met} of {len(iou)} cells met, mean IoU {np.mean(iou):.3f}, {extra} too many")


def assert_well_formed(nuclei, cells, shape):
    assert nuclei.shape == cells.shape == shape
    assert nuclei.dtype == cells.dtype == np.int32
    n = int(cells.max(initial=0))
    assert np.array_equal(np.unique(cells[cells > 0]), np.arange(1, n + 1))
    assert np.array_equal(np.unique(nuclei[nuclei > 0]), np.arange(1, n + 1))
    assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()


def agreement(truth, cells):
    """IoU of each cell of ``truth`` with the cell that fits it best, and the cells that fit none.

    A cell is met from an IoU of 0.6 on; a cell that meets none at 0.5 is one too many.
    """
    matched = match_cells(truth, cells)
    return matched.true_iou, int((matched.found_iou < 0.5).sum())


@pytest.mark.parametrize(
    "shape",
    [(64, 64), (96, 128), (128, 128), (300, 500), (512, 512), (1000, 1001), (1728, 1728), (2048, 2048)],
)
def test_cells_are_found_at_every_size(draw_field, shape):
    nuclei, cells = ClassicalSegmenter()(draw_field(shape, CENTRES))
    assert_well_formed(nuclei, cells, shape)
    for cy, cx in CENTRES:
        assert nuclei[int(cy * shape[0]), int(cx * shape[1])] > 0
    assert cells.max() == len(CENTRES)


def test_cells_have_the_size_they_are_drawn_with(draw_field):
    _, cells = ClassicalSegmenter()(draw_field((1024, 1024), CENTRES))
    radius = np.sqrt(np.bincount(cells.ravel())[1:] / np.pi) * 2
    assert np.abs(radius - 190).max() < 15


def test_height_and_width_are_not_swapped(draw_field):
    nuclei, cells = ClassicalSegmenter()(draw_field((300, 500), [(0.3, 0.9)]))
    y, x = np.nonzero(nuclei)
    assert cells.shape == (300, 500)
    assert max(abs(y.mean() - 90), abs(x.mean() - 450)) < 3


@pytest.mark.parametrize("shape", [(33, 47), (1, 1), (3, 2000), (0, 0), (0, 9), (300, 500), (2048, 512)])
@pytest.mark.parametrize("kind", ["black", "constant", "saturated", "noise"])
def test_a_field_without_cells_gives_empty_maps_and_says_so(shape, kind, caplog):
    rng = np.random.default_rng(0)
    levels = {"black": 0, "constant": 90, "saturated": 255, "noise": rng.poisson(30, (4, *shape))}
    field = np.broadcast_to(levels[kind], (4, *shape)).astype(np.uint8)
    with caplog.at_level(logging.WARNING):
        nuclei, cells = ClassicalSegmenter()(field)
    assert_well_formed(nuclei, cells, shape)
    assert not cells.any()
    assert "no cell in a field" in caplog.text


def test_touching_cells_are_parted_between_their_nuclei(draw_field):
    field = draw_field((512, 512), [(0.5, 0.42), (0.5, 0.58)])
    nuclei, cells = ClassicalSegmenter()(field)
    assert cells.max() == 2
    assert set(cells[250, [170, 254]]) == {cells[250, 254]}
    assert cells[250, 258] != cells[250, 254]
    assert_well_formed(nuclei, cells, (512, 512))


def test_touching_nuclei_are_two(draw_field):
    field = draw_field((512, 512), [(0.5, 0.47), (0.5, 0.535)])
    assert label(field[2] > 100).max() == 1
    assert ClassicalSegmenter()(field)[1].max() == 2


def test_lobes_of_one_nucleus_are_one_cell(draw_field):
    others = draw_field((512, 512), CENTRES[:2] + CENTRES[3:])
    lobes = draw_field((512, 512), [(0.5, 0.4), (0.5, 0.453)], nucleus=58, noise=0)
    field = np.maximum(others, lobes)
    nuclei, cells = ClassicalSegmenter()(field)
    assert cells.max() == 5
    assert nuclei[256, 200] == nuclei[256, 237] > 0
    field[2, :, 217:220] = field[2, 0, 0]
    nuclei, cells = ClassicalSegmenter()(field)
    assert cells.max() == 6, "a dark line between them makes two of them"
    assert cells[256, 200] != cells[256, 237]


def test_a_cell_reaches_as_far_as_its_dim_margin(draw_field):
    body = draw_field((512, 512), [(0.5, 0.5)], cell=240, noise=0)
    margin = draw_field((512, 512), [(0.5, 0.5)], cell=420, noise=0)
    margin = (8 + (margin.astype(np.float32) - 8) * 0.2).astype(np.uint8)
    margin[2] = 8
    _, cells = ClassicalSegmenter()(np.maximum(body, margin))
    assert cells.max() == 1
    assert (cells > 0).sum() > 0.9 * np.pi * 105**2


def test_a_cell_cut_by_the_border_keeps_its_mask(draw_field):
    _, cells = ClassicalSegmenter()(draw_field((512, 512), [(0.0, 0.5), (0.6, 1.0)]))
    assert cells[0, 256] > 0
    assert cells[307, 511] > 0


def test_the_protein_plays_no_part(draw_field):
    field = draw_field((256, 256), CENTRES)
    other = field.copy()
    other[1] = np.random.default_rng(1).integers(0, 256, (256, 256))
    for one, two in zip(ClassicalSegmenter()(field), ClassicalSegmenter()(other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_dim_cell_beside_bright_ones_is_whole(draw_field):
    dim = draw_field((512, 512), [(0.5, 0.2)], noise=0) // 4
    bright = draw_field((512, 512), [(0.3, 0.7), (0.7, 0.7)], noise=0)
    _, cells = ClassicalSegmenter()(np.maximum(dim, bright))
    area = np.bincount(cells.ravel())[1:]
    assert len(area) == 3
    assert area.min() > 0.8 * area.max()


@pytest.mark.parametrize("noise", [0, 3, 12])
@pytest.mark.parametrize("shape", [(64, 64), (96, 160), (512, 512)])
def test_noise_around_a_lone_cell_is_no_cell(draw_field, shape, noise):
    _, cells = ClassicalSegmenter()(draw_field(shape, [(0.5, 0.5)], noise=noise))
    assert cells.max() == 1


def test_specks_are_no_nuclei(draw_field):
    field = draw_field((512, 512), CENTRES)
    field[2, 40:45, 250:255] = 255
    assert ClassicalSegmenter()(field)[1].max() == len(CENTRES)


def test_several_fields_of_several_sizes_give_a_list_of_pairs(draw_field):
    fields = [
        draw_field((128, 128), CENTRES),
        np.zeros((4, 50, 70), np.uint8),
        draw_field((96, 200), CENTRES[:1]),
    ]
    pairs = ClassicalSegmenter()(fields)
    for (nuclei, cells), field, n in zip(pairs, fields, (5, 0, 1), strict=True):
        assert_well_formed(nuclei, cells, field.shape[1:])
        assert cells.max() == n
    assert ClassicalSegmenter()([]) == []


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8), (4, 8)])
def test_what_is_no_field_is_refused(shape):
    with pytest.raises(InputError, match=r"uint8 \(4, H, W\)"):
        ClassicalSegmenter().find_nuclei(np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="float64"):
        ClassicalSegmenter()(np.zeros((4, 8, 8)))


def test_full_fields_are_worked_at_a_quarter_and_small_ones_whole():
    assert Scale.of(2048, 2048) == Scale((512, 512), 1.0)
    assert Scale.of(3072, 3072) == Scale((768, 768), 1.0)
    assert Scale.of(1024, 1024) == Scale((512, 512), 1.0)
    assert Scale.of(256, 256) == Scale((256, 256), 0.5)


@pytest.mark.parametrize(("size", "fields", "missed"), [(128, 20, 1), (512, 4, 1)])
def test_cells_of_simulated_fields_are_met(size, fields, missed):
    settings = SimulateSettings(out="unused", train=fields, test=0, size=size, seed=3)
    found, extra = [], 0
    for plan in plan_fields(settings, "train"):
        prepared = prepare(plan)
        _, cells = ClassicalSegmenter()(draw(prepared))
        iou, more = agreement(prepared.truth.cells, cells)
        found, extra = [*found, *iou], extra + more
    report(f"simulated, {size}²", found, extra)
    assert np.sum(np.array(found) < 0.6) <= missed
    assert extra <= missed


def test_published_cells_of_real_fields_are_met_at_full_size_and_at_512(real):
    folder = real / "competition"
    found, extra = [], 0
    for path in sorted((folder / "masks").glob("*.png")):
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        field = read_field(folder / "train", path.stem)
        nuclei, cells = ClassicalSegmenter()(field)
        assert_well_formed(nuclei, cells, truth.shape)
        _, small = ClassicalSegmenter()(resize_field(field, 512))
        assert abs(int(small.max()) - int(cells.max())) <= 1
        iou, more = agreement(truth[::2, ::2], cells[::2, ::2])
        report(f"published, {path.stem}", iou, more)
        found, extra = [*found, *iou], extra + more
    report("published", found, extra)
    assert len(found) == 47
    assert np.sum(np.array(found) >= 0.6) >= 46
    assert np.mean(found) > 0.89
    assert extra == 0


def test_as_many_cells_are_found_in_real_fields_as_the_published_networks_find(real):
    """Of 34 fields of 2048², reduced to 512²; the numbers of cells are a competitor's, by those networks."""
    with (real / "tables" / "train_fields.csv").open() as file:
        rows = {row["ID"]: row for row in csv.DictReader(file)}
    folder = real / "fields512" / "train"
    ratios = []
    for id in find_fields(folder):
        if rows[id]["ImageWidth"] == "2048":
            ratios.append(ClassicalSegmenter()(read_field(folder, id))[1].max() / int(rows[id]["Cells"]))
    off = np.abs(np.subtract(ratios, 1)).mean()
    print(f"\n{len(ratios)} fields, cells found per published one: {np.mean(ratios):.3f}, off by {off:.3f}")
    assert len(ratios) > 30
    assert off < 0.06
