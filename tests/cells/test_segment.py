import logging

import cv2
import numpy as np
import pytest

from hpa_kit.cells import ClassicalSegmenter, read_label_maps, segmenter
from hpa_kit.cells.label_maps import label_map_info
from hpa_kit.cells.segment import segment
from hpa_kit.config import SegmentSettings
from hpa_kit.data import CHANNELS
from hpa_kit.errors import InputError


@pytest.fixture
def images(tmp_path, draw_field):
    fields = {
        "one": draw_field((128, 128), [(0.3, 0.3), (0.7, 0.7)]),
        "00123": draw_field((96, 160), [(0.5, 0.8)], seed=1),
        "empty": np.zeros((4, 64, 80), np.uint8),
    }
    (tmp_path / "images").mkdir()
    for id, field in fields.items():
        for name, channel in zip(CHANNELS, field, strict=True):
            cv2.imwrite(str(tmp_path / "images" / f"{id}_{name}.png"), channel)
    return fields


def settings(tmp_path, **others):
    return SegmentSettings(data=tmp_path / "images", out=tmp_path / "cells", **others)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_field_gets_its_label_maps(tmp_path, images, workers):
    out = segment(settings(tmp_path, workers=workers))
    for id, n in (("one", 2), ("00123", 1), ("empty", 0)):
        found = read_label_maps(out, id, images[id])
        expected = ClassicalSegmenter()(images[id])
        np.testing.assert_array_equal(found.nuclei, expected[0])
        np.testing.assert_array_equal(found.cells, expected[1])
        assert label_map_info(out / f"{id}.npz").n_cells == found.cells.max() == n


def test_whole_files_stay_and_damaged_and_foreign_ones_are_made_again_with_a_warning(tmp_path, images):
    out = segment(settings(tmp_path))
    kept = (out / "one.npz").stat().st_mtime_ns
    whole = (out / "00123.npz").read_bytes()
    (out / "00123.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(out / "empty.npz", cells=np.ones((64, 80), np.uint8))
    with pytest.warns(UserWarning) as said:
        segment(settings(tmp_path))
    assert sorted(str(w.message).split(".npz")[0].rsplit("/")[-1] for w in said) == ["00123", "empty"]
    assert (out / "one.npz").stat().st_mtime_ns == kept
    assert read_label_maps(out, "00123", images["00123"]).cells.max() == 1
    assert not read_label_maps(out, "empty", images["empty"]).cells.any()


def test_a_file_of_another_size_or_other_settings_is_made_again(tmp_path, images):
    from hpa_kit.cells import LabelMaps, write_label_maps

    out = segment(settings(tmp_path))
    ones = np.ones((10, 10), np.int32)
    write_label_maps(out / "one.npz", LabelMaps(ones, ones), label_map_info(out / "one.npz").settings)
    right = LabelMaps(*(np.ones((96, 160), np.int32),) * 2)
    write_label_maps(out / "00123.npz", right, {"segmenter": "another"})
    with pytest.warns(UserWarning, match="made again"):
        segment(settings(tmp_path))
    assert label_map_info(out / "one.npz").shape == (128, 128)
    assert label_map_info(out / "00123.npz").settings == ClassicalSegmenter().settings


def test_a_field_that_cannot_be_read_is_named_and_stops_no_other(tmp_path, images):
    (tmp_path / "images" / "one_yellow.png").unlink()
    (tmp_path / "images" / "empty_blue.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 of 3 fields.*empty, one"):
        segment(settings(tmp_path))
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["00123.npz"]


def test_a_file_in_the_folders_place_is_refused(tmp_path, images):
    (tmp_path / "cells").write_text("")
    with pytest.raises(InputError, match="is a file"):
        segment(settings(tmp_path))


def test_auto_without_weights_is_classical_and_says_so(caplog):
    with caplog.at_level(logging.INFO):
        assert segmenter().name == "classical"
    assert "classical (no weights given)" in caplog.text


def test_segmenters_that_need_weights_say_so_and_unknown_names_the_nearest(tmp_path):
    for name in ("published", "hpacellseg"):
        with pytest.raises(InputError, match=f"{name} needs the folder"):
            segmenter(name)
    with pytest.raises(InputError, match="did you mean 'classical'"):
        segmenter("clasical")
    with pytest.raises(InputError, match=str(tmp_path)):
        segmenter("auto", weights=tmp_path)
