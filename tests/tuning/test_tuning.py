"""Choosing an ensemble's weights, rule and steps on fields its members have not seen."""

import logging
import shutil

import numpy as np
import pandas as pd
import pytest

from hpa_kit.classes import N_CLASSES
from hpa_kit.cli import main
from hpa_kit.config import EnsembleSettings, TuneSettings, read_ensemble, write_ensemble
from hpa_kit.config.scoring import make_step
from hpa_kit.data import read_field
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble
from hpa_kit.scoring import FieldEvidence, score_field, scores_to_prediction, scoring_of
from hpa_kit.submission import encode_label_map, evaluate, truth_string, write_submission
from hpa_kit.training.features_file import Features, write_features
from hpa_kit.tuning import tune
from hpa_kit.tuning.calibration import fit_calibration
from hpa_kit.tuning.choices import choose, crossfit
from hpa_kit.tuning.evidence import MAP_RULES, Evidence, gather
from hpa_kit.tuning.pool import Pool, pooled
from hpa_kit.tuning.truth import TrueCells

HEIGHT, WIDTH = 60, 84
IDS = [f"f{k}" for k in range(6)]


@pytest.fixture
def labelled(competition, cells):
    """Six labelled fields, not square, with the truth of their cells; the label maps find most of them."""
    competition.test = competition.root / "train"
    competition.test.mkdir()
    rng = np.random.default_rng(1)
    truth = []
    for k, id in enumerate(IDS):
        found = cells(HEIGHT, WIDTH, 20)
        competition.add(id, found, seed=k)
        true = np.where(found == 5, 0, found)  # a cell too many was found
        true[:, :6] = 0  # and the first column of cells is smaller than it was found
        classes = {
            cell: rng.choice(4, 2, replace=False).tolist() for cell in np.unique(true[true > 0]).tolist()
        }
        truth.append((id, WIDTH, HEIGHT, truth_string(classes, encode_label_map(true))))
    competition.truth = competition.root / "truth_train.csv"
    write_submission(competition.truth, truth)
    labels = pd.DataFrame({"ID": IDS, "Label": ["0|1", "2", "3|0", "1|2", "0", "3"]})
    labels.to_csv(competition.root / "train.csv", index=False)
    return competition


def with_folds(run, tmp_path, held_out=IDS):
    """A copy of a run that has learnt from all fields but some."""
    copy = tmp_path / f"{run.name}_{len(held_out)}_{held_out[0] if held_out else ''}"
    shutil.copytree(run, copy)
    folds = pd.DataFrame({"ID": IDS, "Label": "0", "fold": [0 if id in held_out else 1 for id in IDS]})
    folds.to_csv(copy / "folds.csv", index=False)
    return copy


def settings_of(labelled, runs, tmp_path, **changes) -> TuneSettings:
    values = {
        "data": labelled.root, "members": tuple(runs), "out": tmp_path / "tuned.yaml",
        "truth": labelled.truth, "masks": labelled.masks, "map_size": 32,
        "views": "none", "batch": 4, "device": "cpu", "parts": 2, "repeats": 1,
    }  # fmt: skip
    return TuneSettings(**(values | changes))


@pytest.fixture
def gathered(labelled, make_member, tmp_path):
    """Evidence of two members, and the ensemble they are."""
    # Of this size their maps differ in every cell.
    runs = [with_folds(make_member(64, seed=seed), tmp_path) for seed in (1, 2)]
    settings = settings_of(labelled, runs, tmp_path)
    start = settings.of_ensemble()
    members = tuple(
        one.model_copy(update={"weight": w}) for one, w in zip(start.members, (0.3, 0.9), strict=True)
    )
    start = start.model_copy(update={"members": members})
    asked, truth = dict.fromkeys(IDS, (0, 1)), TrueCells(labelled.truth)
    return labelled, start, gather(settings, start, labelled.root / "train", tmp_path / "cache", asked, truth)


def infer_slowly(labelled, settings: EnsembleSettings, out):
    """A submission by the ensemble itself."""
    ensemble, rule, rows = Ensemble(settings.members, map_size=settings.map_size), scoring_of(settings), []
    cells = {}
    for id in IDS:
        field = read_field(labelled.root / "train", id)
        cells[id] = np.load(labelled.masks / f"{id}.npz")["cells"].astype(np.int32)
        nuclei = np.load(labelled.masks / f"{id}.npz")["nuclei"].astype(np.int32)
        seen = FieldEvidence(*ensemble([field])[0][:3], cells[id], nuclei, field[1], int(cells[id].max()))
        scores = score_field(id, seen, rule)
        rows.append((id, WIDTH, HEIGHT, scores_to_prediction(scores, encode_label_map(cells[id]))))
    write_submission(out, rows)
    return out


RULES_AND_STEPS = [
    ("cam_share", "mean_share", []),
    ("cam_share", "max", ["fill"]),
    ("quantile", "mean_share", ["negative"]),
    ("best", "mean_share", ["others", "small"]),
    ("cell_logit", "mean_share", ["fuse"]),
    ("copied", "mean_share", []),
]


@pytest.mark.parametrize(("rule", "form", "steps"), RULES_AND_STEPS)
def test_what_is_tried_scores_what_the_ensemble_would(gathered, tmp_path, rule, form, steps) -> None:
    labelled, start, evidence = gathered
    settings = start.model_copy(
        update={"rule": rule, "form": form, "steps": tuple(make_step(step) for step in steps)}
    )
    pool = pooled(evidence, np.zeros((len(IDS), N_CLASSES), bool), by_cell=True)
    found = pool.mean_ap(pool.scores_of(settings), np.ones(len(IDS), bool))
    expected = evaluate(labelled.truth, infer_slowly(labelled, settings, tmp_path / "s.csv")).mean_ap
    assert expected > 0.05
    # Equal scores, of which some rules give many, may come in another order.
    error = {"copied": 0.05, "cam_share": 0.01, "quantile": 0.01}.get(rule, 1e-4)
    assert found == pytest.approx(expected, abs=error)


def test_a_member_is_not_asked_about_fields_it_has_learnt_from(labelled, make_member, tmp_path) -> None:
    run = make_member(32, seed=1)
    runs = [with_folds(run, tmp_path, IDS[:3]), with_folds(run, tmp_path, IDS[2:5])]
    tuned = tune(settings_of(labelled, runs, tmp_path))
    assert tuned.fields == 5
    kept = sorted(path.stem for path in (tmp_path / "tuned_evidence").glob("*.npz"))
    assert kept == IDS[:5]
    for id, places in {"f0": [0], "f2": [0, 1], "f4": [1]}.items():
        scores = np.load(tmp_path / "tuned_evidence" / f"{id}.npz")["image_scores"]
        assert np.flatnonzero(~np.isnan(scores).any(axis=1)).tolist() == places


def test_members_that_know_every_field_cannot_be_tuned(labelled, make_member, tmp_path) -> None:
    runs = [with_folds(make_member(32), tmp_path, []), make_member(32)]  # the second has no folds at all
    with pytest.raises(InputError, match="0 of 6 fields can be looked at by members that have not learnt"):
        tune(settings_of(labelled, runs, tmp_path))


def test_a_truth_of_other_fields_and_fields_that_cannot_be_read_are_told_apart(
    labelled, make_member, tmp_path
) -> None:
    run = with_folds(make_member(32), tmp_path)
    other = tmp_path / "other.csv"
    other.write_text(labelled.truth.read_text().replace("\nf", "\ng"))
    with pytest.raises(InputError, match="other.csv has none of the fields of .*train"):
        tune(settings_of(labelled, [run], tmp_path, truth=other))
    for id in IDS[:3]:
        (labelled.test / f"{id}_blue.png").write_bytes(b"")
    with pytest.raises(InputError, match="3 of 6 fields could be used"):
        tune(settings_of(labelled, [run], tmp_path))


def test_evidence_is_kept_until_something_changes(labelled, make_member, tmp_path, looked) -> None:
    run = with_folds(make_member(32), tmp_path)
    first = tune(settings_of(labelled, [run], tmp_path))
    looked.clear()
    assert tune(settings_of(labelled, [run], tmp_path)) == first
    assert not looked
    tune(settings_of(labelled, [run], tmp_path, map_size=40))
    assert len(looked) == 6
    labelled.truth.write_text(labelled.truth.read_text() + "\n")
    tune(settings_of(labelled, [run], tmp_path, map_size=40))
    assert len(looked) == 12


def set_folds(run, held_out) -> None:
    folds = pd.DataFrame({"ID": IDS, "Label": "0", "fold": [0 if id in held_out else 1 for id in IDS]})
    folds.to_csv(run / "folds.csv", index=False)


def kept(tmp_path, id: str) -> dict:
    with np.load(tmp_path / "tuned_evidence" / f"{id}.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def looked(monkeypatch) -> list:
    """The fields that members were asked about, one entry for each time."""
    found, look = [], Ensemble.predict_apart

    def counted(self, inputs, places):
        found.extend(one for one, asked in zip(inputs, places, strict=True) for _ in asked)
        return look(self, inputs, places)

    monkeypatch.setattr(Ensemble, "predict_apart", counted)
    return found


def test_what_a_member_said_of_a_field_that_it_has_learnt_from_since_is_not_used(
    labelled, make_member, tmp_path, looked
) -> None:
    runs = [with_folds(make_member(32, seed=seed), tmp_path) for seed in (1, 2)]
    tune(settings_of(labelled, runs, tmp_path))
    assert not np.isnan(kept(tmp_path, "f0")["image_scores"]).any()
    set_folds(runs[0], IDS[1:])  # a fold moved: the first member has learnt from f0
    looked.clear()
    tune(settings_of(labelled, runs, tmp_path))
    assert len(looked) == 1
    assert np.isnan(kept(tmp_path, "f0")["image_scores"]).all(axis=1).tolist() == [True, False]


def test_files_of_fields_that_did_not_belong_when_members_changed_are_not_read_when_they_do_again(
    labelled, make_member, tmp_path, looked
) -> None:
    run = with_folds(make_member(32, seed=1), tmp_path)
    tune(settings_of(labelled, [run], tmp_path))
    before = kept(tmp_path, "f5")["image_scores"]
    shutil.copy(make_member(32, seed=2) / "best.safetensors", run)
    set_folds(run, IDS[:5])
    assert tune(settings_of(labelled, [run], tmp_path)).fields == 5
    set_folds(run, IDS)
    looked.clear()
    assert tune(settings_of(labelled, [run], tmp_path)).fields == 6
    assert len(looked) == 1
    assert np.abs(kept(tmp_path, "f5")["image_scores"] - before).max() > 1e-3


@pytest.mark.parametrize("change", ["image", "label map", "damage", "half precision", "weight"])
def test_evidence_is_made_again_where_anything_that_it_depends_on_has_changed(
    labelled, make_member, tmp_path, looked, change
) -> None:
    run = with_folds(make_member(32), tmp_path)
    tune(settings_of(labelled, [run], tmp_path))
    looked.clear()
    again, changes = 1, {}
    if change == "image":
        shutil.copy(labelled.test / "f1_green.png", labelled.test / "f2_green.png")
    elif change == "label map":
        shutil.copy(labelled.masks / "f1.npz", labelled.masks / "f2.npz")
    elif change == "damage":
        path = tmp_path / "tuned_evidence" / "f2.npz"
        path.write_bytes(path.read_bytes()[:200])
    elif change == "half precision":
        again, changes = 6, {"amp": False}
    else:
        ensemble = settings_of(labelled, [run], tmp_path).of_ensemble()
        members = (ensemble.members[0].model_copy(update={"mode": "both", "weight": 0.5}),)
        write_ensemble(ensemble.model_copy(update={"members": members}), tmp_path / "e.yaml")
        again, changes = 6, {"ensemble": tmp_path / "e.yaml", "members": (), "views": "flips"}
    tune(settings_of(labelled, [run], tmp_path, **changes))
    assert len(looked) == again


@pytest.mark.parametrize("foreign", ["label maps", "features"])
def test_a_cache_that_holds_something_else_is_refused_and_stays_as_it_was(
    labelled, make_member, tmp_path, looked, foreign
) -> None:
    cache = labelled.masks
    if foreign == "features":
        cache = tmp_path / "features"
        write_features(cache / "f0.npz", Features(["f0"], np.ones((1, 4), np.float32), "of a network"))
    before = {path.name: path.read_bytes() for path in cache.iterdir()}
    named = {"label maps": "info, cells, nuclei", "features": "ids, features, source, stamps"}[foreign]
    with pytest.raises(InputError, match=rf"^cache: .*f0\.npz holds {named}, expected evidence of"):
        tune(settings_of(labelled, [with_folds(make_member(32), tmp_path)], tmp_path, cache=cache))
    assert not looked and {path.name: path.read_bytes() for path in cache.iterdir()} == before


def test_a_changed_rule_needs_no_new_evidence(labelled, make_member, tmp_path, looked) -> None:
    run = with_folds(make_member(32), tmp_path)
    ensemble = settings_of(labelled, [run], tmp_path).of_ensemble()
    for rule in ("mean_logit", "quantile"):
        looked.clear()
        write_ensemble(ensemble.model_copy(update={"rule": rule}), tmp_path / "e.yaml")
        tune(settings_of(labelled, [], tmp_path, ensemble=tmp_path / "e.yaml", views="flips"))
    assert not looked


def test_without_a_truth_image_labels_judge(labelled, make_member, tmp_path) -> None:
    run = with_folds(make_member(32), tmp_path)
    tuned = tune(settings_of(labelled, [run], tmp_path, truth=None))
    assert "image labels" in str(tuned)
    assert read_ensemble(tmp_path / "tuned.yaml").members[0].checkpoint.resolve() == run
    (labelled.root / "train.csv").unlink()
    with pytest.raises(InputError, match="no labels of split train; give --truth"):
        tune(settings_of(labelled, [run], tmp_path, truth=None))


def test_devices_share_the_fields_and_say_what_one_does(gathered, tmp_path) -> None:
    labelled, start, evidence = gathered
    settings = settings_of(
        labelled, [one.checkpoint for one in start.members], tmp_path, device="cpu,cpu", batch=1
    )
    asked, truth = dict.fromkeys(evidence, tuple(range(len(start.members)))), TrueCells(labelled.truth)
    shared = gather(settings, start, labelled.root / "train", tmp_path / "two", asked, truth)
    assert list(shared) == list(evidence)
    for id, one in evidence.items():
        for mine, other in zip(one, shared[id], strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_it_says_what_looking_and_choosing_take(labelled, make_member, tmp_path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        tune(settings_of(labelled, [with_folds(make_member(32), tmp_path)], tmp_path))
    lines = [line for line in caplog.messages if line.startswith("tune: expect ")]
    assert ["for 6 fields" in line for line in lines] == [True, False]
    assert "choices, " in lines[1]


def test_the_command_writes_a_yaml_that_infer_takes(labelled, make_member, tmp_path, capsys) -> None:
    run = with_folds(make_member(32), tmp_path)
    out = tmp_path / "tuned.yaml"
    words = ["tune", labelled.root, "--members", run, "--truth", labelled.truth, "--masks", labelled.masks,
             "--map-size", 32, "--views", "none", "--device", "cpu", "--parts", 2, "--repeats", 1,
             "--out", out]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    assert f"ensemble: {out}" in capsys.readouterr().out
    csv = tmp_path / "s.csv"
    assert (
        main(["infer", str(labelled.root), "--split", "train", "--ensemble", str(out), "--out", str(csv)])
        == 0
    )
    assert evaluate(labelled.truth, csv).mean_ap > 0


def made_up(n_fields: int, informative: bool, seed: int = 0) -> Pool:
    """Two members whose logits know the cells' classes, the second only noise, or neither."""
    rng = np.random.default_rng(seed)
    evidence = {}
    for field in range(n_fields):
        hits = rng.random((8, N_CLASSES)) < 0.3
        logits = rng.normal(size=(2, 8, N_CLASSES)) * 2
        logits[0] += 3 * hits * informative
        evidence[str(field)] = Evidence(
            image_scores=np.full((2, N_CLASSES), 0.5, np.float32),
            logits=logits.astype(np.float32),
            rows=rng.random((len(MAP_RULES), 8, N_CLASSES)).astype(np.float32),
            areas=np.full(8, 1e6),
            cut=np.zeros(8, bool),
            hits=hits,
            truth=hits.sum(axis=0),
        )
    return pooled(evidence, np.zeros((n_fields, N_CLASSES), bool), by_cell=True)


START = EnsembleSettings(members=("a", "b"), rule="mean_logit")


def test_a_member_that_says_nothing_loses_its_weight() -> None:
    pool = made_up(60, informative=True)
    chosen = choose(pool, np.ones(60, bool), START)
    good, bad = (member.weight for member in chosen.members)
    assert bad < good / 3
    found = crossfit(pool, START, parts=4, seed=0)
    assert found.helps
    assert found.gain > 0.03


def test_choosing_from_noise_does_not_help_and_says_so() -> None:
    found = [crossfit(made_up(24, informative=False, seed=seed), START, 4, 0) for seed in range(4)]
    assert np.mean([one.gain for one in found]) < 0.01
    assert sum(one.helps for one in found) <= 1


def test_a_calibration_finds_the_line_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    cells, images = rng.normal(size=(2, 20_000, N_CLASSES)) * 2
    right = rng.random(cells.shape) < 1 / (1 + np.exp(-(0.7 * cells + 0.4 * images - 1)))
    right[:, 3] = False  # a class without examples takes the line of all
    step = fit_calibration(cells, images, right)
    others = np.delete(np.arange(N_CLASSES), 3)
    np.testing.assert_allclose(np.array(step.slope)[others], 0.7, atol=0.06)
    np.testing.assert_allclose(np.array(step.image)[others], 0.4, atol=0.06)
    np.testing.assert_allclose(np.array(step.intercept)[others], -1, atol=0.09)
    assert step.slope[3] > 0.3


def test_a_calibration_without_examples_changes_nothing() -> None:
    step = fit_calibration(np.zeros((5, N_CLASSES)), np.zeros((5, N_CLASSES)), np.zeros((5, N_CLASSES), bool))
    assert (step.slope, step.image, step.intercept) == ((1,) * 19, (0,) * 19, (0,) * 19)
