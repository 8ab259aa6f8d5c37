"""Sub-categories: the looks that a location class has, found by clustering the features of its fields."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.classes import CLASSES, N_CLASSES
from hpa_kit.errors import InputError

_ITERATIONS = 300


def assign_subcategories(
    features: ArrayLike, labels: ArrayLike, k: int = 10, seed: int = 0, standardise: bool = False
) -> NDArray[np.int64]:
    """Give each field, for every class it shows, the cluster of its feature among the fields of that class.

    Per class one k-means of scikit-learn (k-means++, one start, at most 300 iterations) over the fields
    that show it. A class with fewer fields than k gets as many clusters as it has fields. Clusters
    that hold no field, as where features are equal, leave no gap: a class's clusters are counted from 0 and
    each holds a field. The same arguments give the same result, however many processors there are.

    Args:
        features: float (n, d), finite, worked on as float32; rows of zeros are fine.
        labels: (n, 19) of zeros and ones, which classes each field shows.
        k: clusters per class.
        seed: of k-means.
        standardise: shift and scale each feature to mean 0 and spread 1 over the fields of a class first.

    Returns:
        int64 (n, 19): the sub-category, 0 to k − 1, or −1 where the class is absent.

    Raises:
        InputError: a shape or a value is not as above; what was found, and where, is named.

    Source: the sub-categories of SC-CAM (Chang et al. 2020, arXiv 2008.01183).
    """
    rows, shown = _checked_features(features), _checked_labels(labels)
    if len(rows) != len(shown):
        raise InputError(
            f"subcategories: {len(rows)} rows of features and {len(shown)} of labels; expected as many"
        )
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"subcategories: k is {k!r}; expected a whole number above 0")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise InputError(f"subcategories: seed is {seed!r}; expected a whole number from 0, below 2^32")
    numbers = np.full((len(rows), N_CLASSES), -1, dtype=np.int64)
    for index in range(N_CLASSES):
        members = np.flatnonzero(shown[:, index])
        if len(members):
            own = rows[members]
            numbers[members, index] = _clusters(
                _standardised(own) if standardise else _near_1(own), int(k), int(seed)
            )
    return numbers


def _clusters(rows: NDArray[np.float32], k: int, seed: int) -> NDArray[np.int64]:
    """The cluster of each row, counted from 0 without gaps."""
    # Here, because scikit-learn takes a second to import.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    if min(k, len(rows)) == 1:
        return np.zeros(len(rows), dtype=np.int64)
    means = KMeans(min(k, len(rows)), n_init=1, max_iter=_ITERATIONS, random_state=seed)
    # One thread: several add in an order that changes from run to run, and on a busy machine they are slower.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
        found = means.fit_predict(rows)
    _, numbers = np.unique(found, return_inverse=True)
    return numbers.astype(np.int64)


def _near_1(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows times a power of 2, which changes no digit: no square is too large or small for float32 then."""
    _, exponent = np.frexp(np.abs(rows).max())
    return np.ldexp(rows, -exponent)


def _standardised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each column with mean 0 and spread 1; a column of one value becomes 0."""
    mean, spread = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    # What is below float32's digits of the mean is rounding, not spread.
    flat = spread <= np.finfo(np.float32).eps * np.abs(mean)
    result: NDArray[np.float32] = ((rows - mean) / np.where(flat, np.inf, spread)).astype(np.float32)
    return result


def _checked_features(features: ArrayLike) -> NDArray[np.float32]:
    rows: NDArray[Any] = np.asarray(features)
    if rows.ndim != 2 or rows.dtype.kind not in "fiub" or rows.shape[1] == 0:
        raise InputError(f"subcategories: features are {rows.dtype} {rows.shape}; expected numbers (n, d)")
    with np.errstate(over="ignore"):  # what is too large for float32 is named below
        rows = rows.astype(np.float32, copy=False)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"subcategories: {int(bad.sum())} of {len(rows)} rows of features hold NaN or infinite values, "
            f"the first is row {first}; expected finite numbers"
        )
    return rows


def _checked_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    rows: NDArray[Any] = np.asarray(labels)
    if rows.ndim != 2 or rows.shape[1] != N_CLASSES or rows.dtype.kind not in "fiub":
        raise InputError(
            f"subcategories: labels are {rows.dtype} {rows.shape}; expected (n, {N_CLASSES}) of 0 and 1, as "
            "hpa_kit.classes.multi_hot gives"
        )
    wrong = np.argwhere((rows != 0) & (rows != 1))
    if len(wrong):
        row, column = (int(number) for number in wrong[0])
        raise InputError(
            f"subcategories: labels hold {rows[row, column]} in row {row} for class "
            f"{CLASSES[column].index} {CLASSES[column].name}; expected 0 or 1"
        )
    return rows.astype(bool)
