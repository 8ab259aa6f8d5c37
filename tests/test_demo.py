"""The demo: the whole job on simulated fields, in small, and how far copying what is true of a field goes."""

import re

import numpy as np
import pytest

from hpa_kit.cli import main
from hpa_kit.demo import copy_truth
from hpa_kit.submission import encode_mask, evaluate, read_submission, write_submission


def test_the_demo_does_the_whole_job_and_tells_what_cell_scores_gain(tmp_path, capsys):
    out = tmp_path / "demo"
    small = "--train 10 --test 5 --size 64 --epochs 1 --stride 16 --stride-by cut"
    assert main(["demo", "--out", str(out), *small.split()]) == 0
    said = capsys.readouterr().out
    table = said[said.index("mAP of cells") :]
    rows = re.findall(r"(?m)^.*?([01]\.\d{3}) +[+-]\d\.\d{3} +([01]\.\d{3}) +[+-]\d\.\d{3}$", table)
    rules = ("copied", "cam_share", "mean_logit", "mean_logit_negative")
    for rule, row in zip(rules, rows, strict=True):
        for found, score in zip(("classical", "true"), row, strict=True):
            submission = out / f"submission_{found}_{rule}.csv"
            assert score == f"{evaluate(out / 'data' / 'truth.csv', submission).mean_ap or 0:.3f}"
    bounds = re.search(r"true image labels ([01]\.\d{3}), true shares of cells ([01]\.\d{3})", table)
    assert bounds is not None and float(bounds[1]) > 0 and float(bounds[2]) > 0
    assert (out / "picture.png").stat().st_size > 1000


def mask(column):
    plane = np.zeros((8, 16), dtype=bool)
    plane[2:6, column : column + 3] = True
    return encode_mask(plane)


A, B, C, D = (mask(column) for column in (0, 4, 8, 12))


@pytest.fixture
def truth(tmp_path):
    """One field with three of four cells in the Golgi, one with one of two, one Negative throughout."""
    path = tmp_path / "truth.csv"
    write_submission(
        path,
        [
            ("a", 16, 8, f"7 {A} 7 {B} 7 {C} 0 {C} 18 {D}"),
            ("b", 16, 8, f"7 {A} 18 {B}"),
            ("c", 16, 8, f"18 {A}"),
        ],
    )
    return path


def given(path):
    table = read_submission(path)
    rows = {}
    for id, text in zip(table["ID"], table["PredictionString"], strict=True):
        words = text.split()
        rows[id] = {
            (int(c), m): float(p) for c, p, m in zip(words[::3], words[1::3], words[2::3], strict=True)
        }
    return rows


def test_image_labels_go_to_every_cell_and_negative_only_where_there_is_nothing_else(truth, tmp_path):
    rows = given(copy_truth(truth, tmp_path / "labels.csv", shares=False))
    assert rows["a"] == {(c, m): 1 for c in (0, 7) for m in (A, B, C, D)}
    assert rows["c"] == {(18, A): 1}


def test_shares_are_what_part_of_a_fields_cells_shows_a_class(truth, tmp_path):
    rows = given(copy_truth(truth, tmp_path / "shares.csv", shares=True))
    assert rows["a"][7, D] == 0.75 and rows["a"][0, A] == 0.25 and rows["a"][18, B] == 0.25
    assert rows["b"][7, B] == 0.5


def test_knowing_shares_goes_further_than_knowing_labels(truth, tmp_path):
    labels = evaluate(truth, copy_truth(truth, tmp_path / "labels.csv", shares=False))
    shares = evaluate(truth, copy_truth(truth, tmp_path / "shares.csv", shares=True))
    assert labels.mean_ap < shares.mean_ap < 1
