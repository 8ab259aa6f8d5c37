"""How far work is, and messages beside it: in a terminal, in a notebook, in a log."""

import io
import logging
import logging.config
import re
import sys
from pathlib import Path

import pytest

from hpa_kit import progress
from hpa_kit.progress import Lines, hide_messages, is_live, progress_bar, say, show_messages, track

log = logging.getLogger("hpa_kit.some.module")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch):
    """Put a stream in stderr's place; in the test itself, before which pytest puts one there too."""

    def put(stream):
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return put


@pytest.fixture
def messages():
    shown = show_messages()
    yield
    if shown:
        hide_messages()


@pytest.fixture
def root(monkeypatch):
    """The root logger as it is outside of tests: without handlers, at level WARNING."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    return root


def shown(text: str) -> list[str]:
    """The lines that a terminal ends up with: a carriage return goes back to the first column."""
    lines = []
    for line in text.split("\n"):
        screen = ""
        for part in line.split("\r"):
            screen = part + screen[len(part) :]
        lines.append(screen.rstrip())
    return [line for line in lines if line]


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(stderr, clock):
    file = stderr(io.StringIO())
    with Lines("segment", 1000, now=clock) as bar:
        for _ in range(1000):
            clock.seconds += 10
            bar.update()
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue()
    assert lines[0] == "segment: 2 of 1000 fields, 0 %, 2.8 h left"
    assert lines[-1] == "segment: 1000 of 1000 fields in 2.8 h"
    assert 30 < len(lines) < 60
    counts = [int(line.split()[1]) for line in lines]
    assert counts == sorted(set(counts))


def test_lines_tell_the_values_beside_the_work_and_what_was_done_before(stderr, clock):
    file = stderr(io.StringIO())
    with Lines("epoch 1/2", 10, "step", initial=4, now=clock) as bar:
        clock.seconds = 30
        bar.update(3)
        bar.set_postfix({"loss": "0.5"}, refresh=False)
        bar.update(3)
    assert file.getvalue().splitlines() == [
        "epoch 1/2: 7 of 10 steps, 70 %, 30 s left",
        "epoch 1/2: 10 of 10 steps in 30 s, loss 0.5",
    ]


def test_work_that_leaves_nothing_or_fails_has_no_last_line(stderr):
    file = stderr(io.StringIO())
    assert list(track(range(3), "look", 3, leave=False)) == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt), progress_bar("infer", 3) as bar:
        bar.update()
        raise KeyboardInterrupt
    with progress_bar("train", 3, quiet=True) as bar:
        bar.update(3)
    assert file.getvalue() == ""


def test_where_nobody_can_read_work_goes_on(stderr):
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        stderr(stream)
        assert list(track(range(3), "look", 3)) == [0, 1, 2]
        say("a line")


def test_a_terminal_gets_a_bar_and_messages_above_it(stderr, messages):
    terminal = stderr(Terminal())
    for n in track(range(4), "segment", 4):
        if n == 1:
            log.info("segment: expect 3 min")
    lines = shown(terminal.getvalue())
    assert lines[0] == "segment: expect 3 min"
    assert re.fullmatch(r"segment: 100%\|.*\| 4/4 .*", lines[1])
    assert len(lines) == 2


@pytest.mark.parametrize(("kind", "live"), [("Interactive", True), ("Batch", False), (None, True)])
def test_a_notebook_has_bars_unless_it_is_a_batch_job(stderr, monkeypatch, kind, live):
    stderr(io.StringIO())

    class ZMQInteractiveShell:
        pass

    monkeypatch.setitem(sys.modules, "IPython", type(sys)("IPython"))
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", ZMQInteractiveShell, raising=False)
    if kind is None:
        monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    else:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", kind)
    assert is_live() == live
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert not is_live()


def test_messages_are_shown_once_however_logging_was_configured_before(stderr, root, tmp_path):
    file = stderr(io.StringIO())
    configured = {
        "nothing": lambda: None,
        "only warnings": lambda: logging.basicConfig(level=logging.WARNING),
        "everything": lambda: logging.basicConfig(level=logging.DEBUG),
        "a file": lambda: logging.basicConfig(filename=tmp_path / "log.txt", level=logging.WARNING),
        "a dictionary": lambda: logging.config.dictConfig({"version": 1}),
    }
    for name, configure in configured.items():
        root.handlers.clear()
        configure()
        assert show_messages()
        assert not show_messages()
        try:
            log.info(f"{name}: information")
            log.warning(f"{name}: warning")
            log.debug(f"{name}: nobody wants to know")
        finally:
            hide_messages()
    root.handlers.clear()
    for name in configured:
        assert file.getvalue().count(f"{name}: information\n") == 1
        assert file.getvalue().count(f"{name}: warning\n") == 1
    assert "nobody" not in file.getvalue()
    assert (tmp_path / "log.txt").read_text().count("a file: ") == 2


def test_a_level_that_was_asked_of_the_kit_stays(stderr, messages):
    file = stderr(io.StringIO())
    logger = logging.getLogger("hpa_kit")
    hide_messages()
    logger.setLevel(logging.ERROR)
    try:
        show_messages()
        log.warning("not wanted")
        hide_messages()
        assert logger.level == logging.ERROR
    finally:
        logger.setLevel(logging.NOTSET)
    assert file.getvalue() == ""


def test_letters_that_a_stream_lacks_are_said_as_escapes(stderr):
    raw = io.BytesIO()
    text = stderr(io.TextIOWrapper(raw, "ascii"))
    say("fields of 512² in \udcff")
    assert text.buffer is raw
    assert raw.getvalue() == b"fields of 512\\xb2 in \\udcff\n"


def test_no_other_module_draws_bars():
    """So that one place decides what a log gets."""
    files = Path(progress.__file__).parent.rglob("*.py")
    users = {path.name for path in files if "tqdm" in path.read_text(encoding="utf-8")}
    assert users == {"progress.py"}
