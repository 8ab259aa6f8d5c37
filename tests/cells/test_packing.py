"""Label maps in few archives: nothing is lost at any moment, and what reads label maps reads them there."""

import os
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hpa_kit.archives import own_archives, read_archive
from hpa_kit.cells import LabelMaps, MaskFolder, Packer, label_map_ids, pack_label_maps, write_label_maps
from hpa_kit.cells import packing as packing_module
from hpa_kit.cells.packing import remove_packed
from hpa_kit.errors import InputError
from hpa_kit.resume import field_stamps


def write(folder, ids, cells=1):
    """Label maps of fields with so many cells, one pixel each."""
    for id in ids:
        row = np.minimum(np.arange(1, 9), cells)[None].astype(np.int32)
        write_label_maps(folder / f"{id}.npz", LabelMaps(row, row))


def cells(folder, ids):
    """How many cells each field has."""
    found = MaskFolder(folder)
    return {id: int(found.read_cells(id).max()) for id in ids}


def loose(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".zip")


def packed(folder):
    """The names in each archive, by rising number."""
    return ["".join(sorted(file.name[0] for file in read_archive(path))) for path in own_archives(folder)]


def test_label_maps_are_read_from_archives_as_before_and_what_others_wrote_stays_loose(tmp_path):
    write(tmp_path, "abcdefg", cells=3)
    np.savez(tmp_path / "other.npz", cells=np.ones((2, 2), np.uint8))
    for name in ("x.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "damaged.npz").write_bytes(whole[: len(whole) // 2])
    assert pack_label_maps(tmp_path, 3) == 0
    assert packed(tmp_path) == ["abc", "def", "g"]
    assert loose(tmp_path) == ["damaged.npz", "notes.txt", "other.npz", "x.png"]
    assert cells(tmp_path, "abcdefg") == dict.fromkeys("abcdefg", 3)
    with zipfile.ZipFile(own_archives(tmp_path)[0]) as archive:
        assert archive.read("a.npz") == whole
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_what_fills_no_archive_may_wait(tmp_path):
    write(tmp_path, "abcde")
    assert pack_label_maps(tmp_path, 3, rest=False) == 2
    assert packed(tmp_path) == ["abc"] and loose(tmp_path) == ["d.npz", "e.npz"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert pack_label_maps(tmp_path, 3, rest=False) == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("portions", ["abcd efgh ij", "a b c d e f g h", "abc de fg h ij", "abcdefghij"])
def test_archives_are_as_few_as_can_be_however_often_the_folder_was_packed(tmp_path, portions):
    for portion in portions.split():
        write(tmp_path, portion)
        pack_label_maps(tmp_path, 3)
    ids = portions.replace(" ", "")
    assert len(packed(tmp_path)) == -(-len(ids) // 3)
    assert sorted("".join(packed(tmp_path))) == list(ids)
    assert cells(tmp_path, ids) == dict.fromkeys(ids, 1)


def test_a_full_archive_is_not_written_again(tmp_path):
    write(tmp_path, "abcd")
    pack_label_maps(tmp_path, 3)
    full, begun = own_archives(tmp_path)
    write(tmp_path, "ef")
    pack_label_maps(tmp_path, 3)
    assert own_archives(tmp_path)[0] == full and not begun.exists()
    assert packed(tmp_path) == ["abc", "def"]


def test_a_label_map_that_was_made_again_counts_loose_and_packed_and_archives_of_none_that_count_go(tmp_path):
    write(tmp_path, "abcd")
    pack_label_maps(tmp_path, 2)
    write(tmp_path, "a", cells=5)
    assert cells(tmp_path, "ab") == {"a": 5, "b": 1}
    pack_label_maps(tmp_path, 2)
    assert cells(tmp_path, "abcd") == {"a": 5, "b": 1, "c": 1, "d": 1}
    write(tmp_path, "abcd", cells=7)
    pack_label_maps(tmp_path, 2)
    pack_label_maps(tmp_path, 2)
    assert packed(tmp_path) == ["ab", "cd"]
    assert cells(tmp_path, "abcd") == dict.fromkeys("abcd", 7)


def test_archives_of_others_stay_and_nothing_is_left_to_them(tmp_path):
    write(tmp_path, "abc")
    with zipfile.ZipFile(tmp_path / "zz backup.zip", "w") as archive:
        for id in "abc":
            archive.write(tmp_path / f"{id}.npz", f"{id}.npz")
    before = (tmp_path / "zz backup.zip").read_bytes()
    write(tmp_path, "a", cells=4)
    pack_label_maps(tmp_path, 2)
    assert loose(tmp_path) == [] and packed(tmp_path) == ["ab", "c"]
    assert cells(tmp_path, "abc") == {"a": 4, "b": 1, "c": 1}
    assert (tmp_path / "zz backup.zip").read_bytes() == before


def test_fields_are_taken_out_of_archives(tmp_path):
    write(tmp_path, "abcdef")
    pack_label_maps(tmp_path, 3)
    write(tmp_path, "b", cells=5)
    pack_label_maps(tmp_path, 3)  # b lies in two archives now
    before = own_archives(tmp_path)
    remove_packed(tmp_path, ["nothing"])
    assert own_archives(tmp_path) == before
    remove_packed(tmp_path, "bdef")
    assert sorted("".join(packed(tmp_path))) == ["a", "c"]
    assert not any(MaskFolder(tmp_path).has(id) for id in "bdef")


class Killed(BaseException):
    """The process is gone; nothing more is done."""


@pytest.fixture
def killed_before(monkeypatch):
    """A context in which the N-th operation on files, and all after it, are not done; the lock's aside."""
    monkeypatch.setattr("hpa_kit.files._YOUNG_SECONDS", -1.0)

    @contextmanager
    def context(step):
        done = 0

        def counted(function):
            def call(subject, *args, **kwargs):
                nonlocal done
                if not str(subject).endswith(packing_module.LOCK):
                    done += 1
                    if done >= step:
                        raise Killed
                return function(subject, *args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for home, name in (
                (Path, "replace"),
                (Path, "unlink"),
                (os, "fsync"),
                (zipfile.ZipFile, "writestr"),
            ):
                patch.setattr(home, name, counted(getattr(home, name)))
            yield

    return context


def test_a_kill_between_any_two_steps_loses_nothing_and_the_next_call_puts_it_right(tmp_path, killed_before):
    """Loose ones fill an archive and one that is not full; one of them was made again since it was packed."""
    expected, steps, ended = dict.fromkeys("bcdefg", 1) | {"a": 6}, 0, False
    while not ended:
        steps += 1
        folder = tmp_path / str(steps)
        write(folder, "abcd")
        pack_label_maps(folder, 3)
        write(folder, "efg")
        write(folder, "a", cells=6)
        reader = MaskFolder(folder)
        reader.check()
        try:
            with killed_before(steps):
                pack_label_maps(folder, 3)
            ended = True
        except Killed:
            pass
        assert cells(folder, expected) == expected, steps
        assert {id: reader.read_cells(id).max() for id in expected} == expected, steps  # it had looked before
        visible = [name for name in loose(folder) if name[0] != "."]
        assert set(visible) <= {f"{id}.npz" for id in "aefg"}
        assert pack_label_maps(folder, 3) == 0
        assert loose(folder) == []
        assert cells(folder, expected) == expected, steps
        assert len(packed(folder)) == 3
    assert steps > 15


def test_a_file_that_another_process_makes_again_while_it_is_packed_is_not_removed(tmp_path, monkeypatch):
    write(tmp_path, "ab")
    whole = os.fsync

    def meanwhile(handle):
        write(tmp_path, "a", cells=4)
        whole(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", meanwhile)
        pack_label_maps(tmp_path, 2)
    assert packed(tmp_path) == ["ab"] and loose(tmp_path) == ["a.npz"]
    assert cells(tmp_path, "ab") == {"a": 4, "b": 1}


def test_a_disk_that_takes_no_archive_is_one_line_and_nothing_is_lost(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    write(tmp_path, "abc")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="No space left"):
            pack_label_maps(tmp_path, 2)
    assert loose(tmp_path) == ["a.npz", "b.npz", "c.npz"] and packed(tmp_path) == []


@pytest.mark.parametrize("lost", [10, 30, 200])
def test_a_damaged_archive_is_refused_by_its_name_and_nothing_is_removed(tmp_path, lost):
    write(tmp_path, "abcd")
    pack_label_maps(tmp_path, 2)
    (first, second) = own_archives(tmp_path)
    first.write_bytes(first.read_bytes()[:-lost])
    write(tmp_path, "abcd", cells=2)
    before = sorted(tmp_path.iterdir())
    for call in (pack_label_maps, lambda folder: MaskFolder(folder).check()):
        with pytest.raises(InputError, match=f"{first.name} cannot be read: .*; expected a whole zip"):
            call(tmp_path)
    assert sorted(tmp_path.iterdir()) == before and second.exists()


SHARD = """
import sys
from pathlib import Path
import numpy as np
from hpa_kit.cells import LabelMaps, Packer, packing, write_label_maps
folder, ids = Path(sys.argv[1]), sys.argv[2]
packing.PER_ARCHIVE, one = 4, np.ones((2, 3), np.int32)
(folder / f"{ids}.ready").touch()
while len(list(folder.glob("*.ready"))) < 2:
    pass
packer = Packer(folder, True)
packer.begin()
for id in ids:
    write_label_maps(folder / f"{id}.npz", LabelMaps(one, one))
    packer.add()
packer.end()
"""


def test_two_processes_that_write_to_one_folder_and_pack_it_lose_nothing(tmp_path, patience, warm_python):
    shards = ("abcdefghijklmn", "mnopqrstuvwxyz")  # of two fields both think that they are theirs
    running = [warm_python.start(["-c", SHARD, tmp_path, ids], "images") for ids in shards]
    assert [process.wait(patience) for process in running] == [0, 0]
    pack_label_maps(tmp_path, 4)
    ids = "abcdefghijklmnopqrstuvwxyz"
    assert cells(tmp_path, ids) == dict.fromkeys(ids, 1)
    assert len(packed(tmp_path)) == 7
    assert loose(tmp_path) == [f"{name}.ready" for name in shards]


def test_while_a_folder_grows_no_more_lie_loose_than_an_archive_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(packing_module, "PER_ARCHIVE", 5)
    write(tmp_path, "wx")  # of an earlier start
    np.savez(tmp_path / "other.npz", cells=np.ones((2, 2), np.uint8))
    packer, most = Packer(tmp_path, packs=True), 0
    packer.begin()
    for id in "abcdefghijklm":
        write(tmp_path, id)
        most = max(most, len(loose(tmp_path)))
        packer.add()
    assert most == 1 + 5
    packer.end()
    assert loose(tmp_path) == ["other.npz"] and [len(names) for names in packed(tmp_path)] == [5, 5, 5]


def test_who_does_not_pack_leaves_the_folder_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(packing_module, "PER_ARCHIVE", 1)
    packer = Packer(tmp_path, packs=False)
    packer.begin()
    write(tmp_path, "a")
    packer.add()
    packer.end()
    assert loose(tmp_path) == ["a.npz"]


def test_what_results_depend_on_is_the_same_once_packed_and_another_where_an_archive_is(tmp_path):
    folder = tmp_path / "masks"
    write(folder, "abc")

    def stamps():
        return field_stamps("abc", tmp_path, [(folder, label_map_ids)], {})

    before = stamps()
    content = (folder / "a.npz").read_bytes()
    time = (folder / "a.npz").stat()
    pack_label_maps(folder, 2)
    assert stamps() == before
    (folder / "a.npz").write_bytes(content)  # as a kill leaves both
    os.utime(folder / "a.npz", ns=(time.st_atime_ns, time.st_mtime_ns))
    assert stamps() == before
    write(folder, "a", cells=2)
    after = stamps()
    assert [id for id in "abc" if after[id] != before[id]] == ["a"]
    pack_label_maps(folder, 2)
    assert stamps() == after


@pytest.mark.parametrize("also", [False, True])
def test_archives_of_others_count_by_what_is_in_them(tmp_path, also):
    folder = tmp_path / "masks"
    folder.mkdir()

    def stamps(**files):
        with zipfile.ZipFile(folder / "mine.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(f"{name}.npz", content)
        place = folder / "mine.zip" if also else folder
        return field_stamps("ab", tmp_path, [(place, label_map_ids)], {})

    before = stamps(a="1", b="2")
    assert stamps(b="2", a="1") == before
    after = stamps(a="1", b="3")
    assert after["a"] == before["a"] and after["b"] != before["b"]
    assert stamps(a="1")["b"] not in (before["b"], after["b"])
