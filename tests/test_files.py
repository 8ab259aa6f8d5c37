import io
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from hpa_kit.errors import InputError
from hpa_kit.files import (
    atomic_path,
    atomic_tensors,
    atomic_text,
    make_folder,
    regular_path,
    remove_stale,
)


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
    remove_stale(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".of the user.yaml", "table.csv"]
    assert (tmp_path / "table.csv").read_text() == "old"


def test_what_is_being_written_is_not_removed_however_long_it_takes(tmp_path):
    with atomic_path(tmp_path / "table.csv") as temporary:
        temporary.write_text("half")
        age([temporary])
        remove_stale(tmp_path)
        assert temporary.exists()
    assert (tmp_path / "table.csv").read_text() == "half"


def test_a_file_that_was_made_a_moment_ago_is_left_to_its_writer(tmp_path, monkeypatch):
    path = tmp_path / ".table.partial-abc.csv"
    path.touch()
    made = path.stat().st_mtime
    for later, left in ((4.9, True), (5.1, False)):
        monkeypatch.setattr("hpa_kit.files.time.time", lambda later=later: made + later)
        remove_stale(tmp_path)
        assert path.exists() == left


def test_a_folder_that_is_not_there_has_nothing_stale(tmp_path):
    remove_stale(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def of_several_threads(work, threads=4):
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))


def test_writing_from_several_threads_leaves_the_umask_as_it_is(tmp_path):
    before = os.umask(0o077)
    try:
        of_several_threads(lambda n: [atomic_text(tmp_path / f"{n} {k}", "x") for k in range(100)])
        after = os.umask(0o077)
    finally:
        os.umask(before)
    assert after == 0o077
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077, 0o277])
def test_a_file_gets_the_permissions_that_opening_it_would_give(tmp_path, umask):
    before = os.umask(umask)
    try:
        (tmp_path / "opened").touch()
        atomic_text(tmp_path / "written", "x")
        atomic_tensors(tmp_path / "tensors", {"a": torch.zeros(2)}, {})
    finally:
        os.umask(before)
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_a_file_that_is_written_again_keeps_its_permissions(tmp_path):
    atomic_text(tmp_path / "x", "private")
    (tmp_path / "x").chmod(0o640)
    atomic_text(tmp_path / "x", "still private")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_stays_and_what_it_leads_to_is_written(tmp_path, there):
    target, link, second = tmp_path / "far" / "real.csv", tmp_path / "link.csv", tmp_path / "second.csv"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    link.symlink_to(Path("far") / "real.csv")
    second.symlink_to(link)
    atomic_text(second, "new")
    assert target.read_text() == "new"
    assert second.is_symlink() and link.is_symlink()
    assert [path.name for path in target.parent.iterdir()] == ["real.csv"]


def test_a_failed_write_through_a_link_leaves_the_old_file(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert (tmp_path / "real").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_links_that_lead_to_each_other_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match=r"a cannot be written: .*symbolic links"):
        atomic_text(tmp_path / "a", "x")


def test_a_link_to_a_folder_is_refused_and_one_to_no_folder_yet_makes_it(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with pytest.raises(InputError, match="link cannot be written: it is a folder"):
        atomic_text(tmp_path / "link", "x")
    (tmp_path / "new").symlink_to("made")
    assert make_folder(tmp_path / "new").is_dir()
    assert (tmp_path / "made").is_dir() and (tmp_path / "new").is_symlink()


@pytest.mark.parametrize("writer", [atomic_text, lambda path, text: savez(path)], ids=["text", "npz"])
def test_a_named_pipe_gets_everything_and_stays(tmp_path, writer):
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_bytes)
        writer(pipe, "whole")
        content = read.result(timeout=30)
    assert content == b"whole" or np.load(io.BytesIO(content))["a"].tolist() == [1, 2]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def savez(path):
    with atomic_path(path) as temporary:
        np.savez(temporary, a=np.array([1, 2]))


def test_a_pipe_gets_nothing_of_what_fails(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RuntimeError), atomic_path(pipe) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_a_pipe_whose_reader_goes_away_is_named(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        opened = reader.submit(lambda: pipe.open("rb").close())
        with pytest.raises(InputError, match="pipe cannot be written: Broken pipe"):
            atomic_text(pipe, "x" * 10_000_000)
        opened.result()


def test_devices_take_what_they_take(tmp_path):
    before = Path(os.devnull).stat()
    (tmp_path / "link").symlink_to(os.devnull)
    for path in (os.devnull, tmp_path / "link"):
        atomic_text(path, "x")
    assert Path(os.devnull).stat().st_rdev == before.st_rdev
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(InputError, match="full cannot be written: No space left"):
        atomic_text("/dev/full", "x")


def test_a_socket_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(InputError, match="socket cannot be written: it is a socket"):
            atomic_text(tmp_path / "socket", "x")


TO_STDOUT = """
import sys
from hpa_kit.files import atomic_text
print("before")
atomic_text(sys.argv[1], "whole\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_the_output_of_this_process_is_written_in_its_place(tmp_path, name, mode):
    if name == "link":
        (tmp_path / "link").symlink_to("/dev/stdout")
        name = tmp_path / "link"
    (tmp_path / "out").write_text("kept\n")
    with (tmp_path / "out").open(mode) as out:
        subprocess.run([sys.executable, "-c", TO_STDOUT, name], check=True, stdout=out)
    kept = ["kept"] if mode == "ab" else []
    assert (tmp_path / "out").read_text().split() == [*kept, "before", "whole", "after"]


def test_what_is_written_beside_a_pipe_is_not_left_there(tmp_path):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_text)
        with regular_path(pipe) as path:
            path.with_name("beside").write_text("gone")
            atomic_text(path, "first")
            atomic_text(path, path.read_text() + " and last")
        assert read.result(timeout=30) == "first and last"
    assert list(tmp_path.iterdir()) == [pipe]
    with regular_path(tmp_path / "table.csv") as path:
        assert path == tmp_path / "table.csv"
