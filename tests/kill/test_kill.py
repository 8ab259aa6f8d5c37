"""Killed as kill -9 does, at any moment, and started again, every long command ends as if nothing had been.

The suite kills each command twice. ``make kill-table`` kills each HPA_KIT_KILLS times and writes what it
found to the file that HPA_KIT_KILL_TABLE names.
"""

import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors import safe_open

SIGKILLED = -9
NAMES = (
    "simulate", "segment", "store", "features", "train", "pseudo-labels", "infer", "predict", "tune",
    "report", "ablation",
)  # fmt: skip
KILLS = int(os.environ.get("HPA_KIT_KILLS", "2"))
IN_A_ROW = 2  # kills before a command may end
# What differs between two undisturbed runs too: event files, and how long things took.
TIMED = ("tensorboard/", "steps.csv", "_seconds.yaml")
SECONDS = re.compile(rb'"seconds":\{[^}]*\}')
INTRO = """# Killed, and started again

Written by `make kill-table`. Every long command is killed as `kill -9` does: after a chance number of file
operations and up to 50 ms more, or at a chance moment of the clock; twice in a row, and the third start goes
to the end. After every kill each file that is not hidden was read whole, and none was half written.

* *equal*: how many of the trials left the same bytes as an undisturbed run, in every file but TensorBoard's,
  the files of seconds (of an ablation's steps, of a table's fields) and the seconds in a report;
* *work*: what an undisturbed run does; *lost*: what was begun again, per kill and at most in one trial;
* *left*: hidden files of interrupted writing that still lie there at the end, as a trial is over in seconds;
  a start that comes later removes them;
* *together*: what became of two processes started at once in one folder; both times the result is right.

"""


@pytest.fixture(scope="module")
def calm(make_place, commands):
    """Every command undisturbed: its place, how it ended, and what it left; worked out when asked for."""
    found = {}

    def of(name):
        if name not in found:
            place = make_place(commands[name])
            ended = place.run()
            assert ended.status == 0, ended.said
            found[name] = (place, ended, contents(place))
        return found[name]

    return of


@pytest.fixture(scope="module")
def table() -> Iterator[dict[str, dict[str, str]]]:
    """Figures by command; written at the end where a file is named."""
    rows: dict[str, dict[str, str]] = {}
    yield rows
    if path := os.environ.get("HPA_KIT_KILL_TABLE"):
        write_table(Path(path), rows)


def write_table(path: Path, rows: dict[str, dict[str, str]]) -> None:
    """Write figures as Markdown; those of commands that were not tried now stay as they were."""
    columns = ("kills", "equal", "work", "lost", "left", "together")
    before = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines = {name: line for name in NAMES for line in before if line.startswith(f"| {name} |")}
    for name, row in rows.items():
        if set(columns) <= row.keys():  # else one of its tests failed
            lines[name] = f"| {' | '.join([name, *(row[column] for column in columns)])} |"
    head = f"| command | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}"
    table = "\n".join([head, *(lines[name] for name in NAMES if name in lines)])
    path.write_text(f"{INTRO}{table}\n", encoding="utf-8")


def contents(place) -> dict[str, bytes]:
    """What two runs have in common, by file."""
    return {
        name: tensors(path) if path.suffix == ".safetensors" else SECONDS.sub(b"", path.read_bytes())
        for name, path in place.files().items()
        if not any(part in name for part in TIMED)
    }


def tensors(path: Path) -> bytes:
    """A checkpoint's bytes with its header in order: safetensors writes the metadata in any order."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]


def read_whole(path: Path) -> None:
    """Fail where a file is half written."""
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path) as file:
            assert file.testzip() is None
    elif path.suffix == ".csv":
        assert path.read_bytes().endswith(b"\n")
        pd.read_csv(path)
    elif path.suffix in (".yaml", ".yml"):
        assert yaml.safe_load(path.read_text(encoding="utf-8"))
    elif path.suffix == ".png":
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    elif path.suffix != ".journal" and path.parent.name != "tensorboard":  # these grow, record by record
        assert path.stat().st_size


def moments(name: str, touches: int, seconds: float) -> Iterator[tuple[int, float]]:
    """When to kill: after so many touches of files and so many seconds more; every third by the clock."""
    rng = np.random.default_rng([ord(letter) for letter in name])
    for number in range(10**6):
        if number % 3 == 2:
            yield 0, float(rng.uniform(0, 0.9 * seconds))
        else:
            late = float(rng.choice([0.0, rng.uniform(0, 0.05)]))
            yield int(rng.integers(1, max(2, touches // IN_A_ROW + 1))), late


@pytest.mark.parametrize("name", NAMES)
def test_killed_and_started_again_it_ends_as_if_undisturbed(name, calm, make_place, table):
    expected_place, undisturbed, expected = calm(name)
    command = expected_place.command
    when = moments(name, expected_place.touches, undisturbed.seconds)
    killed = equal = trials = left = again = most = 0
    while killed < KILLS:
        place, kills = make_place(command), 0
        for _ in range(IN_A_ROW):
            ended = place.run(next(when))
            assert ended.status in (SIGKILLED, 0), ended.said
            kills += ended.status == SIGKILLED
            for path in place.files().values():
                read_whole(path)
        ended = place.run()
        assert ended.status == 0, ended.said
        found = contents(place)
        assert found.keys() == expected.keys()
        assert [file for file in found if found[file] != expected[file]] == []
        lost = place.units - expected_place.units
        assert lost <= kills * command.lost, (lost, kills)
        killed, trials, equal = killed + kills, trials + 1, equal + 1
        again, most = again + max(0, lost), max(most, lost)
        left += len(hidden(place))
    table.setdefault(name, {}).update(
        kills=str(killed),
        equal=f"{equal} of {trials}",
        work=f"{expected_place.units} {command.what}s",
        lost=f"{again / killed:.2f}, at most {most}",
        left=str(left),
    )


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_on_one_folder_do_not_harm_each_other(name, calm, make_place, table):
    """One of them may be refused, in one line; what stands there at the end is right."""
    place, _, expected = calm(name)
    place = make_place(place.command)
    begun = time.monotonic()
    pids = [place.start(), place.start()]
    ended = [place.end(pid, begun) for pid in pids]
    said = ended[-1].said
    assert 0 in [one.status for one in ended], said
    assert {one.status for one in ended} <= {0, 2}, said
    assert "Traceback" not in said
    if 2 in [one.status for one in ended]:
        assert "another process" in said
    found = contents(place)
    assert found.keys() == expected.keys(), said
    assert [file for file in found if found[file] != expected[file]] == []
    both = all(one.status == 0 for one in ended)
    table.setdefault(name, {})["together"] = "both end" if both else "one is refused"


def hidden(place) -> list[str]:
    """Hidden files that are left."""
    return [str(path) for path in place.work.rglob(".*") if path.is_file()]
