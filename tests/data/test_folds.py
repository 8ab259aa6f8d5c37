"""Folds: every class in like shares, made once, the same ever after."""

import warnings

import numpy as np
import pandas as pd
import pytest

from hpa_kit.classes import multi_hot, parse_label
from hpa_kit.data import find_folds, load_folds, make_folds, read_labels, take_folds, write_folds
from hpa_kit.errors import InputError


def labelled(labels):
    return pd.DataFrame({"ID": [f"f{n}" for n in range(len(labels))], "Label": labels})


def some_labels(n, seed=0):
    rng = np.random.default_rng(seed)
    return labelled(["|".join(map(str, rng.choice(6, rng.integers(1, 3), replace=False))) for _ in range(n)])


def stored(path, labels, n_folds, seed, source=None):
    """The folds of a run that stores them where it finds none."""
    folds = find_folds(path, labels, n_folds, seed, source)
    if not path.exists():
        write_folds(path, folds)
    return folds


def test_every_class_is_shared_among_the_folds():
    folds = make_folds(some_labels(300), 5, seed=0)
    assert list(folds.columns) == ["ID", "Label", "fold"]
    assert folds["fold"].dtype == "int64"
    hot = multi_hot(parse_label(label) for label in folds["Label"])[:, :6]
    counts = np.stack([hot[folds["fold"] == fold].sum(axis=0) for fold in range(5)])
    assert (abs(counts - counts.mean(axis=0)) <= 2).all()


def test_the_seed_alone_decides_not_the_order_of_the_rows():
    labels = some_labels(60)
    folds = make_folds(labels, 5, seed=3)
    assert make_folds(labels, 5, seed=3).equals(folds)
    assert not make_folds(labels, 5, seed=4).equals(folds)
    shuffled = labels.sample(frac=1, random_state=1)
    by_id = make_folds(shuffled, 5, seed=3).set_index("ID")["fold"]
    assert (by_id[folds["ID"]].to_numpy() == folds["fold"].to_numpy()).all()


def test_rows_come_back_in_their_order_with_their_labels():
    labels = some_labels(20).iloc[::-1]
    folds = make_folds(labels, 3, seed=0)
    assert folds["ID"].tolist() == labels["ID"].tolist()
    assert folds["Label"].tolist() == labels["Label"].tolist()


def test_a_class_too_rare_for_every_fold_is_said_by_name():
    labels = labelled(["0", "16|17"] * 19 + ["11", "0|11"])
    with pytest.warns(UserWarning, match=r"11 Mitotic spindle \(2 of 40 fields, none in fold") as said:
        folds = make_folds(labels, 5, seed=0)
    assert len(said) == 1
    assert "Nucleoplasm" not in str(said[0].message)
    assert sorted(set(folds["fold"])) == [0, 1, 2, 3, 4]
    assert folds["fold"][folds["Label"].str.contains("11")].nunique() == 2


def test_common_classes_are_not_talked_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_folds(labelled(["0", "16"] * 20), 5, seed=0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_fields_than_folds_make_fewer_folds(n):
    with pytest.warns(UserWarning, match=f"5 folds asked for, {n} made"):
        folds = make_folds(labelled(["0|5"] * n), 5, seed=0)
    assert sorted(folds["fold"]) == list(range(n))


def test_no_field_no_fold_and_a_bad_label_are_refused():
    with pytest.raises(InputError, match="no field"):
        make_folds(labelled([]), 5, seed=0)
    with pytest.raises(InputError, match="0 folds"):
        make_folds(labelled(["0"]), 0, seed=0)
    with pytest.raises(InputError, match="ID f1"):
        make_folds(labelled(["0", "19"]), 2, seed=0)


def test_folds_are_written_once_and_reused_whatever_the_seed(tmp_path):
    path = tmp_path / "run" / "folds.csv"
    labels = some_labels(30)
    first = find_folds(path, labels, 5, seed=0)
    assert not path.parent.exists()
    assert stored(path, labels, 5, seed=0).equals(first)
    written = path.read_bytes()
    again = stored(path, labels.iloc[::-1], 5, seed=9)
    assert path.read_bytes() == written
    assert again.iloc[::-1].reset_index(drop=True).equals(first)
    assert [entry.name for entry in path.parent.iterdir()] == ["folds.csv"]


def test_stored_ids_stay_text(tmp_path):
    labels = pd.DataFrame({"ID": ["1e5", "00123", "NA", "1e400"], "Label": ["0", "1", "0", "1"]})
    first = stored(tmp_path / "folds.csv", labels, 2, seed=0)
    assert stored(tmp_path / "folds.csv", labels, 2, seed=0)["ID"].tolist() == labels["ID"].tolist()
    assert first["fold"].nunique() == 2


def test_stored_folds_of_other_fields_are_refused_not_replaced(tmp_path):
    path = tmp_path / "folds.csv"
    labels = some_labels(30)
    stored(path, labels, 5, seed=0)
    written = path.read_bytes()
    with pytest.raises(
        InputError, match=r"folds\.csv was made for other fields: 0 are not in it, 1 are in it only.*f29"
    ):
        stored(path, labels[:-1], 5, seed=0)
    with pytest.raises(InputError, match="1 are not in it, 0 are in it only"):
        stored(path, some_labels(31), 5, seed=0)
    with pytest.raises(InputError, match="holds 5 folds; expected 4"):
        stored(path, labels, 4, seed=0)
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("ID,Label\nf0,0\n", "lacks the column fold"),
        ("ID,Label,fold\nf0,0,x\n", "ID f0: fold is 'x'"),
        ("ID,Label,fold\nf0,0,1.0\n", "ID f0: fold is '1.0'"),
        ("ID,Label,fold\nf0,0,0\nf0,0,1\n", "ID f0 more than once"),
    ],
)
def test_what_is_no_table_of_folds_is_refused(tmp_path, text, why):
    path = tmp_path / "folds.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=why):
        stored(path, labelled(["0"]), 1, seed=0)


def test_folds_of_another_run_are_taken_and_fields_it_lacks_are_always_learnt_from(tmp_path):
    labels = some_labels(30)
    first = stored(tmp_path / "one" / "folds.csv", labels[5:], 4, seed=0)
    with pytest.warns(UserWarning, match="lacks 5 of 30 fields, such as f0"):
        second = stored(tmp_path / "two" / "folds.csv", labels, 4, seed=7, source=tmp_path / "one")
    assert second["fold"].tolist() == [-1] * 5 + first["fold"].tolist()
    assert second["ID"].tolist() == labels["ID"].tolist()
    assert stored(tmp_path / "two" / "folds.csv", labels, 4, seed=7, source=tmp_path / "one").equals(second)


def test_folds_of_other_data_or_of_another_number_are_not_taken(tmp_path):
    one = tmp_path / "folds.csv"
    stored(one, some_labels(10), 2, seed=0)
    strangers = some_labels(10).assign(ID=[f"x{n}" for n in range(10)])
    with pytest.raises(InputError, match="knows none of the 10 fields"):
        find_folds(None, strangers, 2, seed=0, source=one)
    with pytest.raises(InputError, match=r"folds\.csv holds 2 folds; expected 3; give as many folds"):
        find_folds(None, some_labels(10), 3, seed=0, source=one)
    with pytest.raises(InputError, match="is missing"):
        find_folds(None, strangers, 2, seed=0, source=tmp_path / "nowhere")


def test_the_real_labels_are_shared_to_within_a_few_fields(real):
    labels = read_labels(real / "tables" / "train.csv")
    rare = labels[labels["Label"].str.split("|").map(lambda parts: bool({"11", "15", "18"} & set(parts)))]
    with pytest.warns(UserWarning, match="7 Golgi apparatus"):
        folds = make_folds(rare, 5, seed=0)
    hot = multi_hot(parse_label(label) for label in folds["Label"])[:, [11, 15, 18]]
    counts = np.stack([hot[folds["fold"] == fold].sum(axis=0) for fold in range(5)])
    assert (abs(counts - counts.mean(axis=0)) <= 2).all()


def test_folds_are_loaded_or_made_and_taken_from_another_run(tmp_path):
    """By the names that user code has from before folds were found without being written."""
    labels = pd.DataFrame({"ID": [f"f{number}" for number in range(12)], "Label": ["0", "7"] * 6})
    made = load_folds(tmp_path / "folds.csv", labels, 3, seed=1)
    again = load_folds(tmp_path / "folds.csv", labels[::-1], 3, seed=2)
    assert again[::-1].reset_index(drop=True).equals(made)
    take_folds(tmp_path / "other.csv", tmp_path, labels)
    assert load_folds(tmp_path / "other.csv", labels, 3, seed=0).equals(made)
