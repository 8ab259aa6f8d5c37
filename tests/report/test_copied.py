import numpy as np
import pytest

from hpa_kit.report.copied import copy_truth
from hpa_kit.submission import encode_mask, evaluate, read_submission, write_submission


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
