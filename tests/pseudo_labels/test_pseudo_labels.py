"""Pseudo labels: cell scores of training fields, by members that have not learnt from them."""

import logging
from collections import Counter

import cv2
import numpy as np
import pandas as pd
import pytest
from written_fields import write_field

from hpa_kit.cells import (
    ClassicalSegmenter,
    LabelMaps,
    MaskFolder,
    read_label_maps,
    resized,
    write_label_maps,
)
from hpa_kit.classes import multi_hot, parse_label
from hpa_kit.config import MemberSettings, PseudoLabelSettings
from hpa_kit.config.ensemble import EnsembleSettings, write_ensemble
from hpa_kit.config.scoring import CalibrateStep
from hpa_kit.data import read_cell_scores, read_field, read_pseudo_labels
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble
from hpa_kit.pseudo_labels import make_pseudo_labels
from hpa_kit.scoring import score_cells, score_cells_mean_logit, settle_negative

# 18 alone, 18 beside others, and one field of an ID that looks like a number.
LABELS = {"a": "0|7", "b": "18", "c": "5|18", "1e5": "16", "d": "2|3", "e": "14"}
SIDE = 48
CALIBRATED = f"{{step: calibrate, slope: {[1.0] * 19}, image: {[0.0] * 19}, intercept: {[0.0] * 19}}}"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(tmp_path, cells):
    """Six training fields of 80 x 96 with their label maps; field e has no cell."""
    root = tmp_path / "data"
    (root / "train").mkdir(parents=True)
    (root / "train.csv").write_text("\n".join(["ID,Label", *map(",".join, LABELS.items())]) + "\n")
    for seed, id in enumerate(LABELS):
        found = cells(80, 96, 32) if id != "e" else np.zeros((80, 96), np.int32)
        write_field(root / "train", id, found, seed)
        write_label_maps(root / "maps" / f"{id}.npz", LabelMaps(found, found))
    return root


@pytest.fixture
def make(data, tmp_path, member):
    """Makes pseudo labels of the six fields, and gives the scores of each."""

    def run(**changes):
        settings = {
            "data": data, "out": tmp_path / "pseudo", "members": (member,), "masks": data / "maps",
            "map_size": SIDE, "batch": 2, "device": "cpu", "views": "none",
        }  # fmt: skip
        out = make_pseudo_labels(PseudoLabelSettings(**{**settings, **changes}))
        return read_pseudo_labels(out).scores if (out / "cell_scores.csv").is_file() else None

    return run


def with_folds(run, held_out, learnt):
    """The run folder of a member, with the folds that say what it has learnt from; its own fold is 0."""
    rows = [f"{id},0,0" for id in held_out] + [f"{id},0,{1 - 2 * (id == 'd')}" for id in learnt]
    (run / "folds.csv").write_text("\n".join(["ID,Label,fold", *rows]) + "\n")
    return run


def evidence(data, id, members):
    """Maps, label maps and label of a field, worked out without the command."""
    field = read_field(data / "train", id)
    maps = Ensemble(members, "none", SIDE)([field])[0]
    kept = read_label_maps(data / "maps", id, field)
    nuclei, cells = (resized(one, (SIDE, SIDE)) for one in kept)
    green = cv2.resize(field[1].astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return maps, cells, nuclei, green, multi_hot([parse_label(LABELS[id])])[0], int(kept.cells.max())


def fifteenth(data, id, members):
    maps, cells, nuclei, green, label, n = evidence(data, id, members)
    return settle_negative(
        score_cells(maps.class_maps, cells, nuclei, label, green, n, form="max_share"), label
    )


def test_hard_labels_are_label_x_maximum_x_share_after_the_negative_check(make, data, member):
    scores = make()
    for id in LABELS:
        np.testing.assert_allclose(scores[id], fifteenth(data, id, [member]), rtol=1e-4, atol=1e-6)
    assert scores["b"].any(axis=1).all()
    assert (scores["b"][:, 18] == 0.75).all()
    assert any(scores[id][:, :18].any() for id in LABELS)


def test_only_classes_that_the_image_has_are_given_besides_negative(make, tmp_path):
    for labels, besides in (("hard", {18}), ("soft", set())):
        for id, rows in make(labels=labels, out=tmp_path / labels, seen="take").items():
            assert set(np.flatnonzero(rows.any(axis=0)).tolist()) <= {*parse_label(LABELS[id])} | besides


def test_a_field_without_cells_is_done_and_has_no_rows(make, tmp_path):
    assert make()["e"].shape == (0, 19)
    assert "e" not in set(read_cell_scores(tmp_path / "pseudo" / "cell_scores.csv")["ID"])


def test_soft_labels_are_probabilities_of_the_classes_that_the_image_has(make, data, member):
    scores = make(labels="soft", seen="take")
    for id in LABELS:
        maps, cells, _, _, label, n = evidence(data, id, [member])
        np.testing.assert_allclose(
            scores[id], score_cells_mean_logit(maps.logit_maps, cells, label, n), rtol=1e-4
        )


def test_soft_labels_are_calibrated_where_the_ensemble_says_how(make, data, member, tmp_path):
    step = CalibrateStep(slope=(0.0,) * 19, image=(0.0,) * 19, intercept=(1.0,) * 19)
    members = (MemberSettings(checkpoint=member, views="none"),)
    path = tmp_path / "ensemble.yaml"
    write_ensemble(EnsembleSettings(members=members, map_size=SIDE, rule="best", steps=(step,)), path)
    scores = make(labels="soft", seen="take", members=(), ensemble=path, views=None)
    assert scores["1e5"][:, 16] == pytest.approx(1 / (1 + np.exp(-1)), rel=1e-4)
    assert scores["1e5"].sum() == pytest.approx(scores["1e5"][:, 16].sum())


def test_each_field_is_scored_by_the_members_that_have_not_learnt_from_it(make, data, make_member, caplog):
    first = with_folds(make_member(seed=1), held_out=["a", "b"], learnt=["c", "1e5", "d", "e"])
    second = with_folds(make_member(seed=2), held_out=["c", "b"], learnt=["a", "1e5", "d", "e"])
    with caplog.at_level(logging.INFO):
        scores = make(members=(first, second))
    assert sum("segmenter: classical" in line for line in caplog.messages) == 1
    assert "3 of 6 fields by members that have not learnt from them, 3 that every member has" in caplog.text
    # One line for all groups of fields that the same members look at.
    assert [line.partition(";")[0].split(", ")[0][-12:] for line in caplog.messages if "expect" in line] == [
        "for 6 fields"
    ]
    for id, members in {"a": [first], "c": [second], "b": [first, second], "d": [first, second]}.items():
        np.testing.assert_allclose(scores[id], fifteenth(data, id, members), rtol=1e-4, atol=1e-6)


def test_a_field_that_is_in_no_folds_has_been_learnt_from_by_nobody(make, data, make_member, tmp_path):
    first = with_folds(make_member(seed=1), held_out=["a"], learnt=["b", "c", "d", "e"])
    second = make_member(seed=2)
    scores = make(members=(first, second))
    np.testing.assert_allclose(scores["1e5"], fifteenth(data, "1e5", [first]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores["b"], fifteenth(data, "b", [first, second]), rtol=1e-4, atol=1e-6)
    listed = dict(line.split(",", 1) for line in (tmp_path / "pseudo/fields.csv").read_text().split())
    assert listed["1e5"] == "16,9,1,1"
    assert listed["b"] == "18,9,2,0"


def test_all_members_look_at_all_fields_where_that_is_asked_for(make, data, make_member):
    first = with_folds(make_member(seed=1), held_out=["a"], learnt=["b", "c", "1e5", "d", "e"])
    second = make_member(seed=2)
    scores = make(members=(first, second), out_of_fold=False)
    np.testing.assert_allclose(scores["a"], fifteenth(data, "a", [first, second]), rtol=1e-4, atol=1e-6)


def test_members_that_give_image_scores_only_do_not_count(make, data, make_member, tmp_path):
    first, second = make_member(seed=1), make_member(seed=2)
    members = (
        MemberSettings(checkpoint=first, mode="cam", views="none"),
        MemberSettings(checkpoint=second, mode="pred"),
    )
    write_ensemble(EnsembleSettings(members=members, map_size=SIDE), tmp_path / "ensemble.yaml")
    scores = make(members=(), ensemble=tmp_path / "ensemble.yaml", views=None)
    np.testing.assert_allclose(scores["a"], fifteenth(data, "a", [first]), rtol=1e-4, atol=1e-6)


def test_members_that_give_maps_only_are_enough_where_the_labels_are_known(make, data, make_member, tmp_path):
    run = make_member(seed=1)
    text = f"{{members: [{{checkpoint: {run}, mode: cam, views: none}}], map_size: {SIDE}}}"
    (tmp_path / "ensemble.yaml").write_text(text)
    scores = make(members=(), ensemble=tmp_path / "ensemble.yaml", views=None)
    np.testing.assert_allclose(scores["a"], fifteenth(data, "a", [run]), rtol=1e-4, atol=1e-6)
    (tmp_path / "ensemble.yaml").write_text(text.replace("cam", "pred"))
    with pytest.raises(InputError, match="no member gives maps"):
        make(members=(), ensemble=tmp_path / "ensemble.yaml", views=None, out=tmp_path / "other")


def test_shards_make_the_table_that_one_process_makes(make, tmp_path):
    whole = tmp_path / "whole"
    make(out=whole)
    assert make(shard=1, shards=2) is None
    make(shard=0, shards=2)
    for name in ("cell_scores.csv", "fields.csv"):
        # Fields of a shard are in batches with others, and processors round the sixth digit otherwise.
        found, expected = (pd.read_csv(folder / name) for folder in (tmp_path / "pseudo", whole))
        pd.testing.assert_frame_equal(found, expected, rtol=0, atol=2e-6)
    assert not (tmp_path / "pseudo" / "parts").exists()


@pytest.fixture
def looks(monkeypatch):
    """Counts the fields that members look at; raises after ``stop`` of them."""
    seen = Counter()
    together = Ensemble.predict

    def look(self, inputs):
        if seen["stop"] and seen["fields"] >= seen["stop"]:
            raise KeyboardInterrupt
        seen["fields"] += len(inputs)
        return together(self, inputs)

    monkeypatch.setattr(Ensemble, "predict", look)
    return seen


def test_a_run_that_was_killed_goes_on_where_it_was(make, tmp_path, looks):
    whole = tmp_path / "whole"
    make(out=whole)
    looks.update(stop=4, fields=-looks["fields"])
    with pytest.raises(KeyboardInterrupt):
        make()
    assert not (tmp_path / "pseudo" / "cell_scores.csv").exists()
    looks.clear()
    make()
    assert 0 < looks["fields"] < len(LABELS)
    for name in ("cell_scores.csv", "fields.csv"):
        assert (tmp_path / "pseudo" / name).read_bytes() == (whole / name).read_bytes()


def test_a_finished_run_returns_at_once_and_a_changed_label_makes_it_anew(make, data, looks):
    first = make()
    looks.clear()
    assert all(np.array_equal(make()[id], first[id]) for id in LABELS)
    assert looks["fields"] == 0
    (data / "train.csv").write_text((data / "train.csv").read_text().replace("a,0|7", "a,18"))
    assert (make()["a"][:, 18] == 0.75).all()


@pytest.mark.parametrize("change", ["image", "label map", "folds"])
def test_a_finished_run_is_made_anew_where_what_it_depends_on_has_changed(
    make, data, make_member, tmp_path, looks, caplog, cells, change
):
    run = with_folds(make_member(seed=1, spread=3), "abc", "1e5d")
    before = make(members=(run,))
    looks.clear()
    make(members=(run,))
    assert looks["fields"] == 0
    if change == "image":
        write_field(data / "train", "a", cells(80, 96, 32), seed=77)
    elif change == "label map":
        found = cells(80, 96, 20)
        write_label_maps(data / "maps" / "a.npz", LabelMaps(found, found))
    else:
        with_folds(run, "bc", "a1e5d")
    after = make(members=(run,))
    assert "made from other images, label maps or folds" in caplog.text
    assert looks["fields"] > 0
    same = before["a"].shape == after["a"].shape and np.allclose(before["a"], after["a"])
    assert same == (change == "folds")  # the only member looks at it all the same
    unseen = pd.read_csv(tmp_path / "pseudo" / "fields.csv").set_index("ID")["unseen"]
    assert unseen["a"] == (change != "folds")
    looks.clear()
    make(members=(run,))
    assert looks["fields"] == 0


def test_a_finished_run_of_an_older_version_which_does_not_say_what_it_is_of_stays(make, tmp_path, looks):
    make()
    (tmp_path / "pseudo" / "made_from.txt").unlink()
    looks.clear()
    make()
    assert looks["fields"] == 0


def test_label_maps_found_by_an_earlier_start_go_where_masks_has_them_now(make, data, tmp_path):
    whole = (data / "maps" / "a.npz").read_bytes()
    (data / "maps" / "a.npz").unlink()
    make()
    assert (tmp_path / "pseudo" / "masks" / "a.npz").is_file()
    (data / "maps" / "a.npz").write_bytes(whole)
    scores = make()
    assert not (tmp_path / "pseudo" / "masks" / "a.npz").exists()
    assert len(scores["a"]) == np.load(data / "maps" / "a.npz")["cells"].max()


def test_label_maps_that_were_found_are_packed_by_all_shards_and_say_the_same(
    make, tmp_path, looks, monkeypatch
):
    monkeypatch.setattr("hpa_kit.cells.packing.PER_ARCHIVE", 2)
    loose = make(masks=None, out=tmp_path / "loose")
    for shard in range(3):
        make(masks=None, shard=shard, shards=3, pack=True)
    own = tmp_path / "pseudo" / "masks"
    assert [path.suffix for path in own.iterdir()] == [".zip"] * 3
    looks.clear()
    packed = make(masks=None)
    assert looks["fields"] == 0
    assert all(np.array_equal(packed[id], loose[id]) for id in LABELS)
    for id in LABELS:
        cells = [MaskFolder(folder).read_cells(id) for folder in (own, tmp_path / "loose" / "masks")]
        assert np.array_equal(*cells) and len(packed[id]) == cells[0].max()


def test_packed_label_maps_of_an_earlier_start_go_where_masks_has_them_now(make, data, tmp_path):
    whole = {id: (data / "maps" / f"{id}.npz").read_bytes() for id in "ab"}
    for id in whole:
        (data / "maps" / f"{id}.npz").unlink()
    make(pack=True)
    own = tmp_path / "pseudo" / "masks"
    assert [path.suffix for path in own.iterdir()] == [".zip"]
    (data / "maps" / "a.npz").write_bytes(whole["a"])
    scores = make()
    assert [MaskFolder(own).has(id) for id in "ab"] == [False, True]
    assert len(scores["a"]) == MaskFolder(data / "maps").read_cells("a").max()


def test_label_maps_that_are_lacking_are_found_and_kept_with_the_pseudo_labels(make, data, tmp_path):
    scores = make(masks=None)
    for id in LABELS:
        field = read_field(data / "train", id)
        kept = read_label_maps(tmp_path / "pseudo" / "masks", id, field)
        assert np.array_equal(kept.cells, ClassicalSegmenter()(field)[1])
        assert len(scores[id]) == kept.cells.max()
    (data / "maps" / "a.npz").write_bytes(b"")
    make(out=tmp_path / "other")
    assert [path.name for path in (tmp_path / "other" / "masks").iterdir()] == ["a.npz"]
    assert read_pseudo_labels(tmp_path / "other").masks == (tmp_path / "other" / "masks", data / "maps")


def test_a_field_that_cannot_be_read_is_said_and_tried_again(make, data, tmp_path, caplog):
    green = data / "train" / "c_green.png"
    good = green.read_bytes()
    green.write_bytes(good[:100])
    scores = make()
    assert sorted(scores) == sorted(set(LABELS) - {"c"})
    assert "ID c has no pseudo labels" in caplog.text
    green.write_bytes(good)
    assert sorted(make()) == sorted(LABELS)
    assert not (tmp_path / "pseudo" / "parts").exists()


def test_a_run_of_other_settings_or_members_is_not_mixed_in(make, member, make_member):
    make()
    with pytest.raises(InputError, match=r"labels hard \(now soft\)"):
        make(labels="soft", seen="take")
    changed = (member / "best.safetensors").read_bytes()
    try:
        (member / "best.safetensors").write_bytes((make_member(seed=9) / "best.safetensors").read_bytes())
        with pytest.raises(InputError, match="other members of these names"):
            make()
    finally:
        (member / "best.safetensors").write_bytes(changed)


YAML = (
    "{{members: [{{checkpoint: {run}, views: {views}}}], map_size: {map_size}, rule: {rule}, "
    "steps: [{step}]}}"
)


@pytest.mark.parametrize(
    ("change", "labels", "told"),
    [
        ({"map_size": 32}, "hard", r"started with map_size 48 \(now 32\); give these again"),
        ({"views": "flips"}, "hard", r"started with views none \(now flips\) of member 1; give"),
        (
            {"views": "flips", "map_size": 32},
            "hard",
            r"map_size 48 \(now 32\), views none .* of member 1",
        ),
        ({"step": "small"}, "soft", None),
        ({"step": CALIBRATED}, "soft", "started with another step calibrate; give"),
        ({"rule": "quantile", "step": "fill"}, "hard", None),
    ],
)
@pytest.mark.parametrize("shards", [1, 2])
def test_a_run_whose_ensemble_says_something_else_now_is_refused_where_that_counts(
    make, member, tmp_path, looks, change, labels, told, shards
):
    says = {"run": member, "views": "none", "map_size": SIDE, "rule": "best", "step": "negative"}
    path = tmp_path / "e.yaml"
    given = {
        "members": (),
        "ensemble": path,
        "views": None,
        "map_size": None,
        "labels": labels,
        "seen": "take",
    }
    path.write_text(YAML.format(**says))
    make(**given, shards=shards)
    looks.clear()
    path.write_text(YAML.format(**says | change))
    if told is None:
        make(**given, shards=shards)
    else:
        with pytest.raises(InputError, match=told):
            make(**given, shards=shards, shard=shards - 1)
    assert not looks["fields"]


def test_what_a_yaml_says_may_be_given_beside_it(make, member, tmp_path, looks):
    path = tmp_path / "e.yaml"
    path.write_text(f"{{members: [{member}], map_size: {SIDE}}}")
    given = {"members": (), "ensemble": path}
    make(**given, map_size=None)
    looks.clear()
    make(**given, map_size=SIDE)
    assert not looks["fields"]
    with pytest.raises(InputError, match=r"started with map_size 48 \(now 32\)"):
        make(**given, map_size=32)


def test_shards_of_images_that_have_changed_since_are_said(make, data, cells, caplog):
    make(shard=0, shards=2)
    write_field(data / "train", "a", cells(80, 96, 32), seed=77)
    make(shard=1, shards=2)
    assert "of these [0] were done, but of other images" in caplog.text
    assert make(shard=0, shards=2) is not None


def test_masks_that_no_run_of_pseudo_labels_wrote_stay_and_are_refused(make, tmp_path):
    kept = tmp_path / "pseudo" / "masks" / "a.npz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"somebody's")
    with pytest.raises(InputError, match="masks holds files that no run of pseudo-labels wrote"):
        make()
    assert kept.read_bytes() == b"somebody's"


def test_external_fields_are_labelled_too(make, data, tmp_path, cells):
    extra = tmp_path / "extra"
    extra.mkdir()
    write_field(extra, "x1", cells(80, 96, 32), 9)
    (tmp_path / "external.csv").write_text(
        "ID,Label_idx,Cellline,isin_dataset,is_non_rare,file_ext,dir\nx1,3,U-2 OS,True,Rare,png,extra\n"
    )
    write_label_maps(data / "maps" / "x1.npz", LabelMaps(cells(80, 96, 32), cells(80, 96, 32)))
    scores = make(external=tmp_path / "external.csv", external_images=extra)
    assert len(scores) == len(LABELS) + 1
    assert scores["x1"].shape == (9, 19)


def test_a_segmentation_member_gives_pseudo_labels_too(make, data, make_segmenter):
    run = make_segmenter()
    scores = make(members=(run,))
    np.testing.assert_allclose(scores["a"], fifteenth(data, "a", [run]), rtol=1e-4, atol=1e-6)


def test_it_says_how_fast_it_went_and_where_the_time_goes(make, data, caplog):
    (data / "maps" / "a.npz").unlink()  # so that there are cells to find
    with caplog.at_level(logging.INFO):
        make()
    line = next(message for message in caplog.messages if "per second" in message)
    expected = [message for message in caplog.messages if message.startswith("pseudo-labels: expect ")]
    assert len(expected) == 1
    assert "for 6 fields" in expected[0]
    assert all(part in line for part in ("6 fields", "reading", "cells", "members", "scoring"))
