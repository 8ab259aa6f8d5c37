"""Cell scores as a file, and the folder of a run of pseudo labels, which is made of it."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.classes import CLASSES
from hpa_kit.config import read_yaml
from hpa_kit.errors import InputError, shown
from hpa_kit.files import atomic_path
from hpa_kit.tables import check_ids, read_table

CLASS_COLUMNS = tuple(location.name for location in CLASSES)
SCORES, FIELDS, SETTINGS, MASKS = "cell_scores.csv", "fields.csv", "settings.yaml", "masks"
LABEL_ROUND = "label_round.txt"
SCORES_HEADER = ",".join(["ID", "cell", *CLASS_COLUMNS]) + "\n"
_DIGITS = "%.6g"

Rows = NDArray[np.float32]


class PseudoLabels(NamedTuple):
    """Scores of the cells of fields, to learn from.

    Attributes:
        scores: float32 (n, 19) in [0, 1] of each field by ID; row i is cell i + 1 of its label map.
        masks: folders of label maps, the first that has a field's being the one that counts.
        soft: whether scores are probabilities to be learnt as they are, or confidences with a threshold.
        seen: the fields that were labelled by members of which some have learnt from them.
    """

    scores: dict[str, Rows]
    masks: tuple[Path, ...]
    soft: bool
    seen: frozenset[str] = frozenset()


def write_cell_scores(path: str | Path, fields: Iterable[tuple[str, NDArray[np.floating]]]) -> None:
    """Write cell scores, atomically: columns ``ID``, ``cell`` (from 1) and one per class by name.

    Args:
        path: the CSV.
        fields: ID and scores (n, 19) of each field, in the order they are written; row i is cell i + 1.
    """
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(SCORES_HEADER)
        file.writelines(cell_rows(id, scores) for id, scores in fields)


def cell_rows(id: str, scores: NDArray[np.floating]) -> str:
    """Write the lines of a field's cells, scores (n, 19), of a table of cell scores."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for cell, row in enumerate(np.asarray(scores).tolist(), start=1):
        writer.writerow([id, cell, *(_DIGITS % value if value else "0" for value in row)])
    return text.getvalue()


def read_cell_scores(path: str | Path) -> pd.DataFrame:
    """Read cell scores.

    Returns:
        Columns ``ID`` (text), ``cell`` (int64) and one per class by name (float64), in the file's order.

    Raises:
        InputError: the file is missing or no such table, a score is no number from 0 to 1, or the cells of a
            field do not count 1, 2, 3 without a gap; the ID is named.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"cell scores: {path} is missing; expected a table that hpa-kit pseudo-labels wrote")
    numbers: dict[str, Any] = {"cell": np.int64} | dict.fromkeys(CLASS_COLUMNS, np.float64)
    table = read_table(path, ("ID", *numbers), numbers)
    values = table[list(CLASS_COLUMNS)].to_numpy()
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)).all(axis=1))
    if len(bad):
        raise InputError(
            f"cell scores: {path}, ID {table['ID'].iloc[bad[0]]}: a score is outside 0 to 1, or no number"
        )
    wrong = table["cell"] != table.groupby("ID", sort=False).cumcount() + 1
    if wrong.any():
        first = table[wrong].iloc[0]
        raise InputError(
            f"cell scores: {path}, ID {first['ID']}: cell {first['cell']} is out of order; expected 1, 2, …"
        )
    return table[["ID", *numbers]]


def read_pseudo_labels(folder: str | Path, masks: str | Path | None = None) -> PseudoLabels:
    """Read what ``hpa-kit pseudo-labels`` wrote.

    Args:
        folder: holds ``cell_scores.csv``, ``fields.csv`` (all fields, those without cells among them),
            ``settings.yaml`` and, where cells had to be found, ``masks/``.
        masks: folder of the label maps, where it is no longer the one that the settings name.

    Raises:
        InputError: something is missing or damaged, or the run has not ended.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"pseudo labels: {folder} is no folder; expected one of hpa-kit pseudo-labels")
    if not (folder / SCORES).is_file() and (folder / SETTINGS).is_file():
        raise InputError(
            f"pseudo labels: {folder} has no {SCORES}: the run has not ended, or lacks shards; go on with it"
        )
    table = read_cell_scores(folder / SCORES)
    settings = read_yaml(folder / SETTINGS)
    scores = _by_id(table)
    fields = _listed(folder / FIELDS, scores)
    for id in fields["ID"]:
        scores.setdefault(id, np.zeros((0, len(CLASS_COLUMNS)), np.float32))
    seen = frozenset(fields["ID"][fields["unseen"] == "0"]) if "unseen" in fields else frozenset[str]()
    places = _mask_folders(folder, settings, masks)
    return PseudoLabels(scores, places, soft=settings.get("labels") == "soft", seen=seen)


def read_label_round(folder: str | Path) -> int:
    """Which label round runs are of that learn from a folder: 1 where its members learnt image labels.

    Folders of versions that did not count rounds say nothing and are taken for those of a first round.

    Raises:
        InputError: what the folder says is no round.
    """
    path = Path(folder) / LABEL_ROUND
    if not path.is_file():
        return 1
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not (text.isascii() and text.isdigit()) or int(text[:9]) < 1:
        raise InputError(f"pseudo labels: {path} holds {shown(text)}; expected a number from 1 on")
    return int(text[:9])


def _by_id(table: pd.DataFrame) -> dict[str, Rows]:
    values = table[list(CLASS_COLUMNS)].to_numpy(dtype=np.float32)
    rows = table.groupby("ID", sort=False).indices
    return {str(id): values[places] for id, places in rows.items()}


def _listed(path: Path, scores: Mapping[str, Rows]) -> pd.DataFrame:
    """All fields of the run, checked against the table of cell scores."""
    fields = read_table(path, ("ID", "cells"))
    check_ids(fields["ID"], path)
    for id, cells in zip(fields["ID"], fields["cells"], strict=True):
        found = len(scores.get(id, ()))
        if cells != str(found):
            raise InputError(f"pseudo labels: {path} says ID {id} has {cells} cells; {SCORES} has {found}")
    return fields


def _mask_folders(folder: Path, settings: Mapping[str, Any], masks: str | Path | None) -> tuple[Path, ...]:
    own = folder / MASKS
    named = masks if masks is not None else settings.get("masks")
    found = [own] if own.is_dir() else []
    if named is not None:
        from hpa_kit.archives import is_archive

        if not (Path(named).is_dir() or is_archive(Path(named))):
            raise InputError(
                f"pseudo labels: {folder} counts the cells of {named}, which is no folder; give masks"
            )
        found.append(Path(named))
    if not found:
        raise InputError(f"pseudo labels: {own} is missing; give masks, the folder of the label maps")
    return tuple(found)
