"""The competition's tables of image labels and of rows to fill."""

from pathlib import Path

import pandas as pd

from hpa_kit.classes import format_label, parse_label
from hpa_kit.tables import check_ids, read_table


def read_labels(path: str | Path) -> pd.DataFrame:
    """Image labels, one row per field, in the file's order.

    Returns:
        Columns ``ID`` (text) and ``Label`` (text; classes rising, each once, such as ``0|5|8``). Other
        columns of the file are left out.

    Raises:
        InputError: the file is missing, empty or no table, lacks a column, holds an ID twice, or a label
            cannot be read; the ID is named.
    """
    table = read_table(path, ("ID", "Label"))
    check_ids(table["ID"], path)
    labels = [
        format_label(parse_label(label, f"labels: {path}, ID {id}"))
        for id, label in zip(table["ID"], table["Label"], strict=True)
    ]
    return pd.DataFrame({"ID": table["ID"], "Label": pd.Series(labels, dtype=object)})


def read_sample(path: str | Path) -> pd.DataFrame:
    """A sample submission: which rows a submission has, in the file's order.

    Returns:
        Columns ``ID`` (text), ``ImageWidth`` and ``ImageHeight`` (int64), ``PredictionString`` (text, may be
        empty).

    Raises:
        InputError: the file is missing, empty or no table, lacks a column, holds an ID twice, or a size is no
            positive whole number; the ID is named.
    """
    # Here, because submissions come with numba, which takes a second to import.
    from hpa_kit.submission import read_submission

    return read_submission(path, "sample")
