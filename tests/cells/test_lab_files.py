"""Cells as other programs take them: OME-TIFF and GeoJSON."""

import json

import numpy as np
import pytest
import tifffile

from hpa_kit.cells import LabelMaps
from hpa_kit.cells.lab_files import outlines_of, write_geojson, write_ome_labels
from hpa_kit.cells.outlines import outlines, ring_area
from hpa_kit.classes import CLASSES

# A cell with two holes that touch at a corner; one in two pieces that do; one of one pixel.
CELLS = np.array(
    [
        [1, 1, 1, 1, 0, 0],
        [1, 0, 1, 1, 0, 3],
        [1, 1, 0, 1, 2, 0],
        [1, 1, 1, 1, 0, 2],
    ],
    np.int32,
)


def signed_area(ring) -> float:
    x, y = np.array(ring, float).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)


def test_outlines_of_any_label_map_are_simple_rings_around_its_pixels():
    rng = np.random.default_rng(0)
    maps = [CELLS, np.ones((1, 1), np.int32), np.zeros((3, 4), np.int32)]
    maps += [rng.integers(0, 3, rng.integers(1, 12, 2)).astype(np.int32) for _ in range(60)]
    for labels in maps:
        shapes = outlines(labels)
        assert len(shapes) == labels.max(initial=0)
        for number, pieces in enumerate(shapes, start=1):
            rings = [ring for piece in pieces for ring in piece]
            assert sum(map(ring_area, rings)) == (labels == number).sum()
            for outer, *holes in pieces:
                assert ring_area(outer) > 0 > max(map(ring_area, holes), default=-1)
            for ring in rings:
                assert (ring[0] == ring[-1]).all()
                assert len(np.unique(ring[:-1], axis=0)) == len(ring) - 1 >= 4, "a ring meets itself"


def test_outlines_are_valid_polygons_for_those_who_measure_them():
    geometry = pytest.importorskip("shapely.geometry", reason="shapely is not installed")
    for number, pieces in enumerate(outlines(CELLS), start=1):
        shape = geometry.MultiPolygon([(outer, holes) for outer, *holes in pieces])
        assert shape.is_valid
        assert shape.area == (number == CELLS).sum()


@pytest.fixture
def features(tmp_path):
    nuclei = np.where(CELLS == 1, CELLS, 0).astype(np.int32)
    scores = [{one.name: float(one.index == 7 + cell) for one in CLASSES} for cell in range(3)]
    values = [{"area": 1.0, **own} for own in scores]
    path = tmp_path / "below" / "f.outlines.geojson"
    write_geojson(path, "p/f", outlines_of(LabelMaps(nuclei, CELLS)), values)
    collection = json.loads(path.read_text(encoding="utf-8"))
    assert set(collection) == {"type", "features"}
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def test_geojson_is_what_rfc_7946_says(features):
    assert [one["type"] for one in features] == ["Feature"] * 3
    assert [one["geometry"]["type"] for one in features] == ["Polygon", "MultiPolygon", "Polygon"]
    for one in features:
        assert {"geometry", "properties", "id"} <= one.keys()
        geometry = one["geometry"]
        several = geometry["type"] == "MultiPolygon"
        for polygon in geometry["coordinates"] if several else [geometry["coordinates"]]:
            for place, ring in enumerate(polygon):
                assert len(ring) >= 4
                assert ring[0] == ring[-1]
                assert (signed_area(ring) > 0) == (place == 0), "outer rings run one way, holes the other"
                assert all(len(corner) == 2 for corner in ring)
    assert len(features[0]["geometry"]["coordinates"]) == 3  # its holes touch at a corner


def test_geojson_is_what_qupath_takes(features):
    assert [one["properties"]["objectType"] for one in features] == ["cell"] * 3
    assert [one["properties"]["name"] for one in features] == ["1", "2", "3"]
    assert ["nucleusGeometry" in one for one in features] == [True, False, False]
    golgi = CLASSES[7]
    colour = [int(golgi.colour[k : k + 2], 16) for k in (1, 3, 5)]
    assert features[0]["properties"]["classification"] == {"name": golgi.name, "color": colour}
    measured = features[0]["properties"]["measurements"]
    assert measured[golgi.name] == 1
    assert all(isinstance(value, float) for value in measured.values())
    assert len({one["id"] for one in features}) == 3


@pytest.mark.parametrize(("most", "dtype"), [(3, np.uint16), (70_000, np.uint32)])
def test_label_maps_as_ome_tiff_are_read_by_tifffile_with_their_names_and_scale(tmp_path, most, dtype):
    cells = np.where(CELLS == 3, np.int32(most), CELLS)
    maps = LabelMaps(np.zeros_like(cells), cells)
    write_ome_labels(tmp_path / "p" / "f.labels.ome.tif", maps, 0.325)
    with tifffile.TiffFile(tmp_path / "p" / "f.labels.ome.tif") as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "CYX"
        found = tif.series[0].asarray()
        about = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    assert found.dtype == dtype
    assert (found == np.stack([cells, np.zeros_like(cells)])).all()
    assert [one["Name"] for one in about["Channel"]] == ["cells", "nuclei"]
    assert (about["PhysicalSizeX"], about["PhysicalSizeXUnit"]) == (0.325, "µm")
