import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from itertools import chain

import cv2
import numpy as np
import pytest

from hpa_kit.archives import own_archives, read_archive
from hpa_kit.cells import ClassicalSegmenter, LabelMaps, read_label_maps, write_label_maps
from hpa_kit.cells.label_maps import label_map_info
from hpa_kit.cells.segment import segment
from hpa_kit.config import SegmentSettings, make_settings
from hpa_kit.data import CHANNELS
from hpa_kit.errors import InputError

segment_module = import_module("hpa_kit.cells.segment")


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


def test_npz_files_of_others_are_refused_and_stay_as_they_were(tmp_path, images):
    (tmp_path / "cells").mkdir()
    np.savez(tmp_path / "cells" / "empty.npz", cells=np.ones((64, 80), np.uint8))
    before = (tmp_path / "cells" / "empty.npz").read_bytes()
    with pytest.raises(InputError, match=r"^segment: .*empty\.npz holds cells, and hpa-kit did not write it"):
        segment(settings(tmp_path))
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["empty.npz"]
    assert (tmp_path / "cells" / "empty.npz").read_bytes() == before


def test_whole_files_stay_and_damaged_and_outdated_ones_are_made_again_with_a_warning(tmp_path, images):
    out = segment(settings(tmp_path))
    kept = (out / "one.npz").stat().st_mtime_ns
    whole = (out / "00123.npz").read_bytes()
    (out / "00123.npz").write_bytes(whole[: len(whole) // 2])
    wrong = np.ones((64, 80), np.uint8)
    write_label_maps(out / "empty.npz", LabelMaps(wrong, wrong), {"segmenter": "another"})
    with pytest.warns(UserWarning) as said:
        segment(settings(tmp_path))
    assert sorted(str(w.message).split(".npz")[0].rsplit("/")[-1] for w in said) == ["00123", "empty"]
    assert (out / "one.npz").stat().st_mtime_ns == kept
    assert read_label_maps(out, "00123", images["00123"]).cells.max() == 1
    assert not read_label_maps(out, "empty", images["empty"]).cells.any()


def test_a_file_of_another_size_or_other_settings_is_made_again(tmp_path, images):
    out = segment(settings(tmp_path))
    ones = np.ones((10, 10), np.int32)
    write_label_maps(out / "one.npz", LabelMaps(ones, ones), label_map_info(out / "one.npz").settings)
    right = LabelMaps(*(np.ones((96, 160), np.int32),) * 2)
    write_label_maps(out / "00123.npz", right, {"segmenter": "another"})
    with pytest.warns(UserWarning) as said:
        segment(settings(tmp_path))
    (other,) = [str(w.message) for w in said if "00123.npz" in str(w.message)]
    assert "was made with segmenter another (now classical)" in other and other.endswith("; made again")
    assert label_map_info(out / "one.npz").shape == (128, 128)
    assert label_map_info(out / "00123.npz").settings == ClassicalSegmenter().settings


def test_label_maps_of_an_image_that_is_another_now_are_made_again(tmp_path, images, draw_field):
    out = segment(settings(tmp_path))
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    blue = tmp_path / "images" / "one_blue.png"
    content = blue.read_bytes()
    blue.unlink()
    blue.write_bytes(content)  # a copy of another time
    segment(settings(tmp_path))
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    other = draw_field((128, 128), [(0.5, 0.5)])
    for name, channel in zip(CHANNELS, other, strict=True):
        cv2.imwrite(str(tmp_path / "images" / f"one_{name}.png"), channel)
    with pytest.warns(UserWarning, match="one.npz was made from other images of ID one; made again"):
        segment(settings(tmp_path))
    assert read_label_maps(out, "one", other).cells.max() == 1
    after = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert [name for name in before if after[name] != before[name]] == ["one.npz"]


def test_label_maps_that_do_not_say_of_which_images_they_are_stay(tmp_path, images):
    """Those that older versions wrote."""
    out = segment(settings(tmp_path))
    maps = read_label_maps(out, "one", images["one"])
    write_label_maps(out / "one.npz", maps, label_map_info(out / "one.npz").settings)
    before = (out / "one.npz").stat().st_mtime_ns
    segment(settings(tmp_path))
    assert (out / "one.npz").stat().st_mtime_ns == before


def test_fields_without_a_cell_are_counted_in_the_end_by_every_start(tmp_path, images, caplog):
    for _ in range(2):
        caplog.clear()
        segment(settings(tmp_path))
        assert caplog.messages[-1] == "segment: 1 of 3 fields have no cell"


def test_a_field_that_cannot_be_read_is_named_and_stops_no_other(tmp_path, images):
    (tmp_path / "images" / "one_yellow.png").unlink()
    (tmp_path / "images" / "empty_blue.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 of 3 fields.*empty, one"):
        segment(settings(tmp_path))
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["00123.npz"]


def test_fields_without_yellow_are_taken_where_that_is_asked_for_and_yellow_is_used_where_it_is(
    tmp_path, images
):
    whole = segment(settings(tmp_path)).rename(tmp_path / "whole")
    (tmp_path / "images" / "one_yellow.png").unlink()
    out = segment(settings(tmp_path, in_channels=3))
    assert read_label_maps(out, "one", images["one"]).cells.max() == 2
    assert (out / "00123.npz").read_bytes() == (whole / "00123.npz").read_bytes()


def test_a_file_in_the_folders_place_is_refused(tmp_path, images):
    (tmp_path / "cells").write_text("")
    with pytest.raises(InputError, match="is a file"):
        segment(settings(tmp_path))


def test_a_resume_with_other_workers_batches_or_paths_keeps_every_file(tmp_path, images):
    out = segment(settings(tmp_path))
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    out.rename(tmp_path / "moved")
    again = settings(tmp_path, workers=3, batch=1, segmenter="classical", device="cpu")
    moved = again.model_copy(update={"out": tmp_path / "moved"})
    assert {path.name: path.stat().st_mtime_ns for path in segment(moved).iterdir()} == before


def test_shards_are_contiguous_shares_that_together_do_every_field_once(tmp_path, images):
    out = tmp_path / "cells"
    made = []
    for shard in range(4):  # one more than there are fields
        before = set(out.iterdir()) if out.exists() else set()
        segment(settings(tmp_path, shard=shard, shards=4))
        made += [sorted(path.name for path in set(out.iterdir()) - before)]
    assert sorted(made) == [[], ["00123.npz"], ["empty.npz"], ["one.npz"]]
    assert [name for names in made for name in names] == ["00123.npz", "empty.npz", "one.npz"]


def test_a_shard_that_is_none_of_the_shards_is_refused(tmp_path):
    with pytest.raises(InputError, match="shard 2 is not one of 2"):
        make_settings(SegmentSettings, {"data": "d", "out": "o", "shard": 2, "shards": 2})


def test_shards_at_work_in_one_folder_do_not_harm_each_other(tmp_path, images):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda k: segment(settings(tmp_path, shard=k, shards=3)), range(3)))
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == [
        "00123.npz",
        "empty.npz",
        "one.npz",
    ]


class Particular(ClassicalSegmenter):
    """Fails on fields of one size."""

    def _segment(self, field):
        if field.shape[1:] == (96, 160):
            raise ZeroDivisionError("not this one")
        return super()._segment(field)


def test_a_field_on_which_the_segmenter_fails_is_named_and_stops_no_other(tmp_path, images, monkeypatch):
    monkeypatch.setattr(segment_module, "segmenter", lambda *_: Particular())
    with pytest.raises(InputError, match="1 of 3 fields.*00123.*not this one"):
        segment(settings(tmp_path))
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == ["empty.npz", "one.npz"]


@contextmanager
def stop_before_one_is_written(monkeypatch):
    """Ctrl-C in the block, as the label maps of field `one` are to be written."""

    def stopped(*arguments):
        if arguments[0].name == "one.npz":
            raise KeyboardInterrupt
        write_label_maps(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(segment_module, "write_label_maps", stopped)
        yield


def test_what_was_done_before_a_stop_is_kept(tmp_path, images, monkeypatch):
    with stop_before_one_is_written(monkeypatch):
        segment(settings(tmp_path))
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert sorted(kept) == ["00123.npz", "empty.npz"]
    segment(settings(tmp_path))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(after) == 3
    assert kept.items() <= after.items()


@pytest.fixture
def archives_of_two(monkeypatch):
    monkeypatch.setattr("hpa_kit.cells.packing.PER_ARCHIVE", 2)


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def archived(folder):
    """The names in each archive; nothing else may lie there."""
    assert all(path.suffix == ".zip" for path in folder.iterdir())
    return [sorted(file.name for file in read_archive(path)) for path in own_archives(folder)]


@pytest.mark.usefixtures("archives_of_two")
@pytest.mark.parametrize("workers", [1, 3])
def test_packed_label_maps_are_the_same_and_a_second_start_does_nothing(
    tmp_path, images, monkeypatch, workers
):
    out = segment(settings(tmp_path, workers=workers, pack=True))
    assert sorted(chain(*archived(out))) == ["00123.npz", "empty.npz", "one.npz"]
    assert len(archived(out)) == 2
    for id, field in images.items():
        np.testing.assert_array_equal(read_label_maps(out, id, field).cells, ClassicalSegmenter()(field)[1])
    before = times(out)
    monkeypatch.setattr(ClassicalSegmenter, "_segment", lambda *_: pytest.fail("segmented again"))
    for pack in (True, False):
        segment(settings(tmp_path, pack=pack))
    assert times(out) == before


@pytest.mark.usefixtures("archives_of_two")
def test_of_packed_label_maps_those_that_are_outdated_are_made_again_alone(tmp_path, images, draw_field):
    out = segment(settings(tmp_path, pack=True))
    other = draw_field((128, 128), [(0.5, 0.5)])
    for name, channel in zip(CHANNELS, other, strict=True):
        cv2.imwrite(str(tmp_path / "images" / f"one_{name}.png"), channel)
    with pytest.warns(UserWarning, match=r"\.zip/one\.npz was made from other images of ID one") as said:
        segment(settings(tmp_path))
    assert len(said) == 1
    assert [path.name for path in out.iterdir() if path.suffix != ".zip"] == ["one.npz"]
    segment(settings(tmp_path, pack=True))
    assert read_label_maps(out, "one", other).cells.max() == 1
    assert len(archived(out)) == 2


@pytest.mark.usefixtures("archives_of_two")
def test_packed_label_maps_that_were_done_before_a_stop_are_kept(tmp_path, images, monkeypatch):
    with stop_before_one_is_written(monkeypatch):
        segment(settings(tmp_path, pack=True, workers=1))
    find, made = ClassicalSegmenter._segment, []
    monkeypatch.setattr(
        ClassicalSegmenter, "_segment", lambda self, field: made.append(1) or find(self, field)
    )
    out = segment(settings(tmp_path, pack=True))
    assert len(made) == 1 and len(archived(out)) == 2


@pytest.mark.usefixtures("archives_of_two")
def test_shards_that_pack_one_folder_do_not_harm_each_other(tmp_path, images):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda k: segment(settings(tmp_path, shard=k, shards=3, pack=True)), range(3)))
    assert sorted(chain(*archived(tmp_path / "cells"))) == ["00123.npz", "empty.npz", "one.npz"]
    assert len(archived(tmp_path / "cells")) == 2


@pytest.mark.usefixtures("archives_of_two")
def test_a_field_that_fails_does_not_keep_the_others_from_being_packed(tmp_path, images):
    (tmp_path / "images" / "one_yellow.png").unlink()
    with pytest.raises(InputError, match="1 of 3 fields"):
        segment(settings(tmp_path, pack=True))
    assert archived(tmp_path / "cells") == [["00123.npz", "empty.npz"]]


def test_a_damaged_archive_is_named_and_stays(tmp_path, images):
    out = segment(settings(tmp_path, pack=True))
    (path,) = out.iterdir()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=f"^archive: .*{path.name} cannot be read: .*expected a whole zip"):
        segment(settings(tmp_path))
    assert list(out.iterdir()) == [path]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_kill_may_cost_is_three_fields_per_worker(tmp_path, images, monkeypatch, patience, workers):
    """The first files are written only when so many are under way; more never are."""
    for k in range(8):
        for name in CHANNELS:
            copied = (tmp_path / "images" / f"one_{name}.png").read_bytes()
            (tmp_path / "images" / f"more{k}_{name}.png").write_bytes(copied)
    find, begun, written, under_way, most = ClassicalSegmenter._segment, [], [], [], threading.Event()

    def found(self, field):
        begun.append(field)
        under_way.append(len(begun) - len(written))
        if len(begun) == 3 * workers:
            most.set()
        return find(self, field)

    def late(path, *arguments):
        assert most.wait(patience)
        write_label_maps(path, *arguments)
        written.append(path)

    monkeypatch.setattr(ClassicalSegmenter, "_segment", found)
    monkeypatch.setattr(segment_module, "write_label_maps", late)
    segment(settings(tmp_path, workers=workers))
    assert len(begun) == len(written) == 8 + 3
    assert max(under_way) == 3 * workers


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, images, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segment_module, "write_label_maps", full)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        segment(settings(tmp_path))


def test_it_says_once_what_it_expects_to_take(tmp_path, images, caplog):
    with caplog.at_level("INFO"):
        segment(settings(tmp_path))
    lines = [record.message for record in caplog.records if "segment: expect " in record.message]
    assert len(lines) == 1
    assert "for 3 fields" in lines[0]
    assert "memory" in lines[0]
