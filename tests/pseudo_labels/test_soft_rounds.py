"""Soft labels in rounds: their floor, who may give them, and which round learns from them."""

import logging

import numpy as np
import pandas as pd
import pytest

from hpa_kit.classes import N_CLASSES, multi_hot, parse_label
from hpa_kit.config import PseudoLabelSettings, SimulateSettings, TrainSettings
from hpa_kit.data import read_label_round, read_pseudo_labels
from hpa_kit.data.simulate import simulate
from hpa_kit.errors import InputError
from hpa_kit.pseudo_labels import make_pseudo_labels
from hpa_kit.pseudo_labels.make import soft_labels
from hpa_kit.training import Trainer, settings_of, train

NEGATIVE = 18

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight training fields of 64 x 64 with the truth of their cells."""
    root = tmp_path_factory.mktemp("simulated") / "data"
    simulate(SimulateSettings(out=root, train=8, test=0, size=64, classes=(0, 7, 18), seed=1, workers=1))
    return root


@pytest.fixture(scope="module")
def learn(data):
    """Trains a run of a second on these fields."""

    def learn(out, **changes):
        quick = {
            "data": data, "backbone": "test_resnet", "stride": 8, "size": 64, "epochs": 1, "batch": 4,
            "folds": 2, "workers": 0, "device": "cpu", "masks": data / "masks",
        }  # fmt: skip
        return train(TrainSettings(**{**quick, "out": out, **changes}))

    return learn


@pytest.fixture(scope="module")
def label(data):
    """Makes soft labels of these fields."""

    def label(out, *members, **changes):
        quick = {
            "data": data, "labels": "soft", "masks": data / "masks", "map_size": 64, "batch": 4,
            "device": "cpu", "views": "none",
        }  # fmt: skip
        return make_pseudo_labels(PseudoLabelSettings(**{**quick, "out": out, "members": members, **changes}))

    return label


@pytest.fixture(scope="module")
def members(learn, tmp_path_factory):
    """A run per fold, of image labels."""
    root = tmp_path_factory.mktemp("round0")
    return [learn(root / str(fold), fold=fold) for fold in (0, 1)]


def known(folder):
    """Image labels of the fields of a folder of pseudo labels, by ID."""
    fields = pd.read_csv(folder / "fields.csv", dtype=str)
    return {
        id: multi_hot([parse_label(text)])[0] for id, text in zip(fields["ID"], fields["Label"], strict=True)
    }


# The floor.


def test_a_floor_holds_in_the_classes_of_the_image_and_nowhere_else():
    scores = np.random.default_rng(0).random((40, N_CLASSES))
    image = multi_hot([(3, 7)])[0]
    rows = soft_labels(scores, image, floor=0.25)
    assert (rows[:, [3, 7]] == np.maximum(scores[:, [3, 7]], 0.25)).all()
    assert not np.delete(rows, [3, 7], axis=1).any()


def test_negative_has_a_floor_where_the_image_is_negative_only():
    scores = np.full((5, N_CLASSES), 0.1)
    assert not soft_labels(scores, multi_hot([(3,)])[0], floor=0.25)[:, NEGATIVE].any()
    assert (soft_labels(scores, multi_hot([(3, NEGATIVE)])[0], floor=0.25)[:, NEGATIVE] == 0.25).all()


def test_negative_that_members_did_not_learn_is_what_the_images_other_classes_leave():
    scores = np.full((1, N_CLASSES), 0.5)
    scores[0, 5], scores[0, 6] = 0.9, 0.99
    assert soft_labels(scores, multi_hot([(5, NEGATIVE)])[0], negative=True)[0, NEGATIVE] == pytest.approx(
        0.1
    )
    assert soft_labels(scores, multi_hot([(NEGATIVE,)])[0], negative=True)[0, NEGATIVE] == 1
    assert soft_labels(scores, multi_hot([(5,)])[0], negative=True)[0, NEGATIVE] == 0
    assert soft_labels(scores, multi_hot([(5, NEGATIVE)])[0], negative=False)[0, NEGATIVE] == 0.5


def test_labels_with_a_floor_are_those_without_but_never_below(label, members, tmp_path):
    plain = read_pseudo_labels(label(tmp_path / "plain", *members)).scores
    out = label(tmp_path / "floor", *members, floor=0.4)
    raised = read_pseudo_labels(out).scores
    for id, image in known(out).items():
        np.testing.assert_allclose(raised[id], np.maximum(plain[id], 0.4 * image), rtol=1e-5)
    assert any((plain[id] < 0.4)[:, known(out)[id] > 0].any() for id in plain)
    with pytest.raises(InputError, match=r"was started with floor 0.4 \(now 0.3\)"):
        label(out, *members, floor=0.3)


@pytest.mark.parametrize("floor", [-0.1, 1.0])
def test_a_floor_is_a_probability_below_one(tmp_path, floor):
    with pytest.raises(ValueError, match="floor"):
        PseudoLabelSettings(data=tmp_path, out=tmp_path, members=["run"], labels="soft", floor=floor)


def test_hard_labels_take_no_floor(tmp_path):
    with pytest.raises(ValueError, match="floor 0.25 is of soft labels; give labels soft too, or no floor"):
        PseudoLabelSettings(data=tmp_path, out=tmp_path, members=["run"], floor=0.25)


# Who may give labels.


def test_soft_labels_of_fields_that_every_member_has_learnt_from_are_refused(label, members, tmp_path):
    first = members[0]
    learnt = pd.read_csv(first / "folds.csv", dtype=str)
    learnt = sorted(learnt["ID"][learnt["fold"] != "0"])
    with pytest.raises(InputError) as caught:
        label(tmp_path / "refused", first)
    said = (
        f"every member ({first}) has learnt from {len(learnt)} of 8 fields, such as ID {learnt[0]}, so that"
    )
    assert said in str(caught.value)
    assert "give members of other folds too (train --fold)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "refused").exists()


def test_they_are_made_where_that_is_asked_for_and_said_again_to_who_learns(
    label, learn, members, tmp_path, caplog
):
    with caplog.at_level(logging.INFO):
        out = label(tmp_path / "taken", members[0], seen="take")
    assert "4 of 8 fields by members that have not learnt from them, 4 that every member has" in caplog.text
    assert pd.read_csv(out / "fields.csv")["unseen"].sum() == 4
    learn(tmp_path / "run", pseudo_labels=out)
    assert "4 of 8 fields were labelled by members that had seen them" in caplog.text


def test_all_members_label_all_fields_where_that_is_asked_for_and_which_they_had_seen_is_kept(
    label, members, tmp_path, caplog
):
    with caplog.at_level(logging.INFO):
        out = label(tmp_path / "one", members[0], out_of_fold=False)
    assert "all 8 fields by all members, of which some have learnt from 4" in caplog.text
    assert len(read_pseudo_labels(out).seen) == 4
    assert len(read_pseudo_labels(label(tmp_path / "both", *members, out_of_fold=False)).seen) == 8
    with pytest.raises(ValueError, match="seen refuse needs out_of_fold"):
        PseudoLabelSettings(data=tmp_path, out=out, members=["run"], out_of_fold=False, seen="refuse")


def test_hard_labels_of_such_fields_are_made_unless_they_are_to_be_refused(label, members, tmp_path):
    label(tmp_path / "hard", members[0], labels="hard")
    with pytest.raises(InputError, match="so that hard labels of them would repeat"):
        label(tmp_path / "refused", members[0], labels="hard", seen="refuse")


# Rounds.


def test_rounds_are_counted_from_image_labels_on_and_stay_out_of_fold(
    label, learn, members, tmp_path, caplog
):
    assert [settings_of(run).label_round for run in members] == [0, 0]
    runs, before = members, None
    for number in (1, 2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            labels = label(tmp_path / f"labels{number}", *runs, floor=0.1)
        assert "8 of 8 fields by members that have not learnt from them" in caplog.text
        assert read_label_round(labels) == number
        assert not read_pseudo_labels(labels).seen
        runs = [
            learn(tmp_path / f"run{number}-{fold}", fold=fold, pseudo_labels=labels, folds_of=members[0])
            for fold in (0, 1)
        ]
        assert [settings_of(run).label_round for run in runs] == [number, number]
        assert all(settings_of(run).sc_cam.round == 0 for run in runs)
        scores = read_pseudo_labels(labels).scores
        assert before is None or any((scores[id] != before[id]).any() for id in scores)
        before = scores
    assert "2 of 2 members learnt labels that earlier members gave" in caplog.text
    assert "were labelled by members that had seen them" not in caplog.text


def test_labels_are_of_the_round_after_the_latest_of_its_members(label, learn, members, tmp_path):
    labels = label(tmp_path / "labels", *members)
    run = learn(tmp_path / "run", pseudo_labels=labels)
    assert read_label_round(label(tmp_path / "mixed", members[1], run)) == 2
    assert read_label_round(label(tmp_path / "hard", members[1], run, labels="hard")) == 2


def test_a_run_of_soft_labels_that_was_killed_goes_on_to_the_same_weights(
    label, learn, members, tmp_path, monkeypatch
):
    labels = label(tmp_path / "labels", *members)
    whole = learn(tmp_path / "whole", pseudo_labels=labels, epochs=2)

    def killed(trainer):
        if trainer.state.step_number == 1:
            trainer._write_last()
            raise KeyboardInterrupt
        return True

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "after_update", killed)
        with pytest.raises(KeyboardInterrupt):
            learn(tmp_path / "killed", pseudo_labels=labels, epochs=2)
    learn(tmp_path / "killed", pseudo_labels=labels, epochs=2)
    assert (tmp_path / "killed" / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
