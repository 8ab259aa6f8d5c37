import os
import signal
import subprocess
import sys
import time

import pytest

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, atomic_text, forget_torn


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "table.csv"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        assert temporary.suffix == ".csv"
    assert target.read_text() == "half"


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "table.csv"
    atomic_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("name", ["folder", "file/table.csv"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"{name}.* cannot be written"):
        atomic_text(tmp_path / name, "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_others_may_read_what_was_written(tmp_path):
    old = os.umask(0o022)
    try:
        atomic_text(tmp_path / "x", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


KILLED = """
import os, signal, sys
from hpa_kit.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def hidden(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def age(paths, seconds=3600):
    for path in paths:
        os.utime(path, (time.time() - seconds,) * 2)


def test_what_a_killed_process_was_writing_is_removed_later(tmp_path):
    (tmp_path / ".of the user.yaml").write_text("kept")
    atomic_text(tmp_path / "table.csv", "old")
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "table.csv"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 2
    age(tmp_path.iterdir())
    forget_torn(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".of the user.yaml", "table.csv"]
    assert (tmp_path / "table.csv").read_text() == "old"


def test_what_is_being_written_is_not_removed_however_long_it_takes(tmp_path):
    with atomic_path(tmp_path / "table.csv") as temporary:
        temporary.write_text("half")
        age([temporary])
        forget_torn(tmp_path)
        assert temporary.exists()
    assert (tmp_path / "table.csv").read_text() == "half"


def test_a_file_that_was_made_a_moment_ago_is_left_to_its_writer(tmp_path, monkeypatch):
    path = tmp_path / ".table.partial-abc.csv"
    path.touch()
    made = path.stat().st_mtime
    for later, left in ((4.9, True), (5.1, False)):
        monkeypatch.setattr("hpa_kit.files.time.time", lambda later=later: made + later)
        forget_torn(tmp_path)
        assert path.exists() == left


def test_a_folder_that_is_not_there_has_nothing_torn(tmp_path):
    forget_torn(tmp_path / "none")
    assert not (tmp_path / "none").exists()
