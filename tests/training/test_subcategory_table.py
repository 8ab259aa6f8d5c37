"""The table of sub-categories: by ID, and never against the labels."""

import numpy as np
import pandas as pd
import pytest

from hpa_kit.classes import CLASSES
from hpa_kit.config import SubcategoriesSettings
from hpa_kit.errors import InputError
from hpa_kit.training.features_file import Features, read_features, write_features
from hpa_kit.training.subcategories import make_subcategories, read_subcategories, write_subcategories


def fields(**labels):
    return pd.DataFrame({"ID": list(labels), "Label": list(labels.values())})


def numbers(*rows):
    """Rows {class: sub-category} as an array."""
    table = np.full((len(rows), 19), -1)
    for row, given in zip(table, rows, strict=True):
        row[list(given)] = list(given.values())
    return table


def test_rows_go_by_id_whatever_their_order(tmp_path):
    path = tmp_path / "sub.csv"
    write_subcategories(path, ["00123", "1e5", "x"], numbers({0: 3}, {0: 1, 16: 0}, {18: 9}))
    table = read_subcategories(path)
    assert table.ids == ["00123", "1e5", "x"] and table.k == 10
    rows = table.of_fields(pd.DataFrame({"ID": ["1e5", "00123"], "Label": ["0|16", "0"]}))
    assert (rows == numbers({0: 1, 16: 0}, {0: 3})).all()
    assert pd.read_csv(path).columns.tolist() == ["ID", *(place.name for place in CLASSES)]


def test_what_contradicts_the_labels_names_file_id_and_class(tmp_path):
    path = tmp_path / "sub.csv"
    write_subcategories(path, ["a", "b"], numbers({0: 3}, {0: 1, 16: 0}))
    table = read_subcategories(path)
    for labels, message in (
        ({"a": "0", "b": "0"}, "sub.csv, ID b: gives one for class 16 Cytosol, which its label 0 lacks"),
        (
            {"a": "0|5", "b": "0|16"},
            "sub.csv, ID a: gives no sub-category for class 5 Nuclear bodies, which its label 0|5 has",
        ),
        ({"a": "0", "c": "0", "d": "1"}, "sub.csv lacks 2 of 3 fields, such as ID c"),
    ):
        with pytest.raises(InputError) as caught:
            table.of_fields(fields(**labels))
        assert message in str(caught.value)


@pytest.mark.parametrize("value", ["1.5", "-2", "", "x", "12345678901234567890", "1e2"])
def test_a_value_that_is_no_sub_category_is_named(tmp_path, value):
    path = tmp_path / "sub.csv"
    write_subcategories(path, ["a", "b"], numbers({0: 3}, {0: 1}))
    table = pd.read_csv(path, dtype=str)
    table.loc[1, "Cytosol"] = value
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"sub.csv, ID b: Cytosol is"):
        read_subcategories(path)


def test_a_table_of_twenty_thousand_rows_is_read_and_checked_in_no_time(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"{number:05d}" for number in range(20_000)]
    classes = rng.integers(0, 19, 20_000)
    table = np.full((20_000, 19), -1)
    table[np.arange(20_000), classes] = rng.integers(0, 10, 20_000)
    write_subcategories(tmp_path / "sub.csv", ids, table)
    order = rng.permutation(20_000)
    labels = pd.DataFrame({"ID": [ids[i] for i in order], "Label": [str(classes[i]) for i in order]})
    assert (read_subcategories(tmp_path / "sub.csv").of_fields(labels) == table[order]).all()


@pytest.fixture
def clustered(tmp_path):
    """Features of fields b, a, z; labels of a and b; an external table with z and another."""
    values = np.array([[0.0, 1], [1, 0], [1, 0.01]], np.float32)
    write_features(tmp_path / "f.npz", Features(["b", "a", "z"], values, "test"))
    (tmp_path / "train.csv").write_text("ID,Label\na,0|5\nb,0\n")
    (tmp_path / "external.csv").write_text(
        "ID,Label_idx,Cellline,isin_dataset\nz,0,U-2 OS,True\ny,3,U-2 OS,True\n"
    )
    return SubcategoriesSettings(
        features=tmp_path / "f.npz", labels=tmp_path / "train.csv", out=tmp_path / "s.csv", k=2
    )


def test_features_are_joined_to_labels_by_id(clustered, caplog):
    table = read_subcategories(make_subcategories(clustered))
    assert table.ids == ["a", "b"]
    assert ((table.numbers >= 0).sum(1) == [2, 1]).all()
    assert table.numbers[0, 0] != table.numbers[1, 0]
    assert "1 fields with features have no label" in caplog.text


def test_external_fields_that_have_features_are_clustered_too(clustered):
    with_external = clustered.model_copy(update={"external": clustered.labels.with_name("external.csv")})
    table = read_subcategories(make_subcategories(with_external))
    assert table.ids == ["a", "b", "z"]
    assert table.numbers[2, 0] == table.numbers[0, 0] != table.numbers[1, 0]


def test_a_labelled_field_without_features_is_named(clustered):
    clustered.labels.write_text("ID,Label\na,0\nb,0\nc,1\n")
    with pytest.raises(InputError, match=r"f.npz lacks 1 of 3 fields of .*train.csv, such as ID c"):
        make_subcategories(clustered)


def test_features_come_back_without_pickles_and_faults_are_named(tmp_path):
    path = tmp_path / "f.npz"
    values = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    write_features(path, Features(["00123", "é"], values, "test"))
    back = read_features(path)
    assert back.ids == ["00123", "é"] and (back.values == values).all() and back.source == "test"
    whole = path.read_bytes()
    faults = {"cut.npz": whole[:-40], "empty.npz": b"", "text.npz": b"ID,Label\n"}
    for name, content in faults.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_features(tmp_path / name)
    np.save(tmp_path / "array.npy", values)
    np.savez(tmp_path / "objects.npz", ids=np.array(["a", None], object), features=values, source="x")
    np.savez(tmp_path / "nan.npz", ids=np.array(["a", "b"]), features=values * np.nan, source="x")
    np.savez(tmp_path / "twice.npz", ids=np.array(["a", "a"]), features=values, source="x")
    np.savez(tmp_path / "short.npz", ids=np.array(["a"]), features=values, source="x")
    for name in ("array.npy", "objects.npz", "nan.npz", "twice.npz", "short.npz", "gone.npz"):
        with pytest.raises(InputError, match=name):
            read_features(tmp_path / name)
