"""Clusters of features within each class."""

import warnings

import numpy as np
import pytest

from hpa_kit.errors import InputError
from hpa_kit.training import assign_subcategories


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
