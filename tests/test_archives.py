"""Files in zip archives, read where they lie."""

import os
import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpa_kit import archives
from hpa_kit.archives import Packed, entry_of, packed_files, read_archive
from hpa_kit.errors import InputError

FILES = {"a.npz": b"first", "b.png": b"second" * 100, "empty.npy": b""}
OWN = "label_maps_{:04d}_0123abcd.zip"


def write(path, files=None, method=zipfile.ZIP_STORED, below=""):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in (FILES if files is None else files).items():
            archive.writestr(below + name, content)
    return path


def open_files():
    """Of this process, by number; nothing where the system does not say that."""
    folder = Path("/proc/self/fd")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("below", ["", "masks/of mine/"])
def test_files_stored_or_deflated_are_read_whatever_folder_they_were_packed_from(tmp_path, method, below):
    write(tmp_path / "x.ZIP", {**FILES, "._a.npz": b"of a Mac"}, method, below)
    found = packed_files(tmp_path)
    assert {name: file.read() for name, file in found.items()} == FILES
    assert str(found["a.npz"]) == f"{tmp_path / 'x.ZIP'}/a.npz"
    assert packed_files(tmp_path / "x.ZIP") == found


def test_threads_share_what_was_found_and_no_file_stays_open(tmp_path):
    files = {f"{number}.npz": bytes([number]) * 5000 for number in range(64)}
    found = packed_files(write(tmp_path / "x.zip", files).parent)
    before = open_files()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda name: found[name].read(), 4 * list(files)))
    assert read == 4 * list(files.values())
    assert open_files() == before
    assert pickle.loads(pickle.dumps(found)) == found


def test_of_a_name_in_several_archives_the_kits_own_with_the_largest_number_counts(tmp_path):
    for number, name in enumerate([OWN.format(99), OWN.format(9999), "zzz.zip"]):
        write(tmp_path / name, {"a.npz": b"%d" % number, name: b""})
    found = packed_files(tmp_path)
    assert len(found) == 4 and found["a.npz"].read() == b"1"
    write(tmp_path / OWN.format(10000), {"a.npz": b"3"})
    assert packed_files(tmp_path)["a.npz"].read() == b"3"


@pytest.mark.parametrize("below", ["", "label_maps", OWN.format(1)])
def test_an_archive_that_was_unpacked_counts_as_one(tmp_path, below):
    folder = tmp_path / OWN.format(1).removesuffix(".zip") / below
    folder.mkdir(parents=True)
    (folder / "a.npz").write_bytes(b"unpacked")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.npz").touch()
    assert packed_files(tmp_path) == {"a.npz": folder / "a.npz"}


def test_a_stamp_is_the_time_of_the_file_that_was_packed_or_else_of_its_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for time in (0, 1_700_000_000_123_456_789):
            archive.writestr(entry_of(f"{time}", time), b"x")
        archive.writestr("other", b"x")
    assert [file.stamp for file in read_archive(tmp_path / "x.zip")] == [
        0,
        1_700_000_000_123_456_789,
        "8cdc1683",
    ]
    shutil.copy(tmp_path / "x.zip", tmp_path / "y.zip")
    stamps = [[file.stamp for file in read_archive(tmp_path / name)] for name in ("x.zip", "y.zip")]
    assert stamps[0] == stamps[1]


@pytest.mark.parametrize("left", [0, 3, 200, -1])
def test_an_archive_that_breaks_off_is_one_line_that_names_it(tmp_path, left):
    path = write(tmp_path / "x.zip")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(
        InputError, match=r"^archive: .*x\.zip cannot be read: .*; expected a whole zip"
    ) as why:
        packed_files(tmp_path)
    assert f"({path.stat().st_size} bytes)" in str(why.value) and "\n" not in str(why.value)


@pytest.mark.parametrize("keeps_end", [False, True])
def test_an_archive_of_archives_that_breaks_off_is_not_taken_for_the_last_whole_one_in_it(
    tmp_path, keeps_end
):
    """Each npz file is a zip archive of arrays, and says so at its end."""
    inner = write(tmp_path / "inner").read_bytes()
    path = write(tmp_path / "x.zip", {"a.npz": inner, "b.npz": inner})
    content = path.read_bytes()
    path.write_bytes(content[: content.index(inner) + len(inner) + (0 if keeps_end else 20)])
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == list(FILES)  # as Python has it
    with pytest.raises(InputError, match="it breaks off"):
        packed_files(tmp_path)


def test_an_archive_without_any_file_is_one(tmp_path):
    assert packed_files(write(tmp_path / "x.zip", {}).parent) == {}


def damaged(path):
    """Another letter in the middle of what is packed."""
    content = path.read_bytes()
    path.write_bytes(content.replace(b"secondsecond", b"secondsecorn", 1))


def overwritten(path):
    """Zeros where the second file begins."""
    content = path.read_bytes()
    at = content.index(b"PK\3\4", 4)
    path.write_bytes(content[:at] + bytes(30) + content[at + 30 :])


def bzipped(path):
    write(path, method=zipfile.ZIP_BZIP2)


def locked(path):
    """The bit that says that a file is encrypted, in the directory at the end."""
    content = bytearray(path.read_bytes())
    for at in range(len(content)):
        if content[at : at + 4] == b"PK\1\2":
            content[at + 8] |= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (damaged, "its bytes are not those that were packed"),
        (overwritten, "does not begin where the archive says"),
        (bzipped, "compression 12"),
        (locked, "it is encrypted"),
        (os.remove, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_that_names_it_and_its_archive(tmp_path, damage, why):
    path = write(tmp_path / "x.zip")
    found = packed_files(tmp_path)
    damage(path)
    if damage is not os.remove:
        found = packed_files(tmp_path)
    with pytest.raises(InputError, match=why) as said:
        found["b.png"].read()
    assert "x.zip/b.png cannot be read" in str(said.value) and "\n" not in str(said.value)


def test_a_file_larger_than_any_that_can_be_used_is_not_unpacked(tmp_path, monkeypatch):
    write(tmp_path / "x.zip", {"a.npz": bytes(100_000)}, zipfile.ZIP_DEFLATED)
    (file,) = packed_files(tmp_path).values()
    assert isinstance(file, Packed) and file.length < 1000 and len(file.read()) == 100_000
    with pytest.raises(InputError, match="its bytes are not those"):
        file._replace(size=1000).read()  # what it claims is all that is unpacked
    monkeypatch.setattr(archives, "MAX_BYTES", 50_000)
    with pytest.raises(InputError, match="100000 bytes, of which 50000 at most"):
        file.read()
