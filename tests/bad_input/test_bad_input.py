"""Every row of the table, through the command line."""

import hashlib
import logging
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bad_input_table import CASES, PAGE, Case, World, matches, page

from hpa_kit.cli import main

# More than any row needs, which is a network of a few million weights, and far less than hostile files claim.
MAX_MEMORY = 300 * 2**20


def run(command: str, world: World) -> int:
    """The exit status of ``hpa-kit``, in this process."""
    return main([word.format_map(world.paths) for word in command.split(" ")])


@contextmanager
def at_most(room: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes; 0 is no limit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room or limits[0], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def files(root: Path) -> dict[str, str]:
    """Size and checksum of every file below a folder, links not followed; of a huge one its start's."""
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                checksum = hashlib.sha256(file.read(2**24)).hexdigest()
            found[str(path.relative_to(root))] = f"{path.stat().st_size} {checksum}"
    return found


def lines(text: str) -> list[str]:
    """As a terminal shows them: a progress bar is wiped by a carriage return."""
    return [line for line in re.split(r"[\r\n]", text) if line.strip()]


@pytest.mark.parametrize("case", CASES, ids=[re.sub(r"\W+", "-", case.kind) for case in CASES])
def test_bad_input_is_told_in_one_line_and_harms_nothing(case: Case, world, capfd, caplog, memory):
    caplog.set_level(logging.INFO)  # as the command line has it
    case.make(world)
    before = files(world.root)
    capfd.readouterr()
    memory.start()
    with at_most(case.room):
        status = run(case.command, world)
    grown = memory.grown()
    told = capfd.readouterr()
    said = lines(told.out) + lines(told.err) + [line for text in caplog.messages for line in lines(text)]
    assert status == case.status, said
    assert "Traceback" not in told.out + told.err + caplog.text
    assert not (world.root / "ran").exists(), "code of the file's choosing was run"
    assert grown < MAX_MEMORY
    after = files(world.root)
    if case.status == 2:
        assert matches(case.message, lines(told.err)[-1]), lines(told.err)[-1][:1000]
        assert lines(told.err)[-1].startswith("hpa-kit: ")
        assert before.items() <= after.items()
    else:
        assert any(matches(case.message, line) for line in said), said
        # What it was to write is another; all that it read is as it was.
        read = {name: sum for name, sum in before.items() if not name.startswith(("out", ".out"))}
        assert read.items() <= after.items()
    # Nothing half-written stays, but the journal of what was done before the disk was full.
    hidden = {name for name in after.keys() - before.keys() if Path(name).name.startswith(".")}
    assert hidden <= ({".out.partial"} if case.room else set())


def test_kinds_are_told_apart():
    assert len({case.kind for case in CASES}) == len(CASES) >= 60


def test_the_page_is_in_step_with_the_table():
    assert PAGE.read_text(encoding="utf-8") == page(CASES), "run python tests/bad_input/write_page.py"
