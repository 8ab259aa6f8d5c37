"""Killed at any moment and started again, inference ends with the same bytes."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpa_kit.cells import pack_label_maps
from hpa_kit.config import InferSettings
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble, infer
from hpa_kit.inference.growing_table import seconds_of
from hpa_kit.inference.results import Journal, journal_of
from hpa_kit.submission import check_submission

N_FIELDS, BATCH = 7, 2


@pytest.fixture
def fields(competition, cells):
    for k in range(N_FIELDS):
        competition.add(f"f{k}", cells(64, 80, 32), seed=k)
    competition.write_sample()
    return competition


def settings(competition, member: Path, **changes) -> InferSettings:
    values = {
        "data": competition.root,
        "members": (member,),
        "out": competition.root / "out" / "submission.csv",
        "masks": competition.masks,
        "rule": "mean_logit",
        "views": "none",
        "map_size": 64,
        "batch": BATCH,
        "device": "cpu",
    } | changes
    return InferSettings(**values)


@pytest.fixture
def looked(monkeypatch) -> list[int]:
    """How many fields the members looked at, call by call."""
    look, counts = Ensemble.predict, []

    def counted(self, inputs):
        counts.append(len(inputs))
        return look(self, inputs)

    monkeypatch.setattr(Ensemble, "predict", counted)
    return counts


def interrupted(chosen: InferSettings, monkeypatch, at: int) -> None:
    """Infer, and be stopped when the members look for the ``at``-th time."""
    look, calls = Ensemble.predict, []

    def stopped(self, inputs):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return look(self, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(Ensemble, "predict", stopped)
        with pytest.raises(KeyboardInterrupt):
            infer(chosen)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_an_interrupted_run_goes_on_to_the_same_bytes(fields, member, monkeypatch, looked, at) -> None:
    chosen = settings(fields, member)
    expected = infer(chosen).read_bytes()
    looked.clear()
    interrupted(chosen, monkeypatch, at)
    before = sum(looked)
    assert journal_of(chosen.out).exists() == (before > 0)
    assert infer(chosen).read_bytes() == expected
    assert sum(looked) <= N_FIELDS
    assert sum(looked) - before == N_FIELDS - min(before, N_FIELDS)
    assert {path.name for path in chosen.out.parent.iterdir()} == {
        "submission.csv",
        seconds_of(chosen.out).name,
    }


def test_a_journal_cut_anywhere_leads_to_the_same_bytes(fields, member, monkeypatch) -> None:
    chosen = settings(fields, member)
    expected = infer(chosen).read_bytes()
    interrupted(chosen, monkeypatch, 4)
    journal = journal_of(chosen.out)
    data = journal.read_bytes()
    for part in (0.0, 0.3, 0.55, 0.97):
        journal.write_bytes(data[: int(len(data) * part)])
        assert infer(chosen).read_bytes() == expected


def test_an_unreadable_field_is_tried_again_and_alone(fields, member, monkeypatch, looked) -> None:
    """A disk that failed may be well again; nothing else of its batch is done twice."""
    path = fields.test / "f0_red.png"
    whole, times = path.read_bytes(), path.stat()

    def put(content: bytes) -> None:
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    put(b"\0" * len(whole))
    interrupted(settings(fields, member), monkeypatch, 4)
    put(whole)
    looked.clear()
    infer(settings(fields, member))
    assert looked == [1, 1]  # f0, and the last batch


@pytest.mark.parametrize("change", ["rule", "member", "masks", "image"])
def test_results_of_something_else_are_not_taken(
    fields, member, make_member, cells, monkeypatch, looked, change
) -> None:
    interrupted(settings(fields, member), monkeypatch, 4)
    looked.clear()
    changes, again = {}, N_FIELDS
    if change == "rule":
        changes["rule"] = "copied"
    elif change == "member":
        changes["members"] = (make_member(seed=7),)
    elif change == "masks":
        changes["masks"] = None
    else:
        fields.add("f0", cells(64, 80, 16), seed=99)
        again = 2 + 1  # its batch, and what was not done before
    infer(settings(fields, member, **changes))
    assert sum(looked) == again
    fresh = fields.root / "fresh.csv"
    infer(settings(fields, member, **{**changes, "out": fresh}))
    assert fresh.read_bytes() == settings(fields, member).out.read_bytes()


def test_label_maps_that_are_packed_meanwhile_are_the_same(fields, member, monkeypatch, looked) -> None:
    whole = infer(settings(fields, member)).read_bytes()
    settings(fields, member).out.unlink()
    interrupted(settings(fields, member), monkeypatch, 4)
    looked.clear()
    pack_label_maps(fields.masks, 3)
    assert infer(settings(fields, member)).read_bytes() == whole
    assert 0 < sum(looked) < N_FIELDS
    fresh = fields.root / "fresh.csv"
    assert infer(settings(fields, member, out=fresh)).read_bytes() == whole


def test_how_fast_it_goes_does_not_matter_to_what_is_taken_up(fields, member, monkeypatch, looked) -> None:
    interrupted(settings(fields, member), monkeypatch, 4)
    looked.clear()
    infer(settings(fields, member, workers=3, batch=4, budget=2.0, device="cpu,cpu"))
    assert sum(looked) < N_FIELDS


def test_a_second_run_of_the_same_csv_is_refused_and_harms_nothing(fields, member) -> None:
    chosen = settings(fields, member)
    expected = infer(chosen).read_bytes()
    with Journal(journal_of(chosen.out)), pytest.raises(InputError, match="another process"):
        infer(chosen)
    assert chosen.out.read_bytes() == expected


def test_a_batch_that_is_scored_is_kept_while_the_members_look_at_the_next(
    fields, member, monkeypatch, patience
) -> None:
    """A kill costs the batch that the members look at, not the one before it."""
    chosen = settings(fields, member)
    look, add, journal = Ensemble.predict, Journal.add, journal_of(chosen.out)
    seen, kept, added = [0], [], threading.Condition()

    def records() -> int:
        return journal.read_bytes().count(b'"stamp"')

    def tells(self, *result, **facts):
        add(self, *result, **facts)
        with added:
            added.notify()

    def waits(self, inputs):
        with added:
            added.wait_for(lambda: records() >= seen[-1], patience)
        kept.append(records())
        seen.append(seen[-1] + len(inputs))
        return look(self, inputs)

    monkeypatch.setattr(Journal, "add", tells)
    monkeypatch.setattr(Ensemble, "predict", waits)
    infer(chosen)
    assert kept == seen[:-1]


@pytest.mark.whole_table  # tests/kill kills an inference in `make test`
def test_a_process_that_is_killed_leaves_a_csv_that_kaggle_takes_and_goes_on(fields, member) -> None:
    """The real thing: SIGKILL, when the members look for the third time."""
    chosen = settings(fields, member)
    script = (
        "import os, signal; from hpa_kit.config import InferSettings\n"
        "from hpa_kit.inference import Ensemble, infer\n"
        "look, calls = Ensemble.predict, []\n"
        "def third(self, inputs):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return look(self, inputs)\n"
        "Ensemble.predict = third\n"
        f"infer(InferSettings.model_validate_json({chosen.model_dump_json()!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert journal_of(chosen.out).read_bytes().count(b'"stamp"') >= 1
    assert check_submission(chosen.out, fields.root / "sample_submission.csv") == []
    result = infer(chosen).read_bytes()
    fresh = settings(fields, member, out=fields.root / "fresh.csv")
    assert infer(fresh).read_bytes() == result
