"""The competition's tables of image labels and of rows to fill."""

import re
from pathlib import Path

import pandas as pd

from hpa_kit.classes import format_label, parse_label
from hpa_kit.errors import InputError, shown
from hpa_kit.tables import check_ids, read_table

SAMPLE_COLUMNS = ("ID", "ImageWidth", "ImageHeight", "PredictionString")


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
    table = read_table(path, SAMPLE_COLUMNS)
    check_ids(table["ID"], path)
    for column in ("ImageWidth", "ImageHeight"):
        for id, size in zip(table["ID"], table[column], strict=True):
            if not re.fullmatch(r" *0*[1-9][0-9]{0,5} *", size):
                raise InputError(
                    f"sample: {path}, ID {id}: {column} is {shown(size)}; expected a number of pixels above 0"
                )
        table[column] = table[column].astype("int64")
    return table[list(SAMPLE_COLUMNS)]
