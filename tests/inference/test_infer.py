"""Fields in, submission out."""

import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from hpa_kit.config import InferSettings
from hpa_kit.errors import InputError
from hpa_kit.inference import Ensemble, infer, infer_submission
from hpa_kit.scoring import SCORING_FUNCTIONS, FieldEvidence, score_field, scores_to_prediction
from hpa_kit.scoring.functions import CLASS_COLUMNS
from hpa_kit.submission import check_submission, decode_mask, read_submission
from hpa_kit.submission.table import parse_prediction


def run(competition, member: Path, **changes) -> dict[str, str]:
    """Infer, and give each row's prediction string."""
    values = {
        "data": competition.root,
        "members": (member,),
        "out": competition.root / "out" / "submission.csv",
        "masks": competition.masks,
        "views": "none",
        "map_size": 64,
        "batch": 2,
        "device": "cpu",
    } | changes
    table = read_submission(infer(InferSettings(**values)))
    return dict(zip(table["ID"], table["PredictionString"], strict=True))


def finds_nothing(text: str, height: int, width: int) -> bool:
    return not any(decode_mask(mask, height, width).any() for mask in text.split()[2::3])


@pytest.mark.parametrize("rule", list(SCORING_FUNCTIONS))
def test_every_rule_gives_a_submission_that_kaggle_takes(competition, member, cells, rule) -> None:
    for k, id in enumerate(["b", "a", "1e5"]):
        competition.add(id, cells(96, 96, 24), seed=k)
    competition.write_sample()
    found = run(competition, member, rule=rule)
    assert list(found) == ["b", "a", "1e5"]
    sample = competition.root / "sample_submission.csv"
    assert check_submission(competition.root / "out" / "submission.csv", sample) == []
    assert all(len(set(text.split()[2::3])) == 16 for text in found.values())


def test_masks_are_the_cells_of_full_size(competition, member, cells) -> None:
    labels = cells(200, 200, 50)
    competition.add("a", labels)
    text = run(competition, member, rule="copied")["a"]
    masks = [decode_mask(mask, 200, 200) for mask in dict.fromkeys(parse_prediction(text).masks)]
    assert len(masks) == 16
    for cell, mask in enumerate(masks, start=1):
        np.testing.assert_array_equal(mask, labels == cell)


def test_copied_scores_are_the_same_in_every_cell(competition, member, cells) -> None:
    competition.add("a", cells(96, 96, 24))
    detections = parse_prediction(run(competition, member, rule="copied")["a"])
    by_class: dict[int, set[float]] = {}
    for index, confidence in zip(detections.classes, detections.confidences, strict=True):
        by_class.setdefault(index, set()).add(confidence)
    assert sorted(by_class) == list(range(19))
    assert {len(values) for values in by_class.values()} == {1}


@pytest.mark.parametrize("shape", [(60, 140), (140, 60), (33, 47)])
def test_fields_that_are_not_square_keep_their_shape(competition, member, cells, shape) -> None:
    labels = cells(*shape, 30)
    competition.add("a", labels)
    competition.write_sample()
    text = run(competition, member, rule="mean_logit")["a"]
    joined = np.zeros(shape, bool)
    for mask in set(text.split()[2::3]):
        joined |= decode_mask(mask, *shape)
    np.testing.assert_array_equal(joined, labels > 0)


def test_more_cells_than_a_byte_counts_all_get_masks(competition, member, cells) -> None:
    competition.add("a", cells(200, 200, 10))
    detections = parse_prediction(run(competition, member, rule="copied", map_size=256)["a"])
    assert len(set(detections.masks)) == 400


def test_a_field_without_cells_keeps_its_row(competition, member, cells) -> None:
    competition.add("empty", np.zeros((80, 80), np.int32))
    competition.add("full", cells(80, 80, 20))
    competition.write_sample()
    found = run(competition, member)
    assert finds_nothing(found["empty"], 80, 80)
    assert not finds_nothing(found["full"], 80, 80)


def test_a_black_field_without_label_maps_keeps_its_row(competition, member) -> None:
    competition.add("black", np.zeros((80, 80), np.int32))
    for path in competition.test.iterdir():
        cv2.imwrite(str(path), np.zeros((80, 80), np.uint8))
    assert finds_nothing(run(competition, member, masks=None)["black"], 80, 80)


def test_fields_that_cannot_be_read_fall_back_and_are_counted(competition, member, cells, caplog) -> None:
    for id in ("cut", "good", "lacking", "nothing"):
        competition.add(id, cells(80, 80, 20))
    (competition.test / "cut_red.png").write_bytes((competition.test / "cut_red.png").read_bytes()[:200])
    (competition.test / "lacking_yellow.png").unlink()
    (competition.test / "nothing_blue.png").write_bytes(b"")
    competition.write_sample(["cut", "good", "lacking", "nothing", "absent"])
    with caplog.at_level(logging.WARNING):
        found = run(competition, member)
    assert [id for id, text in found.items() if not finds_nothing(text, 80, 80)] == ["good"]
    assert "4 of 5 fields could not be used" in caplog.text
    assert "lacking_yellow.png" in caplog.text
    assert (
        check_submission(
            competition.root / "out" / "submission.csv", competition.root / "sample_submission.csv"
        )
        == []
    )


def test_fields_without_yellow_are_for_members_that_read_three_channels(
    competition, member, make_member, cells
) -> None:
    competition.add("a", cells(96, 96, 24))
    whole = run(competition, make_member(in_channels=3))
    (competition.test / "a_yellow.png").unlink()
    shutil.rmtree(competition.root / "out")
    assert run(competition, make_member(in_channels=3)) == whole
    assert not finds_nothing(whole["a"], 96, 96)
    with pytest.raises(InputError, match="a_yellow.png is missing"):
        run(competition, member, members=(make_member(in_channels=3), member))


def test_no_usable_field_at_all_is_an_error_and_leaves_a_valid_submission(competition, member) -> None:
    competition.write_sample(["x", "y"])
    (competition.test / "x_red.png").write_bytes(b"")
    with pytest.raises(InputError, match="no field of .* could be used"):
        run(competition, member)
    sample = competition.root / "sample_submission.csv"
    assert check_submission(competition.root / "out" / "submission.csv", sample) == []


def test_an_unexpected_fault_in_one_field_costs_only_that_field(
    competition, member, cells, monkeypatch, caplog
) -> None:
    competition.add("a", cells(80, 80, 20))
    competition.add("b", cells(80, 80, 20))
    score = infer_submission.score_field

    def brittle(id, seen, rule):
        if id == "a":
            raise ZeroDivisionError("by hand")
        return score(id, seen, rule)

    monkeypatch.setattr(infer_submission, "score_field", brittle)
    found = run(competition, member)
    assert finds_nothing(found["a"], 80, 80)
    assert not finds_nothing(found["b"], 80, 80)
    assert "ZeroDivisionError: by hand" in caplog.text


def test_a_valid_submission_stands_before_the_members_are_loaded(competition, cells, tmp_path) -> None:
    competition.add("a", cells(80, 80, 20))
    competition.write_sample()
    with pytest.raises(InputError, match="gone"):
        run(competition, tmp_path / "gone")
    sample = competition.root / "sample_submission.csv"
    assert check_submission(competition.root / "out" / "submission.csv", sample) == []


def test_an_interrupted_run_keeps_what_it_has(competition, member, cells, monkeypatch) -> None:
    for k in range(6):
        competition.add(f"f{k}", cells(80, 80, 20))
    look = Ensemble.predict
    calls = []

    def interrupted(self, inputs):
        calls.append(len(inputs))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return look(self, inputs)

    monkeypatch.setattr(Ensemble, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(competition, member)
    table = read_submission(competition.root / "out" / "submission.csv")
    assert len(table) == 6
    done = [not finds_nothing(text, 80, 80) for text in table["PredictionString"]]
    assert done[:2] == [True, True]
    assert not any(done[4:])


def test_label_maps_that_are_missing_or_broken_are_made(competition, member, cells, caplog) -> None:
    for id in ("kept", "missing", "broken"):
        competition.add(id, cells(128, 128, 64))
    (competition.masks / "missing.npz").unlink()
    (competition.masks / "broken.npz").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        run(competition, member)
    assert "lacks usable label maps of 2 of 3 fields" in caplog.text
    assert "broken.npz" in caplog.text


def test_a_masks_folder_that_is_missing_is_an_error(competition, member, cells, tmp_path) -> None:
    competition.add("a", cells(80, 80, 20))
    with pytest.raises(InputError, match="is no folder"):
        run(competition, member, masks=tmp_path / "gone")


def test_masks_have_the_size_that_the_sample_demands(competition, member, cells, caplog) -> None:
    competition.add("a", cells(80, 80, 20))
    competition.sizes["a"] = (160, 120)
    competition.write_sample()
    with caplog.at_level(logging.WARNING):
        text = run(competition, member, rule="copied")["a"]
    assert decode_mask(text.split()[2], 160, 120).any()
    assert "1 fields differ in size" in caplog.text


def test_rows_and_images_that_do_not_match_are_said(competition, member, cells, caplog) -> None:
    for id in ("a", "extra"):
        competition.add(id, cells(80, 80, 20))
    competition.write_sample(["absent", "a"])
    with caplog.at_level(logging.WARNING):
        found = run(competition, member)
    assert list(found) == ["absent", "a"]
    assert "1 rows have no image" in caplog.text
    assert "1 images have no row" in caplog.text


def test_without_a_sample_the_rows_are_the_fields_found(competition, member, cells) -> None:
    for id in ("b", "a"):
        competition.add(id, cells(80, 80, 20))
    assert list(run(competition, member)) == ["a", "b"]
    assert list(run(competition, member, data=competition.test)) == ["a", "b"]


def test_training_fields_can_be_inferred(competition, member, cells) -> None:
    competition.add("a", cells(80, 80, 20))
    competition.write_sample(["other"])
    competition.test.rename(competition.root / "train")
    (competition.root / "train.csv").write_text("ID,Label\na,0|3\n")
    found = run(competition, member, split="train")
    assert list(found) == ["a"]
    assert not finds_nothing(found["a"], 80, 80)


def test_batches_and_threads_do_not_change_the_submission(competition, member, cells) -> None:
    for k in range(5):
        competition.add(f"f{k}", cells(80, 80, 20), seed=k)
    first = run(competition, member, batch=1, workers=0, rule="copied")
    second = run(competition, member, batch=4, workers=3, rule="copied")
    assert list(first) == list(second)
    for id, text in first.items():
        left, right = parse_prediction(text), parse_prediction(second[id])
        assert left.masks == right.masks
        np.testing.assert_allclose(left.confidences, right.confidences, atol=1e-5)


def test_cell_scores_are_a_table_with_a_row_per_cell(cells) -> None:
    labels = cells(40, 40, 20)
    maps = np.zeros((19, 40, 40), np.float32)
    seen = FieldEvidence(
        np.full(19, 0.5, np.float32), maps, maps, labels, labels, np.full((40, 40), 9, np.uint8), n_cells=4
    )
    table = score_field("00123", seen, SCORING_FUNCTIONS["mean_logit"])
    assert table.columns.tolist() == ["ID", "cell", *CLASS_COLUMNS]
    assert table["ID"].tolist() == ["00123"] * 4
    assert table["cell"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(table[list(CLASS_COLUMNS)], 0.25)
    text = scores_to_prediction(table, {cell: f"m{cell}" for cell in range(1, 5)})
    assert text.split()[:3] == ["0", "0.25", "m1"]
    assert len(text.split()) == 3 * 4 * 19
