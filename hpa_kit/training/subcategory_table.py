"""The table of sub-categories: a CSV with the sub-category of each field in each class it shows."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.classes import CLASSES, multi_hot, parse_label
from hpa_kit.config import SubcategoriesSettings
from hpa_kit.data import read_external, read_labels
from hpa_kit.errors import InputError, shown
from hpa_kit.files import atomic_path, make_folder_of
from hpa_kit.tables import check_ids, read_table
from hpa_kit.training.features_file import read_features
from hpa_kit.training.subcategories import assign_subcategories

log = logging.getLogger(__name__)

COLUMNS = ("ID", *(place.name for place in CLASSES))
_MOST = 9999  # sub-categories of a class


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


def _number(text: str) -> int:
    """A sub-category, −1 for none, −2 for what is neither."""
    text = text.strip()
    if text == "-1":
        return -1
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= _MOST else -2
