"""CSV tables, every value as the text that stands there: an ID such as ``1e5`` or ``00123`` is no number."""

import warnings
from pathlib import Path

import pandas as pd

from hpa_kit.errors import InputError


def read_table(path: str | Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a CSV as text; nothing is a number, nothing is missing.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        columns: what it must have; others may follow and are kept.

    Raises:
        InputError: the file is missing, empty or no table, or lacks a column.
    """
    path = Path(path)
    wanted = f"expected a CSV with the columns {', '.join(columns)}"
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
        raise InputError(
            f"tables: {path} has rows with more values than its header names; {wanted}"
        ) from None
    except FileNotFoundError:
        raise InputError(f"tables: {path} is missing; {wanted}") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"tables: {path} is empty; {wanted}") from None
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


def check_ids(ids: pd.Series, path: str | Path) -> None:
    """Refuse IDs that are empty or stand twice.

    Raises:
        InputError: naming the row or the ID.
    """
    if (ids.str.strip() == "").any():
        row = ids.str.strip().tolist().index("") + 1
        raise InputError(f"tables: {path} has no ID in row {row} below the header")
    twice = ids[ids.duplicated()]
    if len(twice):
        raise InputError(f"tables: {path} holds ID {twice.iloc[0]} more than once; expected one row per ID")
