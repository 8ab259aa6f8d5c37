import logging

import numpy as np
import pytest
from skimage.measure import label

from hpa_kit.cells import ClassicalSegmenter
from hpa_kit.cells.classical import Scale
from hpa_kit.data import read_field, resize_field
from hpa_kit.errors import InputError

CENTRES = [(0.2, 0.2), (0.2, 0.75), (0.55, 0.4), (0.8, 0.8), (0.85, 0.15)]


def assert_well_formed(nuclei, cells, shape):
    assert nuclei.shape == cells.shape == shape
    assert nuclei.dtype == cells.dtype == np.int32
    n = int(cells.max(initial=0))
    assert np.array_equal(np.unique(cells[cells > 0]), np.arange(1, n + 1))
    assert np.array_equal(np.unique(nuclei[nuclei > 0]), np.arange(1, n + 1))
    assert (cells[nuclei > 0] == nuclei[nuclei > 0]).all()


def met(truth, cells, iou=0.6):
    """Cells of ``truth`` that a cell meets at ``iou``."""
    count = 0
    for k in np.unique(truth[truth > 0]):
        mask = truth == k
        others = np.bincount(cells[mask], minlength=1)
        best = int(np.argmax(np.append(0, others[1:])))
        both = others[best] if best else 0
        count += best > 0 and both / (mask.sum() + (cells == best).sum() - both) >= iou
    return count


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


def test_published_cells_of_real_fields_are_met_at_full_size_and_at_512(real):
    import cv2

    folder = real / "competition"
    total = hits = 0
    for path in sorted((folder / "masks").glob("*.png")):
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        field = read_field(folder / "train", path.stem)
        nuclei, cells = ClassicalSegmenter()(field)
        assert_well_formed(nuclei, cells, truth.shape)
        _, small = ClassicalSegmenter()(resize_field(field, 512))
        assert abs(int(small.max()) - int(cells.max())) <= 1
        total += truth.max()
        hits += met(truth[::2, ::2], cells[::2, ::2])
    assert total == 47
    assert hits >= 0.9 * total
