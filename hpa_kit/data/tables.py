"""The competition's tables, every column as text: an ID such as ``1e5`` or ``00123`` is no number."""

import re
import warnings
from pathlib import Path

import pandas as pd

from hpa_kit.classes import format_label, parse_label
from hpa_kit.errors import InputError

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
    _check_ids(table["ID"], path)
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
    _check_ids(table["ID"], path)
    for column in ("ImageWidth", "ImageHeight"):
        for id, size in zip(table["ID"], table[column], strict=True):
            if not re.fullmatch(r" *0*[1-9][0-9]{0,5} *", size):
                raise InputError(
                    f"sample: {path}, ID {id}: {column} is {size!r}; expected a number of pixels above 0"
                )
        table[column] = table[column].astype("int64")
    return table[list(SAMPLE_COLUMNS)]


def read_table(path: str | Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV with every value as the text that stands there; nothing is a number or missing.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        columns: what it must have; others may follow and are kept.

    Raises:
        InputError: the file is missing, empty or no table, or lacks a column.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():  # a row longer than the header only earns a warning, and is cut
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                dtype=object,
                keep_default_na=False,
                na_filter=False,
                index_col=False,
                encoding="utf-8-sig",
            )
    except pd.errors.ParserWarning:
        raise InputError(f"tables: {path} has rows with more values than its header names columns") from None
    except FileNotFoundError:
        raise InputError(
            f"tables: {path} is missing; expected a CSV with the columns {', '.join(columns)}"
        ) from None
    except pd.errors.EmptyDataError:
        raise InputError(
            f"tables: {path} is empty; expected a CSV with the columns {', '.join(columns)}"
        ) from None
    except (OSError, ValueError) as error:  # pandas' parser errors and wrong encodings are ValueErrors
        raise InputError(f"tables: {path} cannot be read as a CSV: {' '.join(str(error).split())}") from None
    table.columns = table.columns.str.strip()
    lacking = [column for column in columns if column not in table.columns]
    if lacking:
        found = ", ".join(table.columns)
        raise InputError(
            f"tables: {path} lacks the column {', '.join(lacking)}; "
            f"expected {', '.join(columns)}, found {found}"
        )
    return table


def _check_ids(ids: pd.Series, path: str | Path) -> None:
    if (ids.str.strip() == "").any():
        row = ids.str.strip().tolist().index("") + 1
        raise InputError(f"tables: {path} has no ID in row {row} below the header")
    twice = ids[ids.duplicated()]
    if len(twice):
        raise InputError(f"tables: {path} holds ID {twice.iloc[0]} more than once; expected one row per ID")
