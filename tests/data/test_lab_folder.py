"""Fields in a tree of folders, by any command that takes a folder of images."""

import logging
import os

import numpy as np
import pandas as pd
import pytest
import tifffile
from channel_files import write_field
from lab_images import NAMES, made_up, write_ome, write_zarr

from hpa_kit.config import StoreSettings, TrainSettings, make_settings
from hpa_kit.config.kinds import ImageSettings
from hpa_kit.data import (
    DataFolder,
    LabFolder,
    field_size,
    find_fields,
    lab_scale,
    labelled_fields,
    read_field,
    store_fields,
)
from hpa_kit.data.fields import find_channels
from hpa_kit.data.kept_fields import read_kept
from hpa_kit.data.store import FieldStore
from hpa_kit.errors import InputError
from hpa_kit.resume import field_stamps

FIELD = made_up()


@pytest.fixture
def plates(tmp_path):
    """Three fields in folders: an OME-TIFF, one of the competition's layout, and another OME-TIFF."""
    root = tmp_path / "plates"
    write_ome(root / "p1/A01/f1.ome.tiff", FIELD, pixel_size=0.08)
    write_field(root / "p1" / "A02", "f2")
    write_ome(root / "p2/B 01/f1.ome.tif", FIELD[::-1], NAMES[::-1], 0.32)
    return root


def images(root, **how) -> LabFolder:
    return DataFolder(root, make_settings(ImageSettings, how)).images("test")


def test_ids_are_paths_below_the_folder(plates):
    write_field(plates / ".hidden", "x")
    tifffile.imwrite(plates / "p1" / "A01" / "f1_cp_masks.tif", FIELD[0])
    tifffile.imwrite(plates / "p1" / "A01" / "f1.labels.ome.tif", FIELD[0])
    assert find_fields(images(plates)) == ["p1/A01/f1", "p1/A02/f2", "p2/B 01/f1"]
    assert DataFolder(plates).fields("test").ids == ["p1/A01/f1", "p1/A02/f2", "p2/B 01/f1"]


def test_fields_of_a_zarr_plate_are_named_by_their_wells(tmp_path):
    write_zarr(tmp_path / "plate.zarr" / "A" / "1" / "0", FIELD, 2)
    (tmp_path / "plate.zarr" / ".zattrs").write_text('{"plate": {}}')
    (tmp_path / "plate.zarr" / "A" / "1" / ".zattrs").write_text('{"well": {}}')
    assert images(tmp_path).ids == ["plate/A/1/0"]
    assert images(tmp_path / "plate.zarr").ids == ["A/1/0"]
    assert (read_field(images(tmp_path), "plate/A/1/0") == FIELD).all()


def test_every_field_is_read_whatever_its_layout(plates):
    for id in ("p1/A01/f1", "p2/B 01/f1"):
        assert (read_field(images(plates), id) == FIELD).all()
        assert field_size(images(plates), id) == (24, 40)
    assert read_field(images(plates), "p1/A02/f2").shape == (4, 24, 40)
    with pytest.raises(InputError, match=r"has no image of ID p1/A01/f2; did you mean 'p1/A0"):
        read_field(images(plates), "p1/A01/f2")


def test_the_competition_s_layout_is_read_by_its_path_alone(tmp_path):
    write_field(tmp_path, "a")
    write_ome(tmp_path / "deeper" / "b.ome.tif", FIELD)
    assert images(tmp_path) == tmp_path
    with pytest.raises(InputError, match=r"whose names say their channels; leave channels out"):
        images(tmp_path, channels="r=0")


def test_fewer_channels_are_said_and_more_are_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_ome(tmp_path / "f.ome.tif", FIELD[[2, 1, 0]], ("DAPI", "GFP", "tubulin"))
    folder = images(tmp_path)
    assert (read_field(folder, "f", needed=3)[:3] == FIELD[:3]).all()
    assert not read_field(folder, "f", needed=3)[3].any()
    with pytest.raises(
        InputError, match=r"has no yellow; found 0 'DAPI', 1 'GFP', 2 'tubulin'; .*yellow=none"
    ):
        read_field(folder, "f")
    black = images(tmp_path, channels="red=none,green=GFP,blue=dapi,yellow=none")
    assert [bool(plane.any()) for plane in read_field(black, "f")] == [False, True, True, False]
    assert "green is 1 'GFP', blue is 0 'DAPI', yellow is none, black; left out: 2 'tubulin'" in caplog.text


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ("r=0,g=1,b=2,y=7", r"has no channel 7, which is to be yellow; found 0 'Microtubules', 1"),
        ("r=0,g=1,b=phalloidin,y=3", r"has no channel phalloidin, which is to be blue"),
    ],
)
def test_a_channel_that_is_not_there_is_named_with_those_that_are(plates, channels, said):
    with pytest.raises(InputError, match=said):
        read_field(images(plates, channels=channels), "p1/A01/f1")


@pytest.mark.parametrize("text", ["2,0,3,1", "red:2", "purple=1", "r=1,red=2", "green=none", "r="])
def test_channels_that_cannot_be_read_are_refused_with_the_form(text):
    with pytest.raises(InputError, match=r"channels: "):
        make_settings(ImageSettings, {"channels": text})


def test_two_channels_that_may_be_the_same_are_asked_about(tmp_path):
    write_ome(tmp_path / "f.ome.tif", FIELD, ("tubulin", "protein", "DAPI", "Hoechst"))
    with pytest.raises(InputError, match=r"several that may be blue; .*say which with --channels"):
        read_field(images(tmp_path), "f")


def test_the_scale_is_the_image_s_or_the_user_s(plates):
    def scale(id, **how):
        return lab_scale(images(plates, **how), id)

    small = np.sqrt(24 * 40) / 2048
    with pytest.raises(
        InputError, match=r"covers 2 µm, 0.08 µm a pixel; networks know 164 µm and take 0.125"
    ):
        scale("p1/A01/f1")
    assert scale("p1/A01/f1", pixel_size=0) == scale("p1/A02/f2") == (1.0, 1.0)
    assert scale("p1/A01/f1", pixel_size=4) == pytest.approx((50, 50 * small))
    assert scale("p1/A02/f2", pixel_size=4) == pytest.approx((50, 50 * small))


def test_fields_that_are_learnt_from_at_another_scale_than_inference_s_are_said(plates, caplog):
    for pixel_size in (0, 4):
        FieldStore(images(plates, pixel_size=pixel_size), ["p1/A01/f1", "p1/A02/f2"], 32)
        assert bool(caplog.text) == (pixel_size == 4)
    assert len(caplog.records) == 1
    assert "ID p1/A01/f1 is 0.756 times as wide as 2048² pixels of 0.08 µm" in caplog.text
    assert "need pixel_size 0 in all commands" in caplog.text


def test_of_the_competition_s_layout_the_user_says_the_scale(tmp_path):
    write_field(tmp_path, "a")
    assert lab_scale(images(tmp_path), "a") == (1.0, 1.0)
    assert lab_scale(images(tmp_path, pixel_size=4), "a")[0] == 50
    assert (read_field(images(tmp_path, pixel_size=4), "a") == read_field(tmp_path, "a")).all()


def test_results_depend_on_a_field_s_files_and_on_how_they_are_read(plates):
    ids = images(plates).ids
    before = field_stamps(ids, images(plates), [], {})
    assert field_stamps(ids, images(plates), [], {}) == before
    assert not set(before.values()) & set(field_stamps(ids, images(plates, pixel_size=1), [], {}).values())
    os.utime(plates / "p1/A01/f1.ome.tiff", (1, 1))
    after = field_stamps(ids, images(plates), [], {})
    assert [id for id in ids if after[id] != before[id]] == ["p1/A01/f1"]


def test_a_store_keeps_fields_until_their_image_changes(plates, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    settings = make_settings(StoreSettings, {"data": plates, "out": tmp_path / "s", "size": 32})
    for said in ("3 fields of 32² to resize", "0 fields of 32² to resize, 3 kept"):
        store_fields(settings)
        assert said in caplog.text
    first = tmp_path / "s" / "32" / "p1" / "A01" / "f1.field"
    kept = read_kept(first, 32, 4)
    write_ome(plates / "p1/A01/f1.ome.tiff", 255 - FIELD, pixel_size=0.08)
    with pytest.warns(UserWarning, match=r"f1\.field was made from another p1/A01/f1:0; made again"):
        store_fields(settings)
    assert (read_kept(first, 32, 4) != kept).any()


def test_labelled_fields_may_have_paths_for_ids(plates, tmp_path):
    (tmp_path / "data").mkdir()
    plates.rename(tmp_path / "data" / "train")
    table = pd.DataFrame({"ID": ["p1/A01/f1", "p2/B 01/f1"], "Label": ["0", "7|16"]})
    table.to_csv(tmp_path / "data" / "train.csv", index=False)
    settings = TrainSettings(data=tmp_path / "data", out=tmp_path / "run")
    fields = labelled_fields(settings)
    assert fields.table["ID"].tolist() == table["ID"].tolist()
    assert (read_field(fields.folders["p1/A01/f1"], "p1/A01/f1") == FIELD).all()
    table.loc[1, "ID"] = "p3/f"
    table.to_csv(tmp_path / "data" / "train.csv", index=False)
    with pytest.raises(InputError, match=r"1 of 2 labelled fields have no image in .*such as ID p3/f"):
        labelled_fields(settings)


def test_which_channels_fields_hold_is_told_of_any_layout_and_a_damaged_image_costs_no_other(plates):
    write_ome(plates / "p2/C/f3.ome.tif", FIELD[:3], NAMES[:3])
    (plates / "p2" / "C" / "f4.tif").write_bytes(b"no image")
    all_four = {"red", "green", "blue", "yellow"}
    assert find_channels(images(plates)) == {
        "p1/A01/f1": all_four, "p1/A02/f2": all_four, "p2/B 01/f1": all_four,
        "p2/C/f3": {"red", "green", "blue"}, "p2/C/f4": set(),
    }  # fmt: skip
