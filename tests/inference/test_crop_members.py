"""Members that look at one cell at a time, alone and beside members that give maps."""

import logging

import numpy as np
import pandas as pd
import pytest
import torch

from hpa_kit.cells import resized
from hpa_kit.cells.crops import crops_of
from hpa_kit.classes import NEGATIVE
from hpa_kit.cli import main
from hpa_kit.config import (
    InferSettings,
    MemberSettings,
    PredictSettings,
    PseudoLabelSettings,
    read_ensemble,
)  # fmt: skip
from hpa_kit.config.kinds import RULE_NAMES
from hpa_kit.data import resize_field
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble, infer, predict
from hpa_kit.inference.crop_members import CropMember
from hpa_kit.inference.deadline import Budget, Deadline
from hpa_kit.inference.ensemble import QualityLevel
from hpa_kit.models.cell_pooling import pool_cells, with_negative
from hpa_kit.pseudo_labels import make_pseudo_labels
from hpa_kit.scoring import FieldEvidence, add_rule, scoring_function
from hpa_kit.scoring.functions import SCORING_FUNCTIONS
from hpa_kit.submission import read_submission
from hpa_kit.training import load_member


def field_of(cells, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (4, *cells.shape), dtype=np.uint8)


@pytest.fixture
def one(cells):
    """A field that is not square, and its twelve cells."""
    found = cells(90, 120, 30)
    return field_of(found), found


def by_hand(run, field, cells, flips=((), (-1,), (-2,))) -> torch.Tensor:
    """Logits of every cell, looked at one by one."""
    model, trained, _ = load_member(run)
    small = resize_field(field, trained.size)
    crops = crops_of(small, resized(cells, small.shape[1:]), trained.crops.side)
    statistics = torch.from_numpy(crops.statistics)[None]
    found = []
    with torch.inference_mode():
        for pixels, mask in zip(crops.pixels, crops.masks, strict=True):
            views = [
                model(
                    torch.from_numpy(pixels)[None].flip(flip),
                    torch.from_numpy(mask)[None].flip(flip),
                    statistics,
                )
                for flip in flips
            ]
            found.append(with_negative(torch.stack(views).mean(0)))
    return torch.cat(found)


@pytest.mark.parametrize("views", ["none", "flips", "auto"])
def test_it_says_of_each_cell_what_the_network_says_of_its_crop(crop_member, one, views) -> None:
    field, cells = one
    (said,) = Ensemble([crop_member], views, 32)([field], [cells])
    expected = by_hand(crop_member, field, cells, ((),) if views == "none" else ((), (-1,), (-2,)))
    np.testing.assert_allclose(said.cell_logits, expected, atol=1e-4)
    np.testing.assert_allclose(
        said.cell_logits[:, NEGATIVE], -said.cell_logits[:, :NEGATIVE].max(axis=1), atol=1e-5
    )
    assert said.cell_weight == 1 and said.class_maps.shape == said.logit_maps.shape == (19, 0, 0)
    pooled = with_negative(pool_cells(expected[None], torch.ones((1, len(expected)), dtype=torch.bool)))
    np.testing.assert_allclose(said.image_scores, pooled[0].sigmoid(), atol=1e-5)


def test_a_mixed_ensemble_scores_by_the_weighted_mean_of_what_its_members_say(
    crop_member, make_crop_member, member, one
) -> None:
    field, cells = one
    runs, weights = [crop_member, make_crop_member(seed=1, side=48), member], [0.5, 1.0, 2.5]
    parts = [MemberSettings(checkpoint=run, weight=w) for run, w in zip(runs, weights, strict=True)]
    rule = scoring_function("cell_logit")

    def rows(members) -> np.ndarray:
        (said,) = Ensemble(members, map_size=32)([field], [cells])
        return rule(
            FieldEvidence(
                said.image_scores, said.class_maps, said.logit_maps, cells, cells, field[1], int(cells.max()),
                cell_logits=said.cell_logits, cell_weight=said.cell_weight,
            )
        )  # fmt: skip

    def logit(p: np.ndarray) -> np.ndarray:
        return np.log(p) - np.log1p(-p)

    expected = np.average([logit(rows([run])) for run in runs], axis=0, weights=weights)
    np.testing.assert_allclose(logit(rows(parts)), expected, atol=1e-3)
    together, *alone = (
        Ensemble(some, map_size=32)([field], [cells])[0] for some in (parts, *[[run] for run in runs])
    )
    assert together.cell_weight == pytest.approx(1.5 / 4)
    scores = np.average([said.image_scores for said in alone], axis=0, weights=weights)
    np.testing.assert_allclose(together.image_scores, scores, atol=1e-5)


def test_a_mode_says_what_counts_of_it(crop_member, member, one) -> None:
    field, cells = one

    def said(crop_mode, cam_mode):
        parts = [
            MemberSettings(checkpoint=crop_member, mode=crop_mode),
            MemberSettings(checkpoint=member, mode=cam_mode),
        ]
        return Ensemble(parts, map_size=32)([field], [cells])[0]

    (crops,), (cam,) = (Ensemble([run], map_size=32)([field], [cells]) for run in (crop_member, member))
    of_cells = said("cam", "pred")
    np.testing.assert_allclose(of_cells.image_scores, cam.image_scores, atol=1e-5)
    np.testing.assert_allclose(of_cells.cell_logits, crops.cell_logits, atol=1e-4)
    assert of_cells.cell_weight == 1 and not of_cells.logit_maps.size
    of_image = said("pred", "cam")
    np.testing.assert_allclose(of_image.image_scores, crops.image_scores, atol=1e-5)
    np.testing.assert_allclose(of_image.logit_maps, cam.logit_maps, atol=1e-5)
    assert of_image.cell_logits is None


def test_batches_are_filled_across_fields_whatever_their_size(crop_member, cells, monkeypatch) -> None:
    fields = [cells(60, 60, step) for step in (12, 60, 20, 30)]
    ensemble = Ensemble([crop_member], "none", 32)
    seen = []
    look = CropMember._look
    monkeypatch.setattr(
        CropMember,
        "_look",
        lambda self, *crops, **how: (seen.append(len(crops[0])), look(self, *crops, **how))[1],
    )
    ensemble.crops_per_step = 16
    together = ensemble([field_of(one) for one in fields], fields)
    assert seen == [16, 16, 7]  # 25, 1, 9 and 4 cells
    for number, one in enumerate(fields):
        (alone,) = Ensemble([crop_member], "none", 32)([field_of(one)], [one])
        np.testing.assert_allclose(together[number].cell_logits, alone.cell_logits, atol=1e-4)


def test_out_of_memory_fewer_crops_are_looked_at_at_once(crop_member, one, monkeypatch, caplog) -> None:
    field, cells = one
    expected = Ensemble([crop_member], "none", 32)([field], [cells])[0].cell_logits
    ensemble, look = Ensemble([crop_member], "none", 32), CropMember._look

    def little_memory(self, pixels, *rest, **how):
        if len(pixels) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return look(self, pixels, *rest, **how)

    monkeypatch.setattr(CropMember, "_look", little_memory)
    ensemble.crops_per_step = 8
    with pytest.raises(InputError, match="too little memory"):
        ensemble([field], [cells])
    ensemble.crops_per_step = 16
    monkeypatch.setattr("hpa_kit.inference.crop_members._LEAST", 2)
    with caplog.at_level(logging.WARNING):
        (said,) = ensemble([field], [cells])
    np.testing.assert_allclose(said.cell_logits, expected, atol=1e-4)
    assert ensemble.crops_per_step == 4 and "4 crops per step" in caplog.text


def test_a_field_without_cells_and_one_nobody_looked_for_cells_in_have_no_rows(crop_member, one) -> None:
    field, cells = one
    ensemble = Ensemble([crop_member], "none", 32)
    none, some = ensemble([field, field], [np.zeros_like(cells), cells])
    assert none.cell_logits.shape == (0, 19) and len(some.cell_logits) == cells.max()
    assert ensemble([field])[0].cell_logits.shape == (0, 19)


def test_fields_without_cells_are_scored_on_the_device_of_all_others(crop_member, one) -> None:
    ensemble = Ensemble([crop_member], "none", 32)
    nothing = ensemble.inputs(one[0]).crops[64, 32]
    (looking,), device = ensemble.members, torch.device("meta")
    said = looking.predict([nothing] * 2, device, at_once=8)
    assert said.logits.device == said.scores.device == device and said.scores.shape == (2, 19)


def test_every_cell_gets_logits_though_it_is_lost_at_the_networks_size(crop_member) -> None:
    cells = np.zeros((640, 640), np.int32)
    cells[100:300, 100:300], cells[401:404, 401:404] = 1, 2
    assert resized(cells, (64, 64)).max() == 1
    (said,) = Ensemble([crop_member], "none", 32)([field_of(cells)], [cells])
    assert np.isfinite(said.cell_logits).all() and (np.abs(said.cell_logits) < 100).all()


def test_a_number_without_pixels_is_scored_nothing(crop_member, one) -> None:
    field, cells = one
    cells = np.where(cells == 3, 0, cells)
    (said,) = Ensemble([crop_member], "none", 32)([field], [cells])
    evidence = FieldEvidence(
        said.image_scores, said.class_maps, said.logit_maps, cells, cells, field[1], int(cells.max()),
        cell_logits=said.cell_logits, cell_weight=1.0,
    )  # fmt: skip
    rows = scoring_function("mean_logit")(evidence)
    assert rows[2].max() < 1e-100 and (rows[[0, 1, 3]].max(axis=1) > 0).all()


def test_the_cost_is_that_of_cells_and_known_better_once_fields_were_seen(crop_member, one) -> None:
    field, cells = one
    ensemble = Ensemble([crop_member], "flips", 64)
    assert ensemble.cost(QualityLevel(0, 1, 64)) == 20 * 32**2 * 3
    assert ensemble.cost(QualityLevel(2, 1, 64)) == 20 * 32**2
    ensemble([field] * 2, [cells, np.where(cells > 6, 0, cells)])
    assert ensemble.cost(QualityLevel(0, 1, 64)) == 9 * 32**2 * 3


def test_other_costs_leave_what_was_measured(clock) -> None:
    deadline = Deadline(Budget(100, now=clock), 10, [4.0, 2.0, 1.0])
    deadline._members.add(0, 8.0)
    deadline.reprice([40.0, 10.0, 1.0])
    assert [deadline._members.takes(level) for level in range(3)] == pytest.approx([8.0, 2.0, 0.2])


def test_flips_and_members_can_be_given_up(crop_member, make_crop_member, member) -> None:
    parts = [
        MemberSettings(checkpoint=crop_member, weight=2),
        MemberSettings(checkpoint=make_crop_member(seed=1)),
    ]
    assert Ensemble(parts, map_size=64).levels(("views", "members"))[1:] == [
        QualityLevel(2, 2, 64), QualityLevel(2, 1, 64)
    ]  # fmt: skip
    beside = [*parts, MemberSettings(checkpoint=member, weight=0.1)]
    # A rule of class maps cannot do without the one member that gives them.
    for maps, first in ((True, 1), (False, 2)):
        leaving = Ensemble(beside, map_size=64, class_maps=maps)._leaving()
        assert leaving[0] == first and len(leaving) == 2


@pytest.fixture
def data(competition, cells):
    for number, id in enumerate(("a", "b", "c")):
        competition.add(id, cells(60, 80, 20), seed=number)
    competition.write_sample()
    return competition


def settings_of(kind, data, runs, out, **changes):
    return kind(
        data=data.root,
        members=tuple(runs),
        masks=data.masks,
        out=out,
        map_size=32,
        device="cpu",
        batch=2,
        **changes,
    )


def test_commands_take_it_alone_and_beside_others(data, crop_member, member, tmp_path) -> None:
    for name, runs in {"alone": [crop_member], "mixed": [member, crop_member]}.items():
        table = read_submission(infer(settings_of(InferSettings, data, runs, tmp_path / f"{name}.csv")))
        assert len(table) == 3 and table["PredictionString"].str.len().min() > 0
        cells = pd.read_csv(predict(settings_of(PredictSettings, data, runs, tmp_path / f"{name}_cells.csv")))
        assert len(cells) == 3 * 12


def test_a_rule_of_class_maps_is_refused_without_any_and_beside_others_it_is_said(
    data, crop_member, member, tmp_path, caplog
) -> None:
    out = tmp_path / "s.csv"
    with pytest.raises(InputError, match="rule cam_share looks at class maps, which networks of crops"):
        infer(settings_of(InferSettings, data, [crop_member], out, rule="cam_share"))
    with caplog.at_level(logging.WARNING):
        infer(settings_of(InferSettings, data, [crop_member, member], out, rule="quantile"))
    assert caplog.text.count("image scores count only") == 1
    assert read_submission(out)["PredictionString"].str.len().min() > 0


def test_a_rule_of_ones_own_that_looks_at_logit_maps_is_said_to_leave_crops_out(
    data, crop_member, member, tmp_path, caplog
) -> None:
    add_rule("highest", lambda seen: np.full((seen.n_cells, 19), 0.5), logit_maps=True)
    try:
        infer(settings_of(InferSettings, data, [crop_member, member], tmp_path / "s.csv", rule="highest"))
        assert caplog.text.count("rule highest looks at logit maps") == 1
        infer(settings_of(InferSettings, data, [member], tmp_path / "t.csv", rule="highest"))
        assert caplog.text.count("rule highest looks at logit maps") == 1
    finally:
        RULE_NAMES.remove("highest")
        del SCORING_FUNCTIONS["highest"]


@pytest.fixture
def labelled(data):
    data.test.rename(data.root / "train")
    pd.DataFrame({"ID": ["a", "b", "c"], "Label": ["0|1", "2", "1|0"]}).to_csv(
        data.root / "train.csv", index=False
    )
    return data


def test_soft_labels_are_made_and_hard_ones_refused(labelled, crop_member, tmp_path) -> None:
    made = settings_of(
        PseudoLabelSettings, labelled, [crop_member], tmp_path / "soft", labels="soft", seen="take"
    )
    scores = pd.read_csv(make_pseudo_labels(made) / "cell_scores.csv")
    assert len(scores) == 36 and (scores[scores.ID == "b"].iloc[:, 2:].to_numpy()[:, [0, 1]] == 0).all()
    with pytest.raises(InputError, match="labels hard are made of class maps"):
        make_pseudo_labels(settings_of(PseudoLabelSettings, labelled, [crop_member], tmp_path / "hard"))
    assert not (tmp_path / "hard").exists()


def test_hard_labels_are_those_of_the_members_with_maps_whoever_has_not_seen_a_field(
    labelled, make_crop_member, make_member, tmp_path, caplog
) -> None:
    """Field a has been seen by all but the network of crops, which has nothing to say of it."""
    crops, cam = make_crop_member(seed=3), make_member(seed=3)
    for run, held_out in ((crops, "a"), (cam, "b")):
        rows = [f"{id},0,{int(id != held_out)}" for id in "abc"]
        (run / "folds.csv").write_text("\n".join(["ID,Label,fold", *rows]) + "\n")
    found = {}
    for name, runs in {"alone": [cam], "mixed": [crops, cam]}.items():
        made = settings_of(PseudoLabelSettings, labelled, runs, tmp_path / name)
        found[name] = (make_pseudo_labels(made) / "cell_scores.csv").read_text()
    assert found["mixed"] == found["alone"]
    assert caplog.text.count("1 networks of crops, which give none, are not asked") == 1


def test_features_refuse_it_in_one_line(data, crop_member, tmp_path, capsys) -> None:
    assert (
        main(["features", str(data.root), "--member", str(crop_member), "--out", str(tmp_path / "f.npz")])
        == 2
    )
    assert (
        "is a network crops, which looks at single cells; expected cam or arcface" in capsys.readouterr().err
    )


def test_a_dataset_of_weights_takes_it(crop_member, member, tmp_path) -> None:
    from hpa_kit.kaggle.publish.weights import weights_dataset

    weights_dataset([crop_member, member], tmp_path / "set", "somebody")
    ensemble = read_ensemble(tmp_path / "set" / "ensemble.yaml")
    assert len(Ensemble(ensemble.members, map_size=32).members) == 2
    assert "crops of 32 px of 64 px" in (tmp_path / "set" / "README.md").read_text()
