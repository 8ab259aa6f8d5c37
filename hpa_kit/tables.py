"""CSV tables, every value as the text that stands there: an ID such as ``1e5`` or ``00123`` is no number.

And tables for people, as text.
"""

import csv
import io
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hpa_kit.errors import InputError, one_line

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
        path: the file, UTF-8 with or without BOM; commas, semicolons or tabs between its values.
        columns: what it must have; others may follow and are kept.
        numbers: {column: dtype} of those that are no text after all: text needs ten times the memory.

    Raises:
        InputError: the file is missing, empty or no table, lacks a column, or a number is none.
    """
    return read_separated(path, columns, numbers)[0]


def read_separated(
    path: str | Path, columns: tuple[str, ...], numbers: Mapping[str, Any] | None = None
) -> tuple[pd.DataFrame, str]:
    """Read a table as :func:`read_table` does, and what stands between its values: the first of
    :data:`SEPARATORS` by which its header names most of the columns, a comma where it names none.
    """
    path = Path(path)
    wanted = f"expected a CSV with the columns {', '.join(columns)}"
    try:
        with io.BufferedReader(io.FileIO(path), _MAX_HEADER) as file, warnings.catch_warnings():
            header = _header(file.peek())
            separator = max(SEPARATORS, key=lambda one: _named(header, columns, one))
            # A row longer than the header only earns a warning, and is cut.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path if path.is_file() else file,  # by its name it may be packed; a pipe is read once
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
        raise InputError(f"tables: {path} cannot be read as a CSV: {one_line(error)}") from None
    table.columns = table.columns.str.strip()
    lacking = [column for column in columns if column not in table.columns]
    if lacking:
        raise InputError(
            f"tables: {path} lacks the column {', '.join(lacking)}; "
            f"expected {', '.join(columns)}, found {_found(header, columns, separator, table)}"
        )
    # Blanks around a name hide it from pandas.
    missed = {name: dtype for name, dtype in (numbers or {}).items() if table[name].dtype != dtype}
    try:
        return (table.astype(missed) if missed else table), separator
    except (ValueError, OverflowError) as error:
        raise InputError(f"tables: {path} cannot be read as a CSV: {one_line(error)}") from None


def _found(header: str, columns: tuple[str, ...], separator: str, table: pd.DataFrame) -> str:
    """The columns of a table that lacks some, and what stands between them where that explains it."""
    for other, name in _NOT_READ.items():
        if _named(header, columns, other) == len(columns) > 1:
            return f"{header.strip()}, with {name} between them; put commas, semicolons or tabs there"
    between = "" if separator == "," else f" (with {SEPARATORS[separator]} between them)"
    return ", ".join(table.columns) + between


def _header(start: bytes) -> str:
    """The first line that is not blank."""
    lines = start.decode("utf-8-sig", errors="replace").splitlines()
    return next((line for line in lines if line.strip()), "")


def _named(header: str, columns: tuple[str, ...], separator: str) -> int:
    """How many of the columns a header names, read by a separator."""
    try:
        names = next(csv.reader([header], delimiter=separator), [])
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


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay a table out as text: columns as wide as their content, the first left, the others right aligned."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [lines[0], rule, *lines[1:]]
    )
