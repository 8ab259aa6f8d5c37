"""The submission table: ``class confidence mask`` triples in, and out again."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hpa_kit.classes import N_CLASSES
from hpa_kit.errors import InputError, shown
from hpa_kit.files import atomic_path
from hpa_kit.tables import check_ids, read_table

COLUMNS = ("ID", "ImageWidth", "ImageHeight", "PredictionString")

# Above it a confidence is written as more than 1; below, rounding errors of sums are not.
_MOST = 1 + 4e-7


class Detections(NamedTuple):
    """What a prediction string says: one entry per cell and class."""

    classes: list[int]
    confidences: list[float]
    masks: list[str]


def prediction_string(scores: ArrayLike, masks: Mapping[int, str], floor: float = 0.0) -> str:
    """Write one field's cell scores as a prediction string.

    Args:
        scores: (n_cells, 19); row i belongs to cell i + 1.
        masks: {cell number: mask string}; a cell without a mask is left out.
        floor: scores up to here are left out.

    Returns:
        ``class confidence mask`` triples, cells rising, classes rising; empty where nothing is left.

    Raises:
        InputError: another shape, or a score that is not finite or above 1.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != N_CLASSES:
        raise InputError(f"scores: expected shape (n_cells, {N_CLASSES}), found {array.shape}")
    if not np.isfinite(array).all():
        cell, index = np.argwhere(~np.isfinite(array))[0]
        raise InputError(
            f"scores: cell {cell + 1}, class {index} is {array[cell, index]}; expected a finite number"
        )
    if (array > _MOST).any():
        cell, index = np.argwhere(array > _MOST)[0]
        raise InputError(
            f"scores: cell {cell + 1}, class {index} is {array[cell, index]}; expected a confidence of 0 to 1"
        )
    return " ".join(
        f"{index} {array[row, index]:.7g} {masks[row + 1]}"
        for row, index in np.argwhere(array > floor).tolist()
        if row + 1 in masks
    )


def truth_string(cell_classes: Mapping[int, Iterable[int]], masks: Mapping[int, str]) -> str:
    """Write the truth of one field: ``class mask`` pairs; a cell of several classes repeats its mask.

    Args:
        cell_classes: {cell number: its classes}.
        masks: {cell number: mask string}.
    """
    return " ".join(
        f"{index} {masks[cell]}"
        for cell, classes in cell_classes.items()
        for index in classes
        if cell in masks
    )


def write_submission(path: str | Path, rows: pd.DataFrame | Iterable[tuple[str, int, int, str]]) -> None:
    """Write a submission, atomically.

    Args:
        path: the CSV.
        rows: a table with the columns of :data:`COLUMNS`, or tuples in their order.

    Raises:
        InputError: the table lacks a column, an ID is no text or stands twice, a size is no whole number
            above 0, or a prediction is no text.
    """
    if isinstance(rows, pd.DataFrame):
        lacking = [column for column in COLUMNS if column not in rows.columns]
        if lacking:
            raise InputError(
                f"submission: the table lacks {', '.join(lacking)}; expected {', '.join(COLUMNS)}"
            )
        rows = rows[list(COLUMNS)].itertuples(index=False, name=None)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_checked(rows))


def _checked(rows: Iterable[tuple[str, int, int, str]]) -> Iterator[tuple[str, int, int, str]]:
    """The rows as they are; the first that no reader would get back as it was raises."""
    seen: set[str] = set()
    for id, width, height, text in rows:
        if not isinstance(id, str) or not id.strip():
            raise InputError(f"submission: ID {id!r} is no text; read IDs as text, or 00123 becomes 123")
        if id in seen:
            raise InputError(f"submission: ID {id} stands twice; expected one row per ID")
        seen.add(id)
        for name, side in (("ImageWidth", width), ("ImageHeight", height)):
            if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 1:
                raise InputError(f"submission: ID {id}: {name} is {side!r}; expected pixels, an int above 0")
        if not isinstance(text, str):
            raise InputError(f"submission: ID {id}: PredictionString is {text!r}; expected text, '' for none")
        yield id, width, height, text


def read_submission(path: str | Path, what: str = "submission") -> pd.DataFrame:
    """Read a submission, a sample of one or a truth table.

    Args:
        path: the CSV.
        what: the first word of an error about a row.

    Returns:
        Columns ``ID`` (text), ``ImageWidth``, ``ImageHeight`` (int64), ``PredictionString`` (text, may be
        empty).

    Raises:
        InputError: the file is missing or no such table, an ID stands twice, or a size is no whole number.
    """
    table = read_table(path, COLUMNS)
    check_ids(table["ID"], path)
    for column in ("ImageWidth", "ImageHeight"):
        for field, size in zip(table["ID"], table[column], strict=True):
            if parse_size(size) is None:
                where = f"{what}: {path}, ID {field}"
                raise InputError(f"{where}: {column} is {shown(size)}; expected a number of pixels above 0")
        table[column] = table[column].astype("int64")
    return table[list(COLUMNS)]


def parse_size(text: str) -> int | None:
    """Read a side in pixels; None where the text is no whole number above 0."""
    digits = text.strip().lstrip("0")
    return int(digits) if _is_number(digits, 6) else None


def parse_prediction(text: str) -> Detections:
    """Read a prediction string.

    Raises:
        InputError: what is wrong with it; the place is the caller's to add.
    """
    tokens = text.split()
    if len(tokens) % 3:
        raise InputError(f"{len(tokens)} words; expected class, confidence and mask in threes")
    confidences = [_confidence(token) for token in tokens[1::3]]
    return Detections([_location_class(token) for token in tokens[::3]], confidences, tokens[2::3])


def parse_truth(text: str) -> Detections:
    """Read a truth string: pairs of class and mask; every confidence is 1.

    Raises:
        InputError: as :func:`parse_prediction`.
    """
    tokens = text.split()
    if len(tokens) % 2:
        raise InputError(f"{len(tokens)} words; expected class and mask in pairs")
    classes = [_location_class(token) for token in tokens[::2]]
    return Detections(classes, [1.0] * len(classes), tokens[1::2])


def _is_number(text: str, most_digits: int) -> bool:
    # Python refuses to convert thousands of digits, so their count is looked at first.
    return len(text) <= most_digits and text.isascii() and text.isdigit()


def _location_class(token: str) -> int:
    if _is_number(token, 2) and int(token) < N_CLASSES:
        return int(token)
    raise InputError(f"{token[:20]!r} is no location class; expected 0 to {N_CLASSES - 1}")


def _confidence(token: str) -> float:
    try:
        confidence = float(token) if token.isascii() and "_" not in token else math.nan
    except ValueError:
        confidence = math.nan
    if not math.isfinite(confidence):
        raise InputError(f"confidence {token[:20]!r} is no finite number")
    return confidence
