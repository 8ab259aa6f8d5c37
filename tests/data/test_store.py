"""Resized fields are kept, found stale or damaged, and made again."""

import logging
import os
import shutil
import sys

import cv2
import numpy as np
import pytest

from hpa_kit.cli import main
from hpa_kit.config import StoreSettings
from hpa_kit.data import CHANNELS, FieldStore, kept_fields, read_field, resize_field, store_fields
from hpa_kit.errors import InputError

IDS = ["1e5", "00123", "zoë"]


def write_field(folder, id, seed, shape=(40, 48), channels=CHANNELS, ending=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for channel in channels:
        plane = rng.integers(0, 256, shape, dtype=np.uint8)
        (folder / f"{id}_{channel}{ending}").write_bytes(cv2.imencode(ending, plane)[1].tobytes())


@pytest.fixture
def images(tmp_path):
    for seed, id in enumerate(IDS):
        write_field(tmp_path / "images", id, seed)
    return tmp_path / "images"


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept"


def file_of(kept, id, size=32):
    return kept / str(size) / f"{id}.field"


def opened(images, kept, ids=IDS, size=32, **options):
    return FieldStore(images, ids, size, cache=False, kept=kept, **options)


def assert_right(store, images, ids=IDS):
    for number, id in enumerate(ids):
        expected = resize_field(read_field(images, id), store.size).transpose(1, 2, 0)
        assert store[number].dtype == np.uint8 and np.array_equal(store[number], expected)


def forbid_decoding(monkeypatch):
    def never(*_, **__):
        raise AssertionError("a field was decoded")

    monkeypatch.setattr(sys.modules["hpa_kit.data.store"], "read_field", never)


def test_kept_fields_are_the_resized_ones_and_are_not_decoded_again(images, kept, monkeypatch):
    assert_right(opened(images, kept), images)
    expected = [field.copy() for field in map(opened(images, kept).__getitem__, range(3))]
    forbid_decoding(monkeypatch)
    for number, field in enumerate(expected):
        assert np.array_equal(opened(images, kept)[number], field)


@pytest.mark.parametrize("with_pyarrow", [True, False])
def test_fields_are_kept_with_and_without_pyarrow(images, kept, monkeypatch, with_pyarrow):
    if with_pyarrow:
        pytest.importorskip("pyarrow")
    else:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert_right(opened(images, kept), images)
    packing = b'"packing": "zstd"' if with_pyarrow else b'"packing": "zlib"'
    assert packing in file_of(kept, "1e5").read_bytes()


def test_fields_of_a_machine_with_pyarrow_are_made_again_where_it_is_not(images, kept, monkeypatch):
    pytest.importorskip("pyarrow")
    opened(images, kept)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    fields = opened(images, kept)
    with pytest.warns(UserWarning, match="zstd needs pyarrow; made again"):
        assert_right(fields, images, IDS[:1])
    assert_right(fields, images, IDS[:1])


def test_a_store_fills_memory_too(images, kept, monkeypatch):
    opened(images, kept)
    forbid_decoding(monkeypatch)
    fields = FieldStore(images, IDS, 32, cache=True, kept=kept)
    assert fields.in_memory
    shutil.rmtree(kept)
    assert fields[2].shape == (32, 32, 4)


def test_one_folder_serves_two_sizes(images, kept):
    small, large = opened(images, kept, size=16), opened(images, kept, size=64)
    assert_right(small, images)
    assert_right(large, images)


def test_a_changed_image_is_read_anew(images, kept):
    opened(images, kept)
    write_field(images, IDS[1], seed=99, channels=("green",))
    with pytest.warns(UserWarning, match=r"00123.field was made from another 00123_green.png; made again$"):
        fields = opened(images, kept)
    assert_right(fields, images)


def test_an_image_changed_within_its_size_is_read_anew(images, kept):
    """Uncompressed tif: as many bytes whatever it shows, and its end says nothing of its middle."""
    tifs = images.parent / "tifs"
    tifs.mkdir()
    flat = np.full((64, 64), 7, np.uint8)
    for channel in CHANNELS:
        cv2.imwrite(str(tifs / f"t_{channel}.tif"), flat, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    opened(tifs, kept, ["t"])
    changed = flat.copy()
    changed[:20] = 200
    before = (tifs / "t_red.tif").stat().st_size
    cv2.imwrite(str(tifs / "t_red.tif"), changed, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    assert (tifs / "t_red.tif").stat().st_size == before
    with pytest.warns(UserWarning, match="another t_red.tif"):
        fields = opened(tifs, kept, ["t"])
    assert_right(fields, tifs, ["t"])


def test_a_copy_of_the_images_with_other_times_serves_as_well(images, kept, monkeypatch):
    opened(images, kept)
    for path in images.iterdir():
        os.utime(path, (1, 1))
    forbid_decoding(monkeypatch)
    opened(images, kept)


def test_fields_of_another_version_are_made_again(images, kept, monkeypatch):
    opened(images, kept)
    monkeypatch.setattr(kept_fields, "VERSION", kept_fields.VERSION + 1)
    with pytest.warns(UserWarning, match="not written by this version.*as are 2 more"):
        opened(images, kept)
    opened(images, kept)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file_is_made_again(images, kept, keep):
    opened(images, kept)
    path = file_of(kept, "1e5")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.warns(UserWarning, match="made again"):
        fields = opened(images, kept)
    assert_right(fields, images)


def test_damage_inside_is_found_when_the_field_is_read_and_is_mended(images, kept):
    fields = opened(images, kept)
    path = file_of(kept, "1e5")
    whole = path.read_bytes()
    path.write_bytes(whole[:-200] + bytes(100) + whole[-100:])
    with pytest.warns(UserWarning, match=r"1e5.field cannot be read"):
        assert_right(fields, images, IDS[:1])
    assert path.read_bytes() == whole


def test_the_command_finds_damage_inside(images, kept):
    settings = StoreSettings(data=images, out=kept, size=32)
    assert store_fields(settings) == kept
    path = file_of(kept, "zoë")
    whole = path.read_bytes()
    path.write_bytes(whole[:-200] + bytes(100) + whole[-100:])
    with pytest.warns(UserWarning, match="made again"):
        store_fields(settings)
    assert path.read_bytes() == whole


def test_a_stopped_run_goes_on_and_does_nothing_twice(images, kept):
    opened(images, kept, IDS[:1])
    first = file_of(kept, IDS[0]).stat().st_mtime_ns
    assert_right(opened(images, kept), images)
    assert file_of(kept, IDS[0]).stat().st_mtime_ns == first


def test_shards_together_make_all_fields_once(images, kept):
    for shard in range(2):
        store_fields(StoreSettings(data=images, out=kept, size=32, shard=shard, shards=2))
        assert len(list((kept / "32").iterdir())) == (1, 3)[shard]


def test_more_shards_than_fields_leave_some_with_nothing_to_do(images, kept):
    for shard in range(5):
        store_fields(StoreSettings(data=images, out=kept, size=32, shard=shard, shards=5))
    assert len(list((kept / "32").iterdir())) == 3


def test_all_fields_that_cannot_be_read_are_named_and_the_others_kept(images, kept):
    for id in IDS[:2]:
        (images / f"{id}_blue.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"^fields: 2 of 3 fields cannot be read: ID 00123, 1e5;.*0 bytes"):
        opened(images, kept)
    assert file_of(kept, IDS[2]).is_file()


def test_a_folder_without_a_field_is_refused(tmp_path, kept):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="nothing holds no field to work on"):
        store_fields(StoreSettings(data=tmp_path / "nothing", out=kept, size=32))


def test_a_folder_that_cannot_be_written_is_said(images, kept):
    kept.write_text("")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        opened(images, kept)
    kept.unlink()
    kept.mkdir()
    (kept / "32").write_text("")
    with (
        pytest.warns(UserWarning, match="Not a directory"),
        pytest.raises(InputError, match="cannot be written"),
    ):
        opened(images, kept)


def test_three_channels_need_no_yellow_and_four_do_not_take_them(images, kept):
    four = [field.copy() for field in map(opened(images, kept / "all").__getitem__, range(3))]
    yellow = [path.rename(path.with_suffix(".gone")) for path in images.glob("*_yellow.png")]
    three = opened(images, kept, n_channels=3)
    shared = FieldStore(images, IDS, 32, cache=False, kept=kept / "all", n_channels=3)
    decoded = FieldStore(images, IDS, 32, n_channels=3)
    for number, field in enumerate(four):
        for fields in (three, shared, decoded):
            assert np.array_equal(fields[number][..., :3], field[..., :3])
            assert not fields[number][..., 3].any()
    for path in yellow:
        path.rename(path.with_suffix(".png"))
    with pytest.warns(UserWarning, match="lacks yellow.*made again"):
        again = opened(images, kept)
    assert np.array_equal(again[0], four[0])


def test_fields_may_lie_in_several_folders(images, kept):
    write_field(images.parent / "more", "far", seed=5, ending=".jpg")
    folders = dict.fromkeys(IDS, images) | {"far": images.parent / "more"}
    fields = FieldStore(folders, [*IDS, "far"], 32, cache=False, kept=kept)
    assert_right(fields, images)
    assert np.array_equal(
        fields[3].transpose(2, 0, 1), resize_field(read_field(images.parent / "more", "far"), 32)
    )


def test_a_killed_writer_leaves_only_whole_files(images, kept, warm_python):
    # The process dies in the middle of its second field.
    code = f"""
import itertools, os, sys, zlib
from pathlib import Path
from hpa_kit.data import FieldStore
compress, count = zlib.compress, itertools.count()
sys.modules["pyarrow"] = None
zlib.compress = lambda *a: os._exit(9) if next(count) else compress(*a)
FieldStore(Path({str(images)!r}), {IDS!r}, 32, False, Path({str(kept)!r}))
"""
    assert warm_python.run(["-c", code], "images").returncode == 9
    fields = opened(images, kept)
    assert_right(fields, images)
    assert sorted(path.name for path in (kept / "32").glob("[!.]*")) == sorted(f"{id}.field" for id in IDS)


def test_store_is_a_command(images, kept, capsys):
    assert main(["store", str(images), "--size", "32", "--out", str(kept), "--in-channels", "3"]) == 0
    assert str(kept) in capsys.readouterr().out
    assert (
        main(["store", str(images), "--size", "32", "--out", str(kept), "--shards", "2", "--shard", "2"]) == 2
    )


def test_it_says_what_resizing_and_reading_all_fields_takes(images, kept, caplog):
    with caplog.at_level(logging.INFO):
        FieldStore(images, IDS, 32, kept=kept)
    lines = [line for line in caplog.messages if " expect " in line]
    assert [line.partition(":")[0] for line in lines] == ["resize fields", "read fields"]
    assert all("for 3 fields" in line and "GiB" in line for line in lines)
    assert "the fields hold" in lines[1]
