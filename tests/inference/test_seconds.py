"""What a field took by part is kept beside the CSV, also of a run in several starts."""

import logging
from pathlib import Path

import pytest
import yaml

from hpa_kit.config import InferSettings, PredictSettings
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble, infer, predict
from hpa_kit.inference.growing_table import PARTS, SubmissionTable, read_seconds, seconds_of
from hpa_kit.inference.results import Journal

N_FIELDS = 6


@pytest.fixture
def fields(competition, cells):
    for k in range(N_FIELDS):
        competition.add(f"f{k}", cells(64, 64, 32), seed=k)
    competition.write_sample()
    return competition


def settings(competition, member: Path, kind=InferSettings, **changes):
    values = {
        "data": competition.root,
        "members": (member,),
        "out": competition.root / "out" / "submission.csv",
        "masks": competition.masks,
        "rule": "copied",
        "views": "none",
        "map_size": 64,
        "batch": 2,
        "device": "cpu",
    } | changes
    return kind(**values)


def members_take(monkeypatch, clock, seconds: float, fail_at: int = 0) -> None:
    """Let members take so long for a field, and be interrupted at a call."""
    look, calls = Ensemble.predict, []

    def slow(self, inputs):
        calls.append(len(inputs))
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        clock.seconds += seconds * len(inputs)
        return look(self, inputs)

    monkeypatch.setattr(Ensemble, "predict", slow)


def kept(chosen) -> dict[str, tuple[float, int]]:
    found = read_seconds(seconds_of(chosen.out))
    return {part: (one.seconds_per_field, one.fields) for part, one in found.items()}


@pytest.mark.parametrize("found_now", [True, False])
def test_every_part_of_every_field_is_counted(fields, member, clock, monkeypatch, found_now) -> None:
    """Finding cells is a part where they are found now."""
    members_take(monkeypatch, clock, 3.0)
    chosen = settings(fields, member, masks=None if found_now else fields.masks)
    infer(chosen, now=clock)
    assert seconds_of(chosen.out).name == "submission_seconds.yaml"
    assert list(kept(chosen)) == [part for part in PARTS if found_now or part != "cells"]
    assert {fields for _, fields in kept(chosen).values()} == {N_FIELDS}
    assert kept(chosen)["members"] == (3.0, N_FIELDS)


def test_a_run_in_two_starts_counts_each_field_once_with_what_it_took(
    fields, member, clock, monkeypatch
) -> None:
    chosen = settings(fields, member)
    with monkeypatch.context() as patch:
        members_take(patch, clock, 3.0, fail_at=3)
        with pytest.raises(KeyboardInterrupt):
            infer(chosen, now=clock)
    assert kept(chosen)["members"] == (3.0, 3)  # batches of one and of two
    members_take(monkeypatch, clock, 9.0)
    infer(chosen, now=clock)
    assert kept(chosen)["members"] == (6.0, N_FIELDS)  # three of 3 s, three of 9 s


def test_a_run_that_starts_anew_counts_nothing_of_the_one_before(fields, member, clock, monkeypatch) -> None:
    chosen = settings(fields, member)
    infer(chosen)
    members_take(monkeypatch, clock, 3.0, fail_at=1)
    with pytest.raises(KeyboardInterrupt):
        infer(chosen, now=clock)
    assert not seconds_of(chosen.out).exists()  # nor stands it beside a CSV that it does not tell of


def test_a_field_that_cannot_be_used_is_not_counted(fields, member, clock, monkeypatch) -> None:
    (fields.test / "f3_red.png").write_bytes(b"")
    members_take(monkeypatch, clock, 3.0)
    chosen = settings(fields, member)
    infer(chosen, now=clock)
    assert kept(chosen)["members"] == (3.0, N_FIELDS - 1)


def test_a_table_of_cells_has_its_seconds_too(fields, member, clock, monkeypatch) -> None:
    members_take(monkeypatch, clock, 2.0)
    chosen = settings(fields, member, PredictSettings, out=fields.root / "out" / "cells.csv")
    predict(chosen, now=clock)
    assert seconds_of(chosen.out).name == "cells_seconds.yaml"
    assert kept(chosen)["members"] == (2.0, N_FIELDS)


def test_a_csv_is_not_lost_for_want_of_its_seconds(fields, member, caplog) -> None:
    chosen = settings(fields, member)
    expected = infer(chosen).read_bytes()
    seconds_of(chosen.out).unlink()
    seconds_of(chosen.out).mkdir()
    with caplog.at_level(logging.WARNING):
        assert infer(chosen).read_bytes() == expected
    assert "times of the fields of" in caplog.text
    assert "submission_seconds.yaml" in caplog.text


def test_fields_of_a_journal_without_seconds_are_not_counted(tmp_path) -> None:
    path = tmp_path / "s.csv"
    with SubmissionTable(path, ["a", "b"], {}, Journal(tmp_path / "j")) as rows:
        rows.journal.add("a", b"0 0.5 m", size=(8, 8))
        rows.write()
        assert not seconds_of(path).exists()
        rows.journal.add("b", b"0 0.5 m", size=(8, 8), seconds={"members": 0.1234567, "reading": 0.5})
        rows.write()
    assert yaml.safe_load(seconds_of(path).read_text()) == {
        "reading": {"seconds_per_field": 0.5, "fields": 1},
        "members": {"seconds_per_field": 0.123457, "fields": 1},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "seconds.yaml is missing"),
        ("", "cannot be used; expected seconds_per_field and fields by part"),
        ("reading: 3", "cannot be used; expected seconds_per_field and fields by part"),
        ("reading: {seconds_per_field: 3}", "seconds.yaml: reading: fields: .* found nothing"),
        ("reading: {seconds_per_field: -1, fields: 2}", "seconds.yaml: reading: seconds_per_field: "),
        ("reading: {seconds_per_field: .inf, fields: 2}", "seconds.yaml: reading: seconds_per_field: "),
        ("reading: {seconds: 1, fields: 2}", "unknown setting 'seconds'"),
        ("{", "is no YAML"),
    ],
)
def test_seconds_that_cannot_be_used_are_named(tmp_path, text, message) -> None:
    path = tmp_path / "s_seconds.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_seconds(path)
