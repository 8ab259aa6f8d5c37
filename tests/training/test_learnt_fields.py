"""Which fields a member has learnt from: those of its folds, and of the runs that it started with."""

import logging

import pytest

from hpa_kit.config import TrainSettings
from hpa_kit.training.checkpoint import BEST, write_checkpoint
from hpa_kit.training.learnt_fields import learnt_from
from hpa_kit.training.run_folder import FOLDS


@pytest.fixture
def make_run(tmp_path):
    def make(name, folds, warm_start=None, fold=0, **options):
        known = {"data": "data", "out": tmp_path / name, "folds": 3, **options}
        settings = TrainSettings(warm_start=warm_start, fold=fold, **known)
        write_checkpoint(tmp_path / name / BEST, settings, {"epoch": 1})
        if folds is not None:
            rows = "".join(f"{id},,{number}\n" for id, number in folds.items())
            (tmp_path / name / FOLDS).write_text(f"ID,Label,fold\n{rows}")
        return tmp_path / name

    return make


def test_a_member_has_learnt_from_all_folds_but_the_one_kept_out(make_run):
    run = make_run("run", {"a": 0, "b": 1, "c": 2}, fold=1)
    assert learnt_from(run) == learnt_from(run / BEST) == {"a", "c"}


def test_a_member_that_learns_from_all_fields_has_seen_its_validation_fold_too(make_run):
    assert learnt_from(make_run("run", {"a": 0, "b": 1, "c": -1}, all_fields=True)) == {"a", "b", "c"}


def test_what_it_started_with_has_told_it_of_fields_too(make_run):
    first = make_run("first", {"a": 0, "b": 1, "c": 1})
    second = make_run("second", {"a": 1, "b": 0, "c": 0}, warm_start=first)
    third = make_run("third", {"a": 1, "b": 0, "d": 1, "e": 0}, warm_start=second / BEST)
    assert learnt_from(second) == {"a", "b", "c"}
    assert learnt_from(third) == {"a", "b", "c", "d"}


def test_without_folds_anywhere_it_may_have_learnt_from_every_field(make_run, caplog):
    first = make_run("first", None)
    assert learnt_from(first) is None
    with caplog.at_level(logging.WARNING):
        assert learnt_from(make_run("second", {"a": 0, "b": 1}, warm_start=first)) is None
    assert f"started with {first}, which has no folds.csv beside it" in caplog.text


def test_a_start_that_is_gone_is_said_and_its_fields_are_not_counted(make_run, tmp_path, caplog):
    run = make_run("run", {"a": 0, "b": 1}, warm_start=tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        assert learnt_from(run) == {"b"}
    assert f"{run} started with {tmp_path / 'gone'}, which is not there" in caplog.text


def test_runs_that_started_with_each_other_end(make_run, tmp_path):
    make_run("first", {"a": 0, "b": 1}, warm_start=tmp_path / "second")
    assert learnt_from(make_run("second", {"a": 1, "b": 0}, warm_start=tmp_path / "first")) == {"a", "b"}
