"""Fields of the public Human Protein Atlas: their table, and which of them to take."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.classes import format_label, locations_to_labels, parse_label
from hpa_kit.errors import InputError, shown
from hpa_kit.tables import check_ids, read_table

# The cell lines that occur in the competition; of its training fields it does not say which is which.
CELL_LINES = (
    "A-431", "A549", "EFO-21", "HAP1", "HEK 293", "HUVEC TERT2", "HaCaT", "HeLa", "PC-3", "RH-30",
    "RPTEC TERT1", "SH-SY5Y", "SK-MEL-30", "SiHa", "U-2 OS", "U-251 MG", "hTCEpi",
)  # fmt: skip
PLACEHOLDER_LINE = "A-431"
FREQUENT_LINES = ("U-2 OS", "A-431", "U-251 MG")
MODES = range(-1, 7)
COLUMNS = ("ID", "Label", "Cellline", "isin_dataset", "is_non_rare", "file_ext", "dir")

_KINDS = {"only": "Only", "multi": "Multi", "rare": "Rare"}
_TRUE, _FALSE = ("true", "t", "yes", "1", "1.0"), ("false", "f", "no", "0", "0.0", "")


def read_external(path: str | Path) -> pd.DataFrame:
    """Read the table of external fields, such as ``publichpa-withcellline_processed.csv``, in its order.

    The file needs the columns ``ID``, ``Cellline``, ``isin_dataset`` and ``Label_idx`` (classes such as
    ``0|16``) or, in its place, ``Label`` with HPA's names of locations: rows without a name that the
    competition has are left out there, and it is said how many. Further columns are passed over.

    Returns:
        ``ID`` (text), ``Label`` (classes rising, each once), ``Cellline``, ``isin_dataset`` (bool),
        ``is_non_rare`` (Only, Multi or Rare; from the label where the file has none), ``file_ext`` and
        ``dir`` (its last part; both empty where the file has none). A row whose ID stood before is left out
        with a warning.

    Raises:
        InputError: the file is missing, empty or no table, lacks a column, or a value cannot be read; the ID
            is named.
    """
    table = read_table(path, ("ID", "Cellline", "isin_dataset"))
    for column in ("is_non_rare", "file_ext", "dir"):
        if column not in table:
            table[column] = ""
    for column in ("Cellline", "isin_dataset", "is_non_rare", "file_ext", "dir"):
        table[column] = table[column].str.strip()
    table["ID"] = table["ID"].str.strip()
    table = _without_repeats(_with_labels(table, path), path)
    check_ids(table["ID"], path)
    table["isin_dataset"] = _each(table, "isin_dataset", _truth, path).astype(bool)
    stated = _each(table, "is_non_rare", _kind, path)
    table["is_non_rare"] = stated.where(stated != "", table["Label"].map(kind_of_label))
    table["dir"] = table["dir"].map(lambda text: PurePosixPath(text.replace("\\", "/")).name)
    return table[list(COLUMNS)].reset_index(drop=True)


def sample_external(table: pd.DataFrame, mode: int, seed: int = 0) -> pd.DataFrame:
    """Sample the external fields to train with, by the 15th place's modes.

    Args:
        table: as :func:`read_external` gives.
        mode: -1 all; 0 ``isin_dataset``; 1 that or Rare; 2 that or Rare or Multi, without the label
            ``0|16``; 3 mode 1 and 30 % of the remaining ``0|16``; 4 mode 0 or Rare or Multi; 5 mode 3 and
            30 % of the remaining Only; 6 Rare only. Of the 30 % the rare cell lines, all but
            :data:`FREQUENT_LINES`, are taken first.
        seed: of the drawing in modes 3 and 5; the order of the rows plays no part.

    Returns:
        The rows taken, in the order of ``table``.

    Raises:
        InputError: there is no such mode.
    """
    if mode not in MODES:
        raise InputError(f"external: there is no mode {mode}; expected {MODES[0]} to {MODES[-1]}")
    there = table["isin_dataset"].to_numpy(dtype=bool)
    plain = (table["Label"] == "0|16").to_numpy()
    rare, multi, only = ((table["is_non_rare"] == kind).to_numpy() for kind in ("Rare", "Multi", "Only"))
    taken = {
        -1: np.ones(len(table), dtype=bool),
        0: there,
        1: there | rare,
        2: (there | rare | multi) & ~plain,
        3: there | rare,
        4: there | rare | multi,
        5: there | rare,
        6: rare,
    }[mode]
    if mode in (3, 5):
        taken = taken | _three_tenths(table, plain & ~taken, seed)
    if mode == 5:
        taken = taken | _three_tenths(table, only & ~taken, seed)
    return table[taken]


def kind_of_label(label: str) -> str:
    """Tell a label's kind: Only (0 or 16, no other), Multi (0 or 16 beside others) or Rare (neither)."""
    classes = set(label.split("|"))
    if label in ("0", "16"):
        return "Only"
    return "Multi" if classes & {"0", "16"} else "Rare"


def is_competition_line(lines: pd.Series) -> NDArray[np.bool_]:
    """Tell which cell lines are among the competition's 17; ``U2OS`` and ``U-2 OS`` are the same."""
    return _is_one_of(lines, CELL_LINES)


def _is_one_of(lines: pd.Series, names: tuple[str, ...]) -> NDArray[np.bool_]:
    known = {_bare(name) for name in names}
    return lines.map({line: _bare(line) in known for line in lines.unique()}).to_numpy(dtype=bool)


def _bare(line: str) -> str:
    """A cell line's letters and digits: HPA wrote the others in several ways."""
    return re.sub(r"[\W_]", "", line).casefold()


def _three_tenths(table: pd.DataFrame, remaining: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Draw 30 % of the remaining rows, those of rare cell lines first."""
    rows = np.flatnonzero(remaining)
    rows = rows[np.argsort(table["ID"].to_numpy(dtype=object)[rows], kind="stable")]
    frequent = _is_one_of(table["Cellline"].iloc[rows], FREQUENT_LINES)
    first, then = (
        np.random.default_rng(seed).permutation(part) for part in (rows[~frequent], rows[frequent])
    )
    drawn = np.zeros(len(table), dtype=bool)
    drawn[np.concatenate([first, then])[: len(rows) * 3 // 10]] = True
    return drawn


def _with_labels(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """The table with labels as classes, from ``Label_idx`` or else from names."""
    if "Label_idx" in table:
        classes = _each(table, "Label_idx", lambda text, where: format_label(parse_label(text, where)), path)
        return table.assign(Label=classes)
    if "Label" not in table:
        raise InputError(
            f"external: {path} lacks the column Label_idx (classes such as 0|16), and Label (HPA's names); "
            f"found {', '.join(table.columns)}"
        )
    labels, unknown = locations_to_labels(table["Label"])
    if unknown:
        listed = ", ".join(f"{name} {count}" for name, count in unknown.most_common(10))
        warnings.warn(f"external: {path}: locations that are no class are dropped: {listed}", stacklevel=3)
    table = table.assign(Label=labels)
    known = table["Label"] != ""
    if not known.all():
        warnings.warn(
            f"external: {path}: {(~known).sum()} of {len(table)} rows have no location that is a class; "
            "left out",
            stacklevel=3,
        )
    return table[known]


def _without_repeats(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    again = table["ID"].duplicated() & (table["ID"] != "")
    if again.any():
        example = table["ID"][again].iloc[0]
        warnings.warn(
            f"external: {path}: {again.sum()} rows have an ID that stood before, such as {example}; left out",
            stacklevel=3,
        )
    return table[~again]


def _each(table: pd.DataFrame, column: str, read: Callable[[str, str], Any], path: str | Path) -> pd.Series:
    """A column read value by value, each different value once: there are few."""
    firsts = table[~table[column].duplicated()]
    known = {
        text: read(text, f"external: {path}, ID {id}")
        for id, text in zip(firsts["ID"], firsts[column], strict=True)
    }
    return table[column].map(known)


def _truth(text: str, where: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise InputError(f"{where}: isin_dataset is {shown(text)}; expected True or False")
    return text.lower() in _TRUE


def _kind(text: str, where: str) -> str:
    if text and text.lower() not in _KINDS:
        raise InputError(f"{where}: is_non_rare is {shown(text)}; expected Only, Multi or Rare")
    return _KINDS.get(text.lower(), "")
