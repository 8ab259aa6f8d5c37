"""Processes that work together are heard, and none outlives another's failure or their parent."""

import fcntl
import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from copied_kit import copy_kit

import hpa_kit
from hpa_kit import together
from hpa_kit.config import SimulateSettings
from hpa_kit.errors import InputError
from hpa_kit.together import run_together

HERE = Path(__file__).parent
PARENT = """
import sys
sys.path.insert(0, {here!r})
import in_processes
from hpa_kit.config import SimulateSettings
from hpa_kit.together import run_together
run_together(in_processes.waits, SimulateSettings(out={out!r}), 2)
"""


@pytest.fixture
def work(monkeypatch):
    """What the processes do, which they find on this process's path."""
    monkeypatch.syspath_prepend(HERE)
    return importlib.import_module("in_processes")


@pytest.fixture
def settings(tmp_path):
    return SimulateSettings(out=tmp_path, train=7)


@pytest.fixture
def at_once(monkeypatch, warm_python):
    """Processes have imported before what is not the kit's."""
    importlib.import_module("torch")  # it looks for libraries by processes of its own, of another kind
    monkeypatch.setattr(subprocess, "Popen", partial(warm_python.start, level="images"))


def test_lines_of_all_and_bars_of_the_first_are_heard_and_the_kit_is_the_parents(
    work, settings, tmp_path, monkeypatch, capsys
):
    copy = copy_kit(tmp_path / "kit on a path" / "hpa_kit")
    monkeypatch.setattr(hpa_kit, "__file__", str(copy / "__init__.py"))
    run_together(work.says, settings, 2)
    heard = capsys.readouterr().out
    assert f"7 fields in {tmp_path}, kit of {copy / '__init__.py'}\n" in heard
    assert all(part in heard for part in ("\rbar 1 of 2\rbar 2 of 2", "ünd Zeichen\n", "without an end\n"))
    assert "log of 0\n" in heard and "log of 1" not in heard


def test_a_line_that_a_process_prints_in_pieces_stays_whole(work, settings, at_once, capsys):
    run_together(work.says_lines_of_several_words, settings.model_copy(update={"train": 5000}), 2)
    expected = [f"line {number} of process {rank}" for number in range(5000) for rank in (0, 1)]
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(expected)


def test_the_others_lines_do_not_break_a_line_of_the_first(capsys):
    voice = together._Voice(3)
    pieces = (0, "one "), (1, "another\n"), (0, "line"), (0, "\n")
    for rank, text in pieces:
        voice.say(rank, text)
    assert capsys.readouterr().out == "one line\nanother\n"
    for rank, text in ((0, "\rbar 1"), (1, "read"), (2, "whole\nhalf"), (1, "\rall\n"), (0, "\rbar 2\n")):
        voice.say(rank, text)
    voice.end()
    assert capsys.readouterr().out == "\rbar 1\nwhole\nread\rall\n\rbar 2\nhalf\n"


def test_the_error_of_the_process_that_failed_first_is_raised(work, settings, at_once):
    with pytest.raises(InputError, match=r"^fields: the second process cannot read on$"):
        run_together(work.fails, settings, 2)
    with pytest.raises(RuntimeError, match=r"in breaks\n(.*\n)+ZeroDivisionError: a fault of the kit\n$"):
        run_together(work.breaks, settings, 2)
    with pytest.raises(RuntimeError, match="process 2 of 2 ended by SIGKILL"):
        run_together(work.is_killed, settings, 2)
    with pytest.raises(InputError, match=r"files: events cannot be written: No space left on device"):
        run_together(work.fills_the_disk, settings, 1)


def test_a_process_that_does_not_listen_is_ended_and_what_it_started_too(
    work, settings, at_once, tmp_path, monkeypatch
):
    monkeypatch.setattr(together, "_GRACE", 0.1)
    with pytest.raises(InputError, match="fields: none"):
        run_together(work.does_not_listen, settings, 2)
    assert not is_running(int((tmp_path / "child").read_text()))


def test_what_a_process_left_running_does_not_hold_the_others_up(work, settings, at_once):
    run_together(work.leaves_a_child, settings, 2)


def test_an_interrupt_ends_all(work, settings, at_once, tmp_path, monkeypatch):
    class Interrupted:
        """The cell of a notebook whose reader has seen enough."""

        heard = ""

        def write(self, text):
            self.heard += text
            if self.heard.count("ready") == 2:
                self.heard = ""
                raise KeyboardInterrupt

        def flush(self):
            pass

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sys, "stdout", Interrupted())
        run_together(work.waits, settings, 2)
    for rank in (0, 1):
        with (tmp_path / f"lock{rank}").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody has it any more


def test_none_outlives_its_parent(tmp_path):
    code = PARENT.format(here=str(HERE), out=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, parent.stdout:
        assert sorted(parent.stdout.readline() for _ in range(2)) == ["ready 0\n", "ready 1\n"]
        parent.kill()
    for rank in (0, 1):
        with (tmp_path / f"lock{rank}").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # waits for as long as one lives


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that ended and that nobody has asked for its status is no more than a number.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
