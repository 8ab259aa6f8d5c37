"""Killed as kill -9 does, at any moment, and started again, every long command ends as if nothing had been.

Moments are counted, never timed: a kill comes before the N-th of all operations on files, pieces of work or
calls of functions, so that a loaded machine is no other test than an idle one.

``make test-all`` kills each command once at a moment of each kind, ``make test`` one of those that keep their
work in the same way. ``make kill-table`` kills each HPA_KIT_KILLS times and writes what it found to the file
that HPA_KIT_KILL_TABLE names.
"""

import json
import os
import re
import zipfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors import safe_open

SIGKILLED = -9
NAMES = (
    "simulate", "segment", "segment --pack", "store", "features", "train", "pseudo-labels", "infer",
    "predict", "tune", "report", "ablation",
)  # fmt: skip
# Those that another stands for in `make test`: with a file per field (store), with results that are kept
# while members look at further fields (infer), with one file that is written whole (features), with a file
# that is written anew after each part of the work (train).
LIKE_ANOTHER = {
    "simulate": "store", "segment": "store", "segment --pack": "store", "pseudo-labels": "infer",
    "predict": "infer", "tune": "infer", "report": "features", "ablation": "train",
}  # fmt: skip
ROWS = [pytest.param(name, marks=pytest.mark.whole_table) if name in LIKE_ANOTHER else name for name in NAMES]
KINDS = ("file", "work", "call")
KILLS = int(os.environ.get("HPA_KIT_KILLS", len(KINDS)))
IN_A_ROW = len(KINDS)  # kills before a command may end
# What differs between two undisturbed runs too: event files, and how long things took.
TIMED = ("tensorboard/", "steps.csv", "_seconds.yaml")
SECONDS = re.compile(rb'"seconds":\{[^}]*\}')
INTRO = """# Killed, and started again

Written by `make kill-table`. Every long command is killed as `kill -9` does, before the N-th time that it
makes, writes, renames or removes a file, that it begins a piece of work, or that it calls a function or
returns from one; N is drawn by chance, and no moment depends on the clock. After three kills in a row it goes
to its end. After every kill each file that is not hidden was read whole, and none was half written. A kill
that came when all results stood is not counted, as it costs nothing.

* *equal*: how many of the trials left the same bytes as an undisturbed run, in every file but TensorBoard's,
  the files of seconds (of an ablation's steps, of a table's fields) and the seconds in a report;
* *work*: what an undisturbed run does; *lost*: what was begun again, on average per kill and at most per
  trial of up to three kills;
* *allowed*: what a kill may cost at most, which is what is under way at one time; the tests hold it;
* *left*: hidden files of interrupted writing that still lie there at the end, as a trial is over in seconds;
  a start that comes later removes them;
* *together*: what becomes of two processes at the same work in one folder; both times the result is right.

"""


@pytest.fixture(scope="module")
def calm(make_place, commands):
    """Every command undisturbed: its place, and what it left; worked out when asked for."""
    found = {}

    def of(name):
        if name not in found:
            place = make_place(commands[name])
            ended = place.run(count=True)
            assert ended.status == 0, ended.said
            found[name] = (place, contents(place))
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
    columns = ("kills", "equal", "work", "lost", "allowed", "left", "together")
    before = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    lines = {name: line for name in NAMES for line in before if line.startswith(f"| {name} |")}
    for name, row in rows.items():
        if set(columns) <= row.keys():  # else one of its tests failed
            lines[name] = f"| {' | '.join([name, *(row[column] for column in columns)])} |"
    head = f"| command | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}"
    table = "\n".join([head, *(lines[name] for name in NAMES if name in lines)])
    path.write_text(f"{INTRO}{table}\n", encoding="utf-8")


def contents(place) -> dict[str, bytes]:
    """What two runs have in common, by file; archives hold the same files, though not each the same ones."""
    found = {}
    for name, path in place.files().items():
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for one in archive.namelist():
                    found[f"{Path(name).parent}/{one}"] = archive.read(one)
        elif not any(part in name for part in TIMED):
            whole = path.suffix == ".safetensors"
            found[name] = tensors(path) if whole else SECONDS.sub(b"", path.read_bytes())
    return found


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
    elif path.suffix in (".npz", ".zip"):
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


def moment(by: str, counts: dict[str, int], kills: int, rng: np.random.Generator) -> tuple[str, int]:
    """When to kill: a chance one of an undisturbed run's moments, of fewer the more kills were before."""
    return by, int(rng.integers(1, max(1, counts[by] // (1 + kills)), endpoint=True))


@pytest.mark.parametrize("name", ROWS)
def test_killed_and_started_again_it_ends_as_if_undisturbed(name, calm, make_place, table):
    undisturbed, expected = calm(name)
    command, counts, kinds = undisturbed.command, undisturbed.counts, cycle(KINDS)
    rng = np.random.default_rng([ord(letter) for letter in name])
    killed = equal = trials = left = again = most = 0
    while killed < KILLS:
        place, kills, whole = make_place(command), 0, False
        while not whole:
            kill = moment(next(kinds), counts, kills, rng) if kills < IN_A_ROW else None
            ended = place.run(kill)
            assert ended.status == 0 or (kill and ended.status == SIGKILLED), ended.said
            for path in place.files().values():
                read_whole(path)
            whole = ended.status == 0 or contents(place) == expected
            kills += not whole
        lost = place.begun - undisturbed.begun
        assert lost <= kills * command.under_way, (lost, kills)
        if ended.status == SIGKILLED:  # after its results stood: whatever it does now, they stay
            ended = place.run()
            assert ended.status == 0, ended.said
        found = contents(place)
        assert found.keys() == expected.keys()
        assert [file for file in found if found[file] != expected[file]] == []
        killed, trials, equal = killed + kills, trials + 1, equal + 1
        again, most = again + max(0, lost), max(most, lost)
        left += len(hidden(place))
    table.setdefault(name, {}).update(
        kills=str(killed),
        equal=f"{equal} of {trials}",
        work=f"{undisturbed.begun} {command.what}s",
        lost=f"{again / killed:.2f}, at most {most}",
        allowed=f"{command.under_way}: {command.why}",
        left=str(left),
    )


@pytest.mark.parametrize("name", ROWS)
def test_two_processes_on_one_folder_do_not_harm_each_other(name, calm, make_place, table, tmp_path):
    """Neither begins to work before the other does, or is refused, in one line; at the end all is right."""
    undisturbed, expected = calm(name)
    command, place = undisturbed.command, make_place(undisturbed.command)
    pids = [place.start(meet=tmp_path), place.start(meet=tmp_path)]
    ended = [place.end(pid) for pid in pids]
    said = ended[-1].said
    assert "Traceback" not in said
    statuses = sorted(one.status for one in ended)
    assert statuses == {"both end": [0, 0], "one is refused": [0, 2]}[command.together], said
    assert ("another process" in said) == (2 in statuses)
    found = contents(place)
    assert found.keys() == expected.keys(), said
    assert [file for file in found if found[file] != expected[file]] == []
    table.setdefault(name, {})["together"] = command.together


def hidden(place) -> list[str]:
    """Hidden files that are left."""
    return [str(path) for path in place.work.rglob(".*") if path.is_file()]
