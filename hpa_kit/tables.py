"""CSV tables, every value as the text that stands there: an ID such as ``1e5`` or ``00123`` is no number."""

import csv
import io
import warnings
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hpa_kit.errors import InputError

# What may stand between the values of a row; the comma where nothing speaks for another.
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# What others put there, of which one cannot tell a value from two: labels are joined by |.
_NOT_READ = {"|": "'|'", " ": "blanks", ":": "colons"}
_MAX_HEADER = 2**16


def read_table(
    path: str | Path, columns: tuple[str, ...], numbers: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Read a CSV as text; nothing is a number, nothing is missing.

    Args:
        path: the file, UTF-8 with or without BOM, commas, semicolons or tabs between its values.
        columns: what it must have; others may follow and are kept.
        numbers: {column: dtype} of those that are no text after all: text needs ten times the memory.

    Raises:
        InputError: the file is missing, empty or no table, lacks a column, or a number is none.
    """
    path = Path(path)
    wanted = f"expected a CSV with the columns {', '.join(columns)}"
    separator = find_separator(path, columns)
    try:
        with warnings.catch_warnings():  # a row longer than the header only earns a warning, and is cut
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                sep=separator,
                dtype=defaultdict(lambda: object, numbers or {}),
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
        raise InputError(
            f"tables: {path} lacks the column {', '.join(lacking)}; "
            f"expected {', '.join(columns)}, found {_found(path, columns, separator, table)}"
        )
    try:
        return table.astype(dict(numbers or {}))  # where blanks around a name have hidden it from pandas
    except (ValueError, OverflowError) as error:
        raise InputError(f"tables: {path} cannot be read as a CSV: {' '.join(str(error).split())}") from None


def find_separator(path: str | Path, columns: tuple[str, ...]) -> str:
    """What stands between the values of a table, by its header: the first of :data:`SEPARATORS` by which it
    names most of the columns; a comma where it names none, or cannot be read.

    Args:
        path: the file.
        columns: what it should have.
    """
    header = _header(path)
    return max(SEPARATORS, key=lambda separator: _named(header, columns, separator))


def _found(path: Path, columns: tuple[str, ...], separator: str, table: pd.DataFrame) -> str:
    """The columns of a table that lacks some, and what stands between them where that explains it."""
    header = _header(path)
    for other, name in _NOT_READ.items():
        if _named(header, columns, other) == len(columns) > 1:
            return f"{header.strip()}, with {name} between them; put commas, semicolons or tabs there"
    between = "" if separator == "," else f" (with {SEPARATORS[separator]} between them)"
    return ", ".join(table.columns) + between


def _header(path: str | Path) -> str:
    """The first line that is not blank, or nothing where there is none."""
    try:
        with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
            return file.read(_MAX_HEADER).lstrip("\n").partition("\n")[0]
    except OSError:
        return ""


def _named(header: str, columns: tuple[str, ...], separator: str) -> int:
    """How many of the columns a header names, read by a separator."""
    try:
        names = next(csv.reader(io.StringIO(header), delimiter=separator), [])
    except csv.Error:
        return 0
    return len(set(columns) & {name.strip() for name in names})


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
