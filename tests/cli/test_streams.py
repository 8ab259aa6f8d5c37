"""The command line as a program: closed pipes, few letters, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hpa_kit.config import TrainSettings, write_yaml
from hpa_kit.submission import write_submission

HPA_KIT = [sys.executable, "-m", "hpa_kit.cli"]
SIMULATE = ["simulate", "data", "--train", "1", "--test", "1", "--size", "64", "--workers", "1"]


@pytest.fixture
def folder(tmp_path):
    """Two tables with a fault in every row, and a run without a checkpoint, under names that are no ASCII."""
    write_submission(tmp_path / "ü.csv", [(f"ü{k}", 64, 64, "") for k in range(2000)])
    write_submission(tmp_path / "sample.csv", [(f"ID {k}²", 64, 64, "") for k in range(2000)])
    (tmp_path / "ö").mkdir()
    write_yaml(TrainSettings(data="dätä", out="no"), tmp_path / "ö" / "settings.yaml")
    return tmp_path


@pytest.fixture
def with_closed_pipe(folder, warm_python):
    """Runs a command whose reader has gone already: its status, and what it says on stderr."""

    def run(words, both=False):
        read, write = os.pipe()
        os.close(read)
        try:
            pipes = {"stdout": write, "stderr": write if both else subprocess.PIPE}
            done = warm_python.run([*HPA_KIT, *words], "images", cwd=folder, text=True, **pipes)
        finally:
            os.close(write)
        return done.returncode, done.stderr or ""

    return run


CHECK = ["check", "ü.csv", "--sample", "sample.csv"]


@pytest.mark.parametrize("words", [CHECK, ["kaggle", "status"]], ids=lambda words: words[0])
def test_a_command_that_prints_ends_quietly_when_its_reader_goes(with_closed_pipe, words):
    assert with_closed_pipe(words) == (141, "")


def test_help_whose_reader_goes_is_quiet(with_closed_pipe):
    assert with_closed_pipe(["train", "--help"])[1] == ""


@pytest.mark.parametrize("both", [False, True])
def test_a_command_that_writes_goes_on_when_its_reader_goes(folder, with_closed_pipe, both):
    status, said = with_closed_pipe(SIMULATE, both)
    assert status == 0
    assert "Traceback" not in said
    assert (folder / "data" / "truth.csv").is_file()


@pytest.mark.parametrize("device", ["/dev/full"])
def test_a_disk_that_is_full_costs_the_text_not_the_work(folder, warm_python, device):
    with Path(device).open("wb") as full:
        done = warm_python.run([*HPA_KIT, *SIMULATE], "images", cwd=folder, stdout=full, stderr=full)
        assert done.returncode == 0
        pipes = {"stdout": full, "stderr": subprocess.PIPE, "text": True}
        done = warm_python.run([*HPA_KIT, *CHECK], "images", cwd=folder, **pipes)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "stdout cannot be written: No space left" in done.stderr


SEVERAL = """
import sys
from hpa_kit.cli import main
for words in sys.argv[1:]:
    assert main(words.split()) in (0, 1, 2)
"""
SOME = (" ".join(CHECK), "kaggle status", "check nö --sample nö")


@pytest.mark.parametrize(
    ("environment", "more"),
    [
        ({"PYTHONIOENCODING": "ascii"}, ("runs .", "runs ö --yaml")),
        # What cannot be said in these is told in the same way as in the two others.
        pytest.param({"PYTHONIOENCODING": "latin-1:strict"}, (), marks=pytest.mark.whole_table),
        pytest.param({"LC_ALL": "POSIX"}, (), marks=pytest.mark.whole_table),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ()),
    ],
    ids=["ascii", "latin-1", "POSIX", "no UTF-8 at all"],
)
def test_letters_that_the_output_lacks_stop_nothing(folder, environment, more):
    (folder / "several.py").write_text(SEVERAL)
    words = [sys.executable, "several.py", *SOME, *more]
    done = subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"ID ID 0" in done.stdout
    assert b"tables: n" in done.stderr
    if more:
        start = done.stdout.index(b"data: ")
        printed = done.stdout[start : done.stdout.index(b"\nthreshold", start)].decode("ascii")
        assert yaml.safe_load(printed)["data"] == "dätä"


@pytest.fixture
def interrupts_heard():
    """A shell has what it starts in the background ignore Ctrl-C, and every process hands that down."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_one_line_whatever_processes_are_at_work(tmp_path, warm_python, interrupts_heard):
    # More than anybody waits for, so that it is at work when it is interrupted.
    words = ["simulate", "data", "--train", "4000", "--test", "0", "--size", "128", "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = warm_python.start([*HPA_KIT, *words], "images", cwd=tmp_path, start_new_session=True, **pipes)
    ends = time.monotonic() + 120
    while len(list((tmp_path / "data" / "train").glob("*.png"))) < 12:
        assert time.monotonic() < ends and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    # The forecast, and on a busy machine how far it is, may stand before.
    others = [line for line in said.splitlines() if not line.startswith("simulate: ")]
    assert process.returncode == 130
    assert others == ["hpa-kit: interrupted; the same command goes on where it was"]


def test_an_interrupt_ends_a_command_of_commands(monkeypatch, capsys, tmp_path):
    from hpa_kit.cli import main
    from hpa_kit.data import simulate

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate, "simulate", interrupted)
    assert main(["demo", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "hpa-kit: interrupted; the same command goes on where it was\n"


TELL = """
import sys
from pathlib import Path
from hpa_kit.cli.streams import tell
tell("table", Path(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("path", "on_stdout"), [("/dev/stdout", False), ("/dev/stderr", True), ("/dev/null", True), ("x", True)]
)
def test_where_a_table_lies_is_not_told_in_the_table(path, on_stdout):
    done = subprocess.run([sys.executable, "-c", TELL, path], capture_output=True, text=True, check=True)
    line = f"table: {path}\n"
    assert (done.stdout, done.stderr) == ((line, "") if on_stdout else ("", line))
