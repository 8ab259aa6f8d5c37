"""Fields: found, read channel by channel, resized."""

import cv2
import numpy as np
import pytest
from channel_files import HEIGHT, WIDTH, encoded, ramp, write_field

from hpa_kit.data import CHANNELS, field_size, find_fields, read_field, resize_field
from hpa_kit.errors import InputError


@pytest.mark.parametrize("ending", [".png", ".TIF", ".Png"])
def test_yellow_may_be_missing_where_three_channels_are_needed_and_is_read_where_it_is_there(
    tmp_path, ending
):
    write_field(tmp_path, ending=ending)
    whole = read_field(tmp_path, "a")
    np.testing.assert_array_equal(read_field(tmp_path, "a", needed=3), whole)
    (tmp_path / f"a_yellow{ending}").unlink()
    field = read_field(tmp_path, "a", needed=3)
    np.testing.assert_array_equal(field[:3], whole[:3])
    assert field.shape == whole.shape and not field[3].any()
    with pytest.raises(InputError, match="a_yellow"):
        read_field(tmp_path, "a")
    (tmp_path / f"a_green{ending}").unlink()
    with pytest.raises(InputError, match="a_green"):
        read_field(tmp_path, "a", needed=3)


def test_channels_are_red_green_blue_yellow_whatever_the_size(tmp_path):
    planes = {channel: np.full((HEIGHT, WIDTH), 10 * n, np.uint8) for n, channel in enumerate(CHANNELS, 1)}
    write_field(tmp_path, **{channel: encoded(plane) for channel, plane in planes.items()})
    field = read_field(tmp_path, "a")
    assert field.dtype == np.uint8
    assert field.shape == (4, HEIGHT, WIDTH)
    assert field.flags.c_contiguous
    assert field[:, 0, 0].tolist() == [10, 20, 30, 40]
    assert field_size(tmp_path, "a") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("ending", [".png", ".PNG", ".Png", ".tif", ".TIFF", ".tiff"])
def test_a_lossless_channel_comes_back_to_the_last_bit_in_any_letter_case(tmp_path, ending):
    write_field(tmp_path, ending=ending, data=encoded(ramp(), ending.lower()))
    assert find_fields(tmp_path) == ["a"]
    assert (read_field(tmp_path, "a") == ramp()).all()
    assert field_size(tmp_path, "a") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_missing_channel_is_named(tmp_path, channel):
    write_field(tmp_path, "0a1b", **{channel: None})
    path = tmp_path / f"0a1b_{channel}.png"
    with pytest.raises(InputError) as caught:
        read_field(tmp_path, "0a1b")
    assert str(caught.value) == f"fields: {path} is missing; ID 0a1b needs red, green, blue and yellow"
    assert find_fields(tmp_path) == ["0a1b"]
    assert field_size(tmp_path, "0a1b") == (HEIGHT, WIDTH)


def test_all_missing_channels_are_named_with_the_ending_of_the_others(tmp_path):
    write_field(tmp_path, ending=".jpg", data=encoded(ramp(), ".jpg"), green=None, yellow=None)
    with pytest.raises(InputError, match=r"a_green\.jpg and .*a_yellow\.jpg are missing"):
        read_field(tmp_path, "a")


def test_channels_of_different_sizes_are_refused(tmp_path):
    write_field(tmp_path, blue=encoded(ramp().T.copy()))
    with pytest.raises(InputError, match=r"ID a .*red 40 x 24.*blue 24 x 40"):
        read_field(tmp_path, "a")


@pytest.mark.parametrize(
    "id", ["1.2.3", "x_red", "a[b]*?", "_", "né", "00123", "1e5", "a b", "x.png", "日本"]
)
def test_ids_are_text_of_any_kind(tmp_path, id):
    write_field(tmp_path / "Zürich 細胞", id)
    assert find_fields(tmp_path / "Zürich 細胞") == [id]
    assert read_field(str(tmp_path / "Zürich 細胞"), id).shape == (4, HEIGHT, WIDTH)


@pytest.mark.parametrize("id", [5, 1.5, None, "", "../a", "a" * 300])
def test_what_is_no_id_is_refused(tmp_path, id):
    write_field(tmp_path)
    with pytest.raises(InputError, match="ID"):
        read_field(tmp_path, id)
    with pytest.raises(InputError, match="ID"):
        field_size(tmp_path, id)


def test_a_channel_in_two_formats_is_read_from_the_lossless_one(tmp_path):
    write_field(tmp_path, ending=".jpg", data=encoded(ramp(), ".jpg"))
    write_field(tmp_path, data=encoded(ramp()))
    assert find_fields(tmp_path) == ["a"]
    assert (read_field(tmp_path, "a") == ramp()).all()


def test_only_channel_files_make_a_field(tmp_path):
    write_field(tmp_path, "b")
    write_field(tmp_path, "a", red=None, green=None)
    for name in (
        "._b_red.png",
        ".c_red.png",
        "d_red.png.tmp",
        "e.png",
        "f_purple.png",
        "_red.png",
        "g_red",
        "h_RED.png",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "i_red.png").mkdir()
    assert find_fields(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("ending", [".jpg", ".png", ".TIF"])
@pytest.mark.parametrize("id", ["k", "1e5", "a_b", "x_red", "38_F5_1", "é.1"])
@pytest.mark.parametrize(
    "merged",
    [
        ("blue_red_green",),
        ("blue_red_green_yellow",),
        ("red_green", "blue_red_green", "blue_red_green_yellow", "selected", "blue_red_green_thumb"),
        # Every set of two channels: all but blue look like channels of a field ID_blue.
        ("blue_red", "blue_green", "blue_yellow", "red_green", "red_yellow", "green_yellow"),
    ],
    ids=" ".join,
)
def test_merged_pictures_beside_the_channels_are_no_fields(tmp_path, id, merged, ending):
    write_field(tmp_path, id, ending)
    for name in merged:
        (tmp_path / f"{id}_{name}{ending}").write_bytes(encoded(ramp()))
    assert find_fields(tmp_path) == [id]


def test_a_merged_picture_without_its_channels_is_no_field(tmp_path):
    write_field(tmp_path, "a")
    (tmp_path / "m_blue_red_green.jpg").write_bytes(encoded(ramp(), ".jpg"))
    assert find_fields(tmp_path) == ["a"]


def test_ids_that_end_in_colours_are_fields_beside_each_other(tmp_path):
    ids = ["x", "x_blue", "x_blue_red", "x_red", "x_yellow"]
    for id in ids:
        write_field(tmp_path, id)
    write_field(tmp_path, "x_green", yellow=None)
    write_field(tmp_path, "y_yellow", yellow=None)
    write_field(tmp_path, "y")
    assert find_fields(tmp_path) == sorted([*ids, "x_green", "y", "y_yellow"])


def test_a_field_that_lacks_a_channel_is_found_though_its_id_ends_in_a_colour(tmp_path):
    write_field(tmp_path, "x")
    write_field(tmp_path, "x_red", green=None)
    write_field(tmp_path, "z_red", red=None, yellow=None)
    assert find_fields(tmp_path) == ["x", "x_red", "z_red"]


def test_the_atlas_own_downloads_are_one_field(shared):
    folder = shared / "inputs" / "merged"
    assert find_fields(folder) == ["k"]
    assert read_field(folder, "k").shape == (4, 48, 64)


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="is missing"):
        find_fields(tmp_path / "none")
    with pytest.raises(InputError, match="is a file"):
        find_fields(tmp_path / "file")
    with pytest.raises(InputError, match="none is missing"):
        read_field(tmp_path / "none", "a")


def test_the_size_is_had_without_decoding(tmp_path):
    write_field(tmp_path, red=b"", green=encoded(ramp())[:40], blue=None, yellow=None)
    assert field_size(tmp_path, "a") == (HEIGHT, WIDTH)
    with pytest.raises(InputError, match="no image of ID b"):
        field_size(tmp_path, "b")


def test_a_resized_field_is_bilinear_channel_by_channel():
    field = np.stack([ramp(), ramp(100), ramp(0), ramp(7)])
    resized = resize_field(field, 16)
    assert resized.shape == (4, 16, 16)
    assert resized.flags.c_contiguous
    assert (resized == cv2.resize(field.transpose(1, 2, 0), (16, 16)).transpose(2, 0, 1)).all()


def test_a_field_of_the_right_size_is_copied_not_shared():
    field = np.zeros((4, 8, 8), np.uint8)
    assert not np.shares_memory(resize_field(field, 8), field)


@pytest.mark.parametrize(
    "field", [np.zeros((4, 8, 8), np.float32), np.zeros((8, 8), np.uint8), np.zeros((4, 0, 8), np.uint8)]
)
def test_what_is_no_field_is_not_resized(field):
    with pytest.raises(InputError, match="expected uint8"):
        resize_field(field, 8)
