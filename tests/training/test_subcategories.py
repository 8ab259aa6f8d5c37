"""Clusters of features within each class, and their table: by ID, and never against the labels."""

import warnings

import numpy as np
import pandas as pd
import pytest

from hpa_kit.classes import CLASSES
from hpa_kit.config import SubcategoriesSettings
from hpa_kit.errors import InputError
from hpa_kit.training import assign_subcategories
from hpa_kit.training.features_file import Features, read_features, write_features
from hpa_kit.training.subcategories import make_subcategories, read_subcategories, write_subcategories


def blobs(per_blob, centres, seed=0):
    """Features around centres, and which centre each is of."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(centres)), per_blob)
    return np.asarray(centres, float)[of] + rng.normal(0, 0.05, (len(of), len(centres[0]))), of


def hot(n, *classes):
    labels = np.zeros((n, 19), np.float32)
    labels[:, list(classes)] = 1
    return labels


def test_each_shown_class_gets_the_cluster_that_the_feature_is_in():
    features, of = blobs(20, [(0, 0), (5, 5), (0, 9)])
    numbers = assign_subcategories(features, hot(60, 3, 16), k=3)
    assert numbers.shape == (60, 19) and numbers.dtype.kind == "i"
    for index in (3, 16):
        pairs = set(zip(of.tolist(), numbers[:, index].tolist(), strict=True))
        assert len(pairs) == 3 and {number for _, number in pairs} == {0, 1, 2}
    assert (np.delete(numbers, [3, 16], axis=1) == -1).all()


def test_a_class_is_clustered_without_the_fields_that_lack_it():
    features, of = blobs(10, [(0, 0), (5, 5), (100, 0), (0, 100)])
    labels = hot(40, 0)
    labels[of >= 2, 0], labels[of >= 2, 7] = 0, 1
    numbers = assign_subcategories(features, labels, k=2)
    assert ((numbers >= 0) == (labels > 0)).all()
    for index, first, second in ((0, 0, 1), (7, 2, 3)):
        assert len(set(numbers[of == first, index]) | set(numbers[of == second, index])) == 2
        assert set(numbers[of == first, index]).isdisjoint(numbers[of == second, index])


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_a_class_with_fewer_fields_than_clusters_gets_one_for_each(n):
    features = np.random.default_rng(0).normal(size=(n, 6))
    numbers = assign_subcategories(features, hot(n, 11), k=10)
    assert sorted(numbers[:, 11]) == list(range(n))


def test_clusters_that_hold_nothing_leave_no_gap_and_no_warning():
    features = np.repeat(np.eye(3, 8), 7, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers = assign_subcategories(features, hot(21, 5), k=10)
        zeros = assign_subcategories(np.zeros((30, 8)), hot(30, 5), k=10, standardise=True)
    assert set(numbers[:, 5]) == {0, 1, 2}
    assert (zeros[:, 5] == 0).all()


@pytest.mark.parametrize("factor", [2.0**-120, 1e-30, 1e25, 2.0**110])
@pytest.mark.parametrize("standardise", [False, True])
def test_clusters_do_not_depend_on_the_unit_of_the_features(factor, standardise):
    features = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    labels = hot(60, 3)
    expected = assign_subcategories(features, labels, k=4, standardise=standardise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = assign_subcategories(features * np.float32(factor), labels, k=4, standardise=standardise)
    if np.log2(factor).is_integer():  # exact
        np.testing.assert_array_equal(found, expected)
    assert len(set(found[:, 3])) == 4


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, None, True])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(InputError, match="seed"):
        assign_subcategories(np.eye(3), hot(3, 0), seed=seed)


def test_zero_features_are_a_cluster_like_any_other():
    features = np.concatenate([np.zeros((5, 4)), np.ones((5, 4))])
    numbers = assign_subcategories(features, hot(10, 0), k=2)[:, 0]
    assert len(set(numbers[:5])) == len(set(numbers[5:])) == 1 and numbers[0] != numbers[9]


def test_standardising_lets_a_small_feature_tell_fields_apart():
    rng = np.random.default_rng(0)
    of = np.arange(80) % 2
    features = np.stack([rng.normal(0, 1000, 80), of * 0.1, np.full(80, 7.3)], axis=1)
    agreement = [
        abs(np.corrcoef(assign_subcategories(features, hot(80, 2), k=2, standardise=how)[:, 2], of)[0, 1])
        for how in (False, True)
    ]
    assert agreement[0] < 0.5 and agreement[1] > 0.99


def test_the_same_seed_gives_the_same_and_another_may_not():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(300, 16)), hot(300, 0, 4)
    first = assign_subcategories(features, labels, k=10, seed=3)
    assert (assign_subcategories(features.astype(np.float32), labels > 0, k=10, seed=3) == first).all()
    assert (assign_subcategories(features, labels, k=10, seed=4) != first).any()


def test_no_field_and_no_class_are_fine():
    assert assign_subcategories(np.zeros((0, 4)), hot(0)).shape == (0, 19)
    assert (assign_subcategories(np.ones((3, 4)), np.zeros((3, 19), bool)) == -1).all()


@pytest.mark.parametrize(
    ("features", "labels", "k", "message"),
    [
        ([[0.0, np.nan], [1, 1]], hot(2, 0), 2, "1 of 2 rows .* NaN or infinite .* row 0"),
        ([[0.0, 1], [1, np.inf]], hot(2, 0), 2, "row 1"),
        ([[0.0, 1], [1, 1e300]], hot(2, 0), 2, "row 1"),
        (np.ones((3, 2)), hot(2, 0), 2, "3 rows of features and 2 of labels"),
        (np.ones(3), hot(3, 0), 2, r"features are float64 \(3,\)"),
        (np.ones((3, 0)), hot(3, 0), 2, r"expected numbers \(n, d\)"),
        (np.ones((3, 2)), np.ones((3, 18)), 2, r"expected \(n, 19\)"),
        (np.ones((3, 2)), hot(3, 4) * 2, 2, "2.0 in row 0 for class 4 Nuclear speckles"),
        (np.ones((3, 2)), hot(3, 4), 0, "k is 0"),
        (np.ones((3, 2)), hot(3, 4), 2.5, "k is 2.5"),
    ],
)
def test_what_cannot_be_clustered_is_said(features, labels, k, message):
    with pytest.raises(InputError, match=message):
        assign_subcategories(features, labels, k=k)


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
