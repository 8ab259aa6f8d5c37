import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpa_kit.errors import InputError
from hpa_kit.submission import (
    check_submission,
    encode_mask,
    prediction_string,
    read_submission,
    truth_string,
    write_submission,
)

ODD_IDS = ["1e5", "00123", "0123e45", "1e400", "NA", "nan", "None", "null", "true", "-", "a,b", 'q"q', "0x10"]
MASK = encode_mask(np.eye(6, 8, dtype=bool))

# What the real sample says of a field of 2048 x 2048: an empty mask.
PLACEHOLDER = "0 1 eNoLCAgIMAEABJkBdQ=="


def test_ids_stay_text_and_an_empty_prediction_stays_empty(tmp_path):
    rows = [(id, 8, 6, "" if k % 2 else f"0 0.5 {MASK}") for k, id in enumerate(ODD_IDS)]
    write_submission(tmp_path / "s.csv", rows)
    table = read_submission(tmp_path / "s.csv")
    assert list(table.itertuples(index=False, name=None)) == rows


def test_a_table_is_written_in_kaggles_order_of_columns(tmp_path):
    table = pd.DataFrame(
        {"PredictionString": ["x"], "ImageHeight": [6], "extra": [1], "ID": ["a"], "ImageWidth": [8]}
    )
    write_submission(tmp_path / "s.csv", table)
    assert (tmp_path / "s.csv").read_text() == "ID,ImageWidth,ImageHeight,PredictionString\na,8,6,x\n"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("0123456789eE+-.naNAul,\"' ü", min_size=1).filter(str.strip), unique=True))
def test_any_id_is_read_as_it_was_written(tmp_path, ids):
    write_submission(tmp_path / "s.csv", [(id, 8, 6, "") for id in ids])
    assert read_submission(tmp_path / "s.csv")["ID"].tolist() == ids


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((123, 8, 6, ""), "ID 123 is no text"),
        (("", 8, 6, ""), "ID '' is no text"),
        (("a", 8, 6, ""), "ID a stands twice"),
        (("b", 8.0, 6, ""), "ImageWidth is 8.0"),
        (("b", 8, 0, ""), "ImageHeight is 0"),
        (("b", 8, 6, float("nan")), "PredictionString is nan"),
    ],
)
def test_a_row_that_would_be_read_differently_is_not_written(tmp_path, row, fault):
    with pytest.raises(InputError, match=fault):
        write_submission(tmp_path / "s.csv", [("a", 8, 6, ""), row])
    assert list(tmp_path.iterdir()) == []


def test_a_cell_with_several_classes_repeats_its_mask():
    scores = np.zeros((3, 19))
    scores[0, 5], scores[0, 0], scores[2, 18] = 0.25, 1, 1e-7
    assert prediction_string(scores, {1: "m1", 2: "m2", 3: "m3"}) == "0 1 m1 5 0.25 m1 18 1e-07 m3"
    assert prediction_string(scores, {1: "m1", 3: "m3"}, floor=0.5) == "0 1 m1"
    assert prediction_string(scores, {3: "m3"}) == "18 1e-07 m3"
    assert prediction_string(np.zeros((0, 19)), {}) == ""


@pytest.mark.parametrize(
    "scores",
    [
        *(np.zeros(19), np.zeros((2, 18)), np.full((1, 19), np.nan), np.full((1, 19), np.inf)),
        *(np.full((1, 19), 1.5), np.full((1, 19), 1.000001)),
    ],
)
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(InputError, match="scores"):
        prediction_string(scores, {1: "m"})


def test_what_is_written_passes_the_check_though_a_sum_was_rounded_above_one(tmp_path, sample):
    scores = np.array([[1 + 3e-7, np.nextafter(1, 2), 1, *[1e-300] * 16]])
    rows = [(id, 8, 6, prediction_string(scores, {1: MASK})) for id in ("00a", "1e5", "c")]
    write_submission(tmp_path / "s.csv", rows)
    assert check_submission(tmp_path / "s.csv", sample) == []


def test_truth_is_pairs_of_class_and_mask():
    assert truth_string({1: (0, 7), 2: (18,), 3: (1,)}, {1: "m1", 2: "m2"}) == "0 m1 7 m1 18 m2"


@pytest.fixture
def sample(tmp_path):
    write_submission(tmp_path / "sample.csv", [(id, 8, 6, PLACEHOLDER) for id in ("00a", "1e5", "c")])
    return tmp_path / "sample.csv"


@pytest.fixture
def faults(tmp_path, sample):
    def run(text):
        (tmp_path / "s.csv").write_text(text)
        return check_submission(tmp_path / "s.csv", sample)

    return run


HEADER = "ID,ImageWidth,ImageHeight,PredictionString\n"
EMPTY = encode_mask(np.zeros((6, 8), bool))


def test_a_good_submission_has_no_faults(faults, sample):
    assert check_submission(sample, sample) == []
    assert faults(f"{HEADER}c,8,6,\n1e5,8,6,0 0.5 {MASK} 18 1 {MASK}\n00a,8,6,3 0 {EMPTY}\n") == []


ROWS = {id: f"{id},8,6,\n" for id in ("00a", "1e5", "c")}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"c": ""}, "ID c has no row"),
        ({"c": ROWS["c"] + "d,8,6,\n"}, "ID d is not in the sample"),
        ({"c": ROWS["c"] * 2}, "ID c has more than one row"),
        ({"1e5": "100000.0,8,6,\n"}, "ID 1e5 has no row"),
        ({"c": "c,6,8,\n"}, "ID c: size is 6 x 8; the sample says 8 x 6"),
        ({"c": "c,8.0,6,\n"}, "ID c: size is 8.0 x 6"),
        ({"c": f"c,8,6,0 0.5 {MASK} 1\n"}, "ID c: 4 words"),
        ({"c": f"c,8,6,19 0.5 {MASK}\n"}, "ID c: '19' is no location class"),
        ({"c": f"c,8,6,{'1' * 5000} 0.5 {MASK}\n"}, "ID c: '1{20}' is no location class"),
        ({"c": f"c,{'1' * 5000},6,\n"}, "ID c: size is 1{20} x 6"),
        ({"c": f"c,8,6,0.0 0.5 {MASK}\n"}, "ID c: '0.0' is no location class"),
        ({"c": f"c,8,6,0 nan {MASK}\n"}, "ID c: confidence 'nan' is no finite number"),
        ({"c": f"c,8,6,0 inf {MASK}\n"}, "ID c: confidence 'inf' is no finite number"),
        ({"c": f"c,8,6,0 high {MASK}\n"}, "ID c: confidence 'high' is no finite number"),
        ({"c": f"c,8,6,0 1.5 {MASK}\n"}, r"ID c: confidence 1\.5 is not between 0 and 1"),
        ({"c": f"c,8,6,0 1.0000001 {MASK}\n"}, r"ID c: confidence 1\.0000001 is not between 0 and 1"),
        ({"c": f"c,8,6,0 1 {MASK} 1 -0.5 {MASK}\n"}, r"ID c: confidence -0\.5 is not between 0 and 1"),
        ({"c": "c,8,6,0 0.5 notamask\n"}, "ID c: mask notamask cannot be used"),
        ({"c": f"c,8,6,0 0.5 {encode_mask(np.ones((7, 8)) > 0)}\n"}, "ID c: mask .* longer than the field"),
    ],
)
def test_every_way_to_be_rejected_is_named(faults, change, fault):
    found = faults(HEADER + "".join((ROWS | change).values()))
    assert any(pd.Series(found).str.fullmatch(f".*{fault}.*")), found


def test_the_samples_own_mask_is_legal_in_its_row_and_checked_elsewhere(tmp_path):
    other = PLACEHOLDER.rsplit(maxsplit=1)[-1]
    write_submission(tmp_path / "sample.csv", [("a", 8, 6, PLACEHOLDER), ("b", 8, 6, "")])
    write_submission(tmp_path / "s.csv", [("a", 8, 6, f"5 0.5 {other}"), ("b", 8, 6, PLACEHOLDER)])
    (fault,) = check_submission(tmp_path / "s.csv", tmp_path / "sample.csv")
    assert fault.startswith(f"ID b: mask {other} cannot be used")


def test_columns_in_another_order_are_a_fault(faults):
    found = faults("ID,ImageHeight,ImageWidth,PredictionString\n" + "".join(f"{id},6,8,\n" for id in ROWS))
    assert found == ["columns are ID,ImageHeight,ImageWidth,PredictionString; expected " + HEADER.strip()]


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_what_kaggle_would_not_split_is_a_fault(faults, separator, name):
    text = "".join([HEADER, *(f"{id},8,6,\n" for id in ("00a", "1e5", "c"))])
    assert faults(text.replace(",", separator)) == [f"{name} stand between the columns; expected commas"]


def test_a_thousand_missing_rows_are_told_shortly(tmp_path):
    write_submission(tmp_path / "sample.csv", [(str(k), 8, 6, "") for k in range(1000)])
    write_submission(tmp_path / "s.csv", [])
    found = check_submission(tmp_path / "s.csv", tmp_path / "sample.csv")
    assert found[0] == "ID 0 has no row"
    assert found[-1] == "950 more IDs: each has no row"
    assert len(found) == 51


@pytest.mark.parametrize("content", ["", "ID,Label\na,1\n", "\x00\x01", HEADER.replace("ImageWidth,", "")])
def test_a_file_that_is_no_submission_is_one_fault(faults, content):
    (fault,) = faults(content)
    assert "s.csv" in fault


def test_a_file_that_is_not_there_is_an_error(tmp_path, sample):
    with pytest.raises(InputError, match=r"none\.csv is missing"):
        check_submission(tmp_path / "none.csv", sample)
    with pytest.raises(InputError, match=r"none\.csv is missing"):
        check_submission(sample, tmp_path / "none.csv")


def test_the_real_sample_passes_its_own_check(real):
    sample = real / "tables" / "sample_submission.csv"
    assert check_submission(sample, sample) == []
