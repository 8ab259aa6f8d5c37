"""Tuning ensembles in which a network of crops says what cells show."""

import logging

import numpy as np
import pandas as pd
import pytest

from hpa_kit.config import EnsembleSettings, TuneSettings, write_ensemble
from hpa_kit.data import read_field
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble
from hpa_kit.scoring import FieldEvidence, scoring_of
from hpa_kit.submission import encode_label_map, truth_string, write_submission
from hpa_kit.tuning import tune
from hpa_kit.tuning.choices import choose
from hpa_kit.tuning.evidence import MAP_RULES, gather
from hpa_kit.tuning.pool import pooled
from hpa_kit.tuning.truth import TrueCells

IDS = [f"f{k}" for k in range(6)]


@pytest.fixture
def labelled(competition, cells):
    """Six labelled fields with the truth of their cells."""
    competition.test = competition.root / "train"
    competition.test.mkdir()
    rng, truth = np.random.default_rng(1), []
    for k, id in enumerate(IDS):
        found = cells(60, 84, 20)
        competition.add(id, found, seed=k)
        classes = {cell: rng.choice(4, 2, replace=False).tolist() for cell in range(1, found.max() + 1)}
        truth.append((id, 84, 60, truth_string(classes, encode_label_map(found))))
    competition.truth = competition.root / "truth_train.csv"
    write_submission(competition.truth, truth)
    labels = pd.DataFrame({"ID": IDS, "Label": ["0|1", "2", "3|0", "1|2", "0", "3"]})
    labels.to_csv(competition.root / "train.csv", index=False)
    return competition


def settings_of(labelled, runs, tmp_path, **changes) -> TuneSettings:
    for run in runs:  # none has learnt from any of the fields
        pd.DataFrame({"ID": IDS, "Label": "0", "fold": 0}).to_csv(run / "folds.csv", index=False)
    values = {
        "data": labelled.root, "members": tuple(runs), "out": tmp_path / "tuned.yaml",
        "truth": labelled.truth, "masks": labelled.masks, "map_size": 32, "views": "none", "batch": 4,
        "device": "cpu", "parts": 3,
    }  # fmt: skip
    return TuneSettings(**(values | changes))


def rows_of(labelled, settings: EnsembleSettings) -> np.ndarray:
    """Cell scores of all fields by the ensemble itself."""
    ensemble, rule, rows = Ensemble(settings.members, map_size=settings.map_size), scoring_of(settings), []
    for id in IDS:
        field = read_field(labelled.root / "train", id)
        cells = np.load(labelled.masks / f"{id}.npz")["cells"].astype(np.int32)
        (said,) = ensemble([field], [cells])
        evidence = FieldEvidence(
            said.image_scores, said.class_maps, said.logit_maps, cells, cells, field[1], int(cells.max()),
            cell_logits=said.cell_logits, cell_weight=said.cell_weight,
        )  # fmt: skip
        rows.append(rule(evidence))
    return np.concatenate(rows)


@pytest.mark.parametrize("kinds", ["crops", "both"])
def test_what_is_tried_scores_what_the_ensemble_would(
    labelled, crop_member, make_member, tmp_path, kinds
) -> None:
    runs = [crop_member] if kinds == "crops" else [crop_member, make_member(64, seed=1)]
    settings = settings_of(labelled, runs, tmp_path)
    start = settings.of_ensemble()
    weights = (0.3, 0.9)[: len(runs)]
    members = [one.model_copy(update={"weight": w}) for one, w in zip(start.members, weights, strict=True)]
    start = start.model_copy(update={"members": tuple(members)})
    asked = dict.fromkeys(IDS, tuple(range(len(runs))))
    truth = TrueCells(labelled.truth)
    found = gather(settings, start, labelled.root / "train", tmp_path / "cache", asked, truth)
    pool = pooled(found, np.zeros((len(IDS), 19), bool), by_cell=True)
    np.testing.assert_allclose(pool.scores_of(start), rows_of(labelled, start), atol=2e-3)
    assert pool.rows.shape[0] == len(MAP_RULES)
    assert np.isnan(pool.rows).all() == (kinds == "crops")
    chosen = choose(pool, np.ones(len(IDS), bool), start)
    assert kinds == "both" or chosen.rule not in ("cam_share", "quantile")


def test_weights_are_chosen_across_kinds(labelled, crop_member, make_member, tmp_path) -> None:
    settings = settings_of(labelled, [crop_member, make_member(64, seed=1)], tmp_path)
    assert tune(settings).fields == len(IDS)
    assert settings.out.is_file()


def test_a_start_with_a_rule_of_class_maps_is_refused_without_any(labelled, crop_member, tmp_path) -> None:
    settings = settings_of(labelled, [crop_member], tmp_path)
    yaml = tmp_path / "start.yaml"
    write_ensemble(settings.of_ensemble().model_copy(update={"rule": "cam_share"}), yaml)
    settings = settings.model_copy(update={"members": (), "ensemble": yaml})
    with pytest.raises(InputError, match="rule cam_share looks at class maps"):
        tune(settings)


def test_nothing_is_said_of_rules_that_cannot_be_tried(labelled, crop_member, tmp_path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        tune(settings_of(labelled, [crop_member], tmp_path))
    assert not caplog.records


@pytest.mark.whole_table  # that such members are not asked holds of every kind
def test_subcell_that_may_have_seen_every_field_is_not_asked_and_keeps_its_weight(
    labelled, crop_member, make_subcell, tmp_path, caplog
) -> None:
    started = settings_of(labelled, [crop_member], tmp_path)
    with caplog.at_level(logging.WARNING):
        found = tune(started.model_copy(update={"members": (crop_member, make_subcell("bg"))}))
    assert "taken to have learnt from every field" in caplog.text
    weights = [member.weight for member in found.ensemble.members]
    assert len(weights) == 2 and weights[1] == 1
