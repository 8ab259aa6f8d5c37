"""Sub-categories: the looks that a location class has, found by clustering the features of its fields.

Their table is a CSV with the sub-category of each field in each class it shows.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hpa_kit.classes import CLASSES, N_CLASSES, multi_hot, parse_label
from hpa_kit.config import SubcategoriesSettings
from hpa_kit.data import read_external, read_labels
from hpa_kit.errors import InputError, shown
from hpa_kit.files import atomic_path, make_folder_of
from hpa_kit.tables import check_ids, read_table
from hpa_kit.training.features_file import read_features

log = logging.getLogger(__name__)

COLUMNS = ("ID", *(place.name for place in CLASSES))
_MAX_DIGITS = 4  # of a sub-category's number
_ITERATIONS = 300


def make_subcategories(settings: SubcategoriesSettings) -> Path:
    """Cluster the features of labelled fields and write the table, rows in the order of the labels.

    All fields of the table of labels need features. Of external fields those count that have some, as only
    a part of them is sampled. Features of fields without a label are left out, and it is said how many.

    Returns:
        Path of the CSV.

    Raises:
        InputError: a file cannot be read, or a labelled field has no features.
    """
    make_folder_of(settings.out)
    labels = read_labels(settings.labels)
    features = read_features(settings.features)
    lacking = labels["ID"][~labels["ID"].isin(features.ids)]
    if len(lacking):
        raise InputError(
            f"subcategories: {settings.features} lacks {len(lacking)} of {len(labels)} fields of "
            f"{settings.labels}, such as ID {lacking.iloc[0]}; run hpa-kit features on all of them"
        )
    if settings.external is not None:
        external = read_external(settings.external)
        taken = external["ID"].isin(features.ids) & ~external["ID"].isin(labels["ID"])
        labels = pd.concat([labels, external.loc[taken, ["ID", "Label"]]], ignore_index=True)
    unlabelled = len(features.ids) - len(labels)
    if unlabelled:
        log.warning(f"subcategories: {unlabelled} fields with features have no label; left out")
    values = features.values[pd.Index(features.ids).get_indexer(pd.Index(labels["ID"]))]
    hot = multi_hot(parse_label(label) for label in labels["Label"])
    numbers = assign_subcategories(values, hot, settings.k, settings.seed, settings.standardise)
    write_subcategories(settings.out, labels["ID"].tolist(), numbers)
    return settings.out


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


class SubcategoryTable(NamedTuple):
    """Sub-categories by ID.

    Attributes:
        path: where they were read.
        ids: the fields.
        numbers: int64 (fields, 19), from 0, or −1 where the class is absent.
    """

    path: Path
    ids: list[str]
    numbers: NDArray[np.int64]

    @property
    def k(self) -> int:
        """Sub-categories per class that targets need room for."""
        return max(1, int(self.numbers.max(initial=-1)) + 1)

    def of_fields(self, fields: pd.DataFrame) -> NDArray[np.int64]:
        """The rows of fields, in their order, each checked against the field's image label.

        Args:
            fields: columns ``ID`` and ``Label``.

        Raises:
            InputError: a field has no row, a class it shows has no sub-category, or one it lacks has one.
        """
        places = pd.Index(self.ids).get_indexer(pd.Index(fields["ID"]))
        ids = fields["ID"].tolist()
        if (places < 0).any():
            lacking = np.flatnonzero(places < 0)
            raise InputError(
                f"subcategories: {self.path} lacks {len(lacking)} of {len(ids)} fields, such as ID "
                f"{ids[lacking[0]]}; make features of all training fields and cluster them again"
            )
        numbers = self.numbers[places]
        shown = multi_hot(parse_label(label) for label in fields["Label"]) > 0
        wrong = np.argwhere((numbers >= 0) != shown)
        if len(wrong):
            row, index = (int(number) for number in wrong[0])
            place = f"class {index} {CLASSES[index].name}"
            found = (
                f"gives no sub-category for {place}, which its label {fields['Label'].iloc[row]} has"
                if shown[row, index]
                else f"gives one for {place}, which its label {fields['Label'].iloc[row]} lacks"
            )
            raise InputError(
                f"subcategories: {self.path}, ID {ids[row]}: {found}; expected exactly one for each class of "
                "the label"
            )
        return numbers


def read_subcategories(path: str | Path) -> SubcategoryTable:
    """Read the table that ``hpa-kit subcategories`` writes: ``ID`` and a column per class.

    Raises:
        InputError: the file is missing or no table, lacks a column, holds an ID twice, or a value is no
            sub-category.
    """
    table = read_table(path, COLUMNS)
    check_ids(table["ID"], path)
    text = table[list(COLUMNS[1:])].to_numpy(dtype=object)
    known = {value: _number(value) for value in pd.unique(text.ravel())}
    numbers = np.array([known[value] for value in text.ravel()], dtype=np.int64).reshape(text.shape)
    bad = np.argwhere(numbers < -1)
    if len(bad):
        row, index = (int(number) for number in bad[0])
        raise InputError(
            f"subcategories: {path}, ID {table['ID'].iloc[row]}: {CLASSES[index].name} is "
            f"{shown(text[row, index])}; expected a whole number from 0, or -1 where the class is absent"
        )
    return SubcategoryTable(Path(path), table["ID"].tolist(), numbers)


def write_subcategories(path: str | Path, ids: Sequence[str], numbers: NDArray[np.int64]) -> None:
    """Write the table, atomically.

    Args:
        path: of the CSV.
        ids: the fields.
        numbers: int64 (fields, 19), as :func:`~hpa_kit.training.assign_subcategories` gives.
    """
    table = pd.DataFrame(numbers, columns=list(COLUMNS[1:]))
    table.insert(0, "ID", list(ids))
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _number(text: str) -> int:
    """A sub-category, −1 for none, −2 for what is neither."""
    text = text.strip()
    if text == "-1":
        return -1
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else -2
