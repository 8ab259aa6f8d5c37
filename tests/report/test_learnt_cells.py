"""The cells that a notebook's network learns from: found or made first, and the same in later sessions."""

import shutil

import pytest

from hpa_kit.archives import read_archive
from hpa_kit.config import SimulateSettings, TrainSettings, make_settings
from hpa_kit.data.simulate import simulate
from hpa_kit.errors import InputError
from hpa_kit.report.learnt_cells import (
    LABEL_MAPS,
    MIN_HOURS,
    cells_learnt_from,
    cells_to_learn_from,
    with_label_maps,
)
from hpa_kit.training import find_start, read_checkpoint, run_folds, train
from hpa_kit.training.checkpoint import LAST, write_checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learnt") / "data"
    simulate(SimulateSettings(out=folder, train=6, test=2, size=64, classes=(0, 7), seed=1, workers=1))
    return folder


@pytest.fixture
def session(data, one_thread):
    """What the notebook does up to its training, in a session's folder."""

    def start(working, resume_from=None, masks=None, **options):
        out = working / "run"
        values = {
            "data": data, "out": out, "resume_from": resume_from, "backbone": "test_resnet", "size": 32,
            "stride": 8, "epochs": 1, "folds": 2, "batch": 2, "workers": 0, "device": "cpu",
        }  # fmt: skip
        values |= cells_to_learn_from(masks, out, resume_from, options) | options
        chosen = make_settings(TrainSettings, values)
        run_folds(chosen)
        find_start(chosen)
        return with_label_maps(chosen)

    return start


def test_label_maps_are_made_beside_the_run_which_learns_from_them(session, tmp_path):
    chosen = session(tmp_path)
    assert chosen.pools_cells
    (archive,) = (tmp_path / LABEL_MAPS).iterdir()
    assert len(read_archive(archive)) == 6
    assert cells_learnt_from(chosen, fields=2, side=40).ndim == 3
    train(chosen)


def test_the_same_session_goes_on_with_its_run(session, tmp_path):
    run = train(session(tmp_path))
    assert find_start(session(tmp_path)).epochs == 1
    assert run == tmp_path / "run"


def test_a_later_session_goes_on_with_the_label_maps_of_the_one_before(session, tmp_path):
    earlier = train(session(tmp_path / "one"))
    chosen = session(tmp_path / "two", earlier)
    assert chosen.masks == tmp_path / "one" / LABEL_MAPS
    assert not (tmp_path / "two" / LABEL_MAPS).exists()
    train(chosen)


def test_a_later_session_makes_label_maps_that_did_not_come_along(session, tmp_path):
    earlier = train(session(tmp_path / "one"))
    shutil.rmtree(tmp_path / "one" / LABEL_MAPS)
    chosen = session(tmp_path / "two", earlier)
    assert chosen.masks == tmp_path / "two" / LABEL_MAPS
    train(chosen)


@pytest.mark.parametrize("masks", [None, False])
def test_a_run_that_began_with_whole_fields_goes_on_so(session, tmp_path, masks, caplog):
    earlier = train(session(tmp_path / "one", masks=False))
    caplog.set_level("INFO")
    chosen = session(tmp_path / "two", earlier, masks=masks)
    assert not chosen.pools_cells
    assert not (tmp_path / "two" / LABEL_MAPS).exists()
    assert ("learnt from whole fields, and goes on so" in caplog.text) == (masks is None)
    train(chosen)


def test_a_run_of_before_there_were_cells_goes_on_with_whole_fields(session, tmp_path):
    earlier = train(session(tmp_path / "one", masks=False))
    saved = read_checkpoint(earlier / LAST)
    young = ("pooling", "cell_pooling", "consistency", "label_round")
    old = {name: value for name, value in saved.settings.items() if name not in young}
    before = make_settings(TrainSettings, old)
    write_checkpoint(earlier / LAST, before, saved.state)
    train(session(tmp_path / "two", earlier))


def test_a_run_that_began_with_whole_fields_is_refused_others_before_any_cell_is_looked_for(
    session, tmp_path
):
    earlier = train(session(tmp_path / "one", masks=False))
    with pytest.raises(InputError, match="another --out|no resume_from"):
        session(tmp_path / "two", earlier, masks=tmp_path / "mine")


@pytest.mark.parametrize("options", [{"network": "crops"}, {"pooling": "cells"}])
def test_networks_that_need_label_maps_get_those_that_are_made(session, tmp_path, options):
    chosen = session(tmp_path, **options)
    assert chosen.masks == tmp_path / LABEL_MAPS


@pytest.mark.parametrize("options", [{"network": "arcface"}, {"pooling": "field"}])
def test_no_cell_is_looked_for_where_none_is_learnt_from(session, tmp_path, options):
    assert session(tmp_path, **options).masks is None
    assert not (tmp_path / LABEL_MAPS).exists()


def test_the_time_that_cells_took_is_taken_off_the_runs(session, tmp_path):
    chosen = session(tmp_path).model_copy(update={"time_limit": 2.0})
    times = iter([0.0, 1800.0])
    assert with_label_maps(chosen, now=lambda: next(times)).limits.hours == pytest.approx(1.5)
    times = iter([0.0, 9000.0])
    assert with_label_maps(chosen, now=lambda: next(times)).limits.hours == MIN_HOURS
