"""Segmenters of a user's own, and fields of other scales than segmenters know."""

import numpy as np
import pytest
from lab_images import write_ome

from hpa_kit.cells import add_segmenter, load_or_segment, read_label_maps, segmenter
from hpa_kit.cells.own_segmenters import _OWN
from hpa_kit.cells.scale import as_stored, at_known_scale, refuse_too_large
from hpa_kit.cells.segment import segment
from hpa_kit.cells.segmenters import BUILT_IN
from hpa_kit.config import SegmentSettings, make_settings
from hpa_kit.config.kinds import SEGMENTER_NAMES
from hpa_kit.data import LabFolder, read_field
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure


@pytest.fixture(autouse=True)
def forgotten():
    """What a test has added is gone after it."""
    yield
    SEGMENTER_NAMES[:] = [name for name in SEGMENTER_NAMES if name in BUILT_IN]
    _OWN.clear()


@pytest.fixture
def folder(tmp_path):
    """A field of one bright square of 64 µm, at 0.32 µm a pixel."""
    field = np.full((4, 240, 320), 5, np.uint8)
    field[:, 20:220, 60:260] = 200
    write_ome(tmp_path / "plates" / "p" / "f.ome.tif", field, pixel_size=0.32)
    return tmp_path / "plates"


def bright(field):
    return (field[1] > 100) * 7


def test_a_function_of_one_s_own_finds_cells_by_its_name(folder, tmp_path):
    add_segmenter("bright", bright, {"model": "v1"})
    settings = {"data": folder, "out": tmp_path / "maps", "segmenter": "bright", "also": "geojson"}
    segment(make_settings(SegmentSettings, settings | {"pixel_size": 0}))
    maps = read_label_maps(tmp_path / "maps", "p/f", read_field(LabFolder(folder), "p/f"))
    assert (maps.cells[20:220, 60:260] == 1).all()
    assert maps.cells.sum() == 200**2
    shapes, label_maps = (tmp_path / "maps" / "p" / name for name in ("f.outlines.geojson", "f.npz"))
    drawn, written = shapes.read_bytes(), label_maps.stat().st_mtime_ns
    shapes.unlink()
    segment(make_settings(SegmentSettings, settings | {"pixel_size": 0}))
    assert shapes.read_bytes() == drawn, "what lacks is drawn of the label maps that are there"
    assert label_maps.stat().st_mtime_ns == written
    assert segmenter("bright").settings.keys() == {"segmenter", "code", "model"}
    with pytest.raises(InputError, match=r"such as p/…, are not packed; leave pack out"):
        segment(make_settings(SegmentSettings, settings | {"pack": True}))


def test_what_it_gives_is_checked(folder):
    for find, said in (
        (lambda field: field[1, ::2], r"gives uint8 \(120, 320\); expected whole numbers .*\(240, 320\)"),
        (lambda field: field[1] / 2, "gives float64"),
        (lambda field: (field[1],) * 3, "gives 3 arrays; expected cells, or nuclei and cells"),
    ):
        add_segmenter("odd", find)
        with pytest.raises(InputError, match=said):
            segmenter("odd")(read_field(LabFolder(folder), "p/f"))


def test_nuclei_that_it_gives_bear_their_cells_numbers(folder):
    add_segmenter("both", lambda field: (field[2] > 100, bright(field)))
    nuclei, cells = segmenter("both")(read_field(LabFolder(folder), "p/f"))
    assert (nuclei == cells).all()
    assert cells.max() == 1


def test_a_name_of_the_kit_s_own_is_kept_and_an_unknown_one_told():
    with pytest.raises(InputError, match=r"'classical' is one of the kit's own"):
        add_segmenter("classical", bright)
    with pytest.raises(InputError, match=r"segmenter: there is no such segmenter; did you mean 'classical'"):
        make_settings(SegmentSettings, {"data": "a", "out": "b", "segmenter": "clasical"})


def test_segmenters_see_fields_at_the_scale_that_they_know(folder):
    seen = []

    def look(field):
        seen.append(field)
        return bright(field)

    add_segmenter("look", look)
    ((_, found),) = load_or_segment(["p/f"], LabFolder(folder), segmenter("look"))
    assert not isinstance(found, Failure)
    assert seen[0].shape == (4, 2048, 2048)  # 960 x 1280 pixels of 0.08 µm, and their mirror image
    assert (seen[0][:, 960:1920, 1280:2048] == seen[0][:, 959::-1, 1279 : 1279 - 768 : -1]).all()
    assert (found.maps.cells == (found.field[1] > 100)).all()


@pytest.mark.parametrize("scale", [0.5, 1.7, 4.0])
def test_label_maps_come_back_to_the_field_s_own_pixels(scale):
    field = np.zeros((4, 100, 140), np.uint8)
    field[1, 20:60, 30:90] = 1
    field[1, 70:95, 30:90] = 2
    known = at_known_scale(field * np.uint8(100), scale)
    labels = np.rint(known[1] / 100).astype(np.int32)
    _, cells = as_stored((labels, labels), (100, 140), scale)
    assert (cells == field[1]).mean() > 0.97
    assert set(np.unique(cells)) == {0, 1, 2}


def test_a_field_that_would_be_too_large_at_that_scale_is_refused():
    with pytest.raises(InputError, match=r"would have 25000 x 12500 pixels of 0.08 µm; .*pixel_size 0"):
        refuse_too_large((1000, 2000), 12.5)
