"""Multi-label folds: made once from the image labels, stored, and the same ever after."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.classes import CLASSES, multi_hot, parse_label
from hpa_kit.data.external import is_competition_line
from hpa_kit.errors import InputError, shown
from hpa_kit.files import atomic_path
from hpa_kit.tables import read_table

COLUMNS = ("ID", "Label", "fold")


def make_folds(labels: pd.DataFrame, n_folds: int, seed: int) -> pd.DataFrame:
    """Divide fields into folds that hold every class in like shares.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011), the implementation of
    iterative-stratification. The order of the rows plays no part. Fewer fields than folds make fewer folds; a
    ``UserWarning`` says so, and another names the classes that are too rare to be in every fold.

    Args:
        labels: columns ``ID`` and ``Label``, as :func:`hpa_kit.data.read_labels` gives. It may have two more,
            as :func:`hpa_kit.data.labelled_fields` gives: ``Cellline``, by which fields of other lines than
            the competition's 17 get fold -1, which always trains and never validates; and ``External``
            (bool): those fields are divided by themselves, so that the competition's have the folds that they
            have without them.
        n_folds: how many, 1 or more; one fold holds everything.
        seed: of the shuffling.

    Returns:
        Columns ``ID``, ``Label`` and ``fold`` (int64, from 0, or -1), in the order of ``labels``.

    Raises:
        InputError: there is no field to divide, fewer than one fold is asked for, or a label cannot be read.
    """
    competition, external = _parts(labels)
    n_folds = _possible_folds(len(competition), n_folds)
    hot = multi_hot(
        parse_label(label, f"labels: ID {id}")
        for id, label in zip(labels["ID"], labels["Label"], strict=True)
    )
    folds = np.full(len(labels), -1, dtype=np.int64)
    for part in (competition, external):
        # In the order of the IDs, so that the same fields get the same folds however their table is sorted.
        order = part[np.argsort(labels["ID"].to_numpy(dtype=object)[part], kind="stable")]
        folds[order] = _stratify(hot[order], min(n_folds, len(order)), seed)
    _say_rare(hot, folds, n_folds)
    return pd.DataFrame({"ID": labels["ID"].to_numpy(), "Label": labels["Label"].to_numpy(), "fold": folds})


def find_folds(
    path: str | Path | None,
    labels: pd.DataFrame,
    n_folds: int,
    seed: int,
    source: str | Path | None = None,
) -> pd.DataFrame:
    """Tell the folds of a run: stored ones, else those that another run made, else new ones; write nothing.

    Stored folds are never changed behind the user's back: a field that moved from training to validation
    would make every later score too good. So a file that does not fit is an error; deleting it makes new
    folds. The seed counts only where folds are made.

    With another run's folds both runs validate on the same fields. Fields that it lacks get fold -1: nobody
    validates on them, so they are always learnt from; a ``UserWarning`` counts them.

    Args:
        path: the run's CSV with columns ``ID``, ``Label``, ``fold``, which may be missing; None where there
            is none.
        labels: columns ``ID`` and ``Label``; the same IDs as in the file, in any order.
        n_folds: how many.
        seed: of the shuffling.
        source: another run's CSV, or its folder.

    Returns:
        Columns ``ID``, ``Label`` (of ``labels``) and ``fold`` (int64), in the order of ``labels``.

    Raises:
        InputError: as :func:`make_folds`; a file holds other fields or another number of folds, or is no
            table of folds; or ``source`` is missing.
    """
    if path is not None and Path(path).exists():
        stored = _read_folds(Path(path))
        _check_fit(Path(path), stored, labels, n_folds)
    elif source is not None:
        stored = _shared_folds(Path(source), labels, n_folds)
    else:
        return make_folds(labels, n_folds, seed)
    folds = stored.loc[labels["ID"]].to_numpy(dtype=np.int64)
    return pd.DataFrame({"ID": labels["ID"].to_numpy(), "Label": labels["Label"].to_numpy(), "fold": folds})


def write_folds(path: str | Path, folds: pd.DataFrame) -> None:
    """Store what :func:`find_folds` told, for itself."""
    with atomic_path(path) as temporary:
        folds.to_csv(temporary, index=False, lineterminator="\n")


def load_folds(path: str | Path, labels: pd.DataFrame, n_folds: int, seed: int) -> pd.DataFrame:
    """Find folds as :func:`find_folds` does without another run, and store those that are made.

    Args, returns and raises as there.
    """
    folds = find_folds(path, labels, n_folds, seed)
    if not Path(path).exists():
        write_folds(path, folds)
    return folds


def take_folds(path: str | Path, source: str | Path, labels: pd.DataFrame) -> None:
    """Store folds that another run made, so that both validate on the same fields; see :func:`find_folds`.

    Args:
        path: the CSV to write.
        source: the other run's CSV, or its folder.
        labels: columns ``ID`` and ``Label``.

    Raises:
        InputError: the source is missing or no table of folds, or knows none of the fields.
    """
    folds = _shared_folds(Path(source), labels, None).loc[labels["ID"]].to_numpy(dtype=np.int64)
    write_folds(path, labels[["ID", "Label"]].assign(fold=folds))


def _parts(labels: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the competition and rows of external fields to divide; one without the other is the first."""
    external = (
        labels["External"].to_numpy(dtype=bool) if "External" in labels else np.zeros(len(labels), bool)
    )
    divided = is_competition_line(labels["Cellline"]) if "Cellline" in labels else np.ones(len(labels), bool)
    parts = np.flatnonzero(divided & ~external), np.flatnonzero(divided & external)
    return parts if len(parts[0]) else (parts[1], parts[0])


def _possible_folds(n_fields: int, n_folds: int) -> int:
    if n_fields == 0:
        raise InputError("folds: there is no field to divide; expected labels of one field or more")
    if n_folds < 1:
        raise InputError(f"folds: {n_folds} folds cannot be made; expected 1 or more")
    if n_fields < n_folds:
        warnings.warn(f"folds: {n_folds} folds asked for, {n_fields} made: one per field", stacklevel=3)
    return min(n_folds, n_fields)


def _stratify(hot: NDArray[np.float32], n_folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each row of a multi-hot table."""
    folds = np.zeros(len(hot), dtype=np.int64)
    if n_folds <= 1:
        return folds
    # Here, because scikit-learn takes a second to import.
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    splitter: Any = MultilabelStratifiedKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    for fold, (_, validation) in enumerate(splitter.split(hot, hot.astype(np.int64))):
        folds[validation] = fold
    return folds


def _say_rare(hot: NDArray[np.float32], folds: NDArray[np.int64], n_folds: int) -> None:
    """Name every class that occurs, but not in every fold: its validation says nothing there."""
    rare = []
    for place in CLASSES:
        with_class = folds[hot[:, place.index] > 0]
        lacking = sorted(set(range(n_folds)) - set(with_class.tolist()))
        if len(with_class) and lacking:
            listed = ", ".join(map(str, lacking))
            shown = f"{len(with_class)} of {len(folds)} fields"
            rare.append(f"{place.index} {place.name} ({shown}, none in fold {listed})")
    if rare:
        warnings.warn(f"folds: classes too rare for every fold: {'; '.join(rare)}", stacklevel=3)


def _read_folds(path: Path) -> pd.Series:
    """Fold by ID."""
    table = read_table(path, COLUMNS)
    for id, fold in zip(table["ID"], table["fold"], strict=True):
        if not re.fullmatch(r"-?[0-9]{1,4}", fold):
            raise InputError(f"folds: {path}, ID {id}: fold is {shown(fold)}; expected a whole number")
    if table["ID"].duplicated().any():
        twice = table["ID"][table["ID"].duplicated()].iloc[0]
        raise InputError(f"folds: {path} holds ID {twice} more than once; delete it to make new folds")
    return pd.Series(table["fold"].astype("int64").to_numpy(), index=table["ID"])


def _shared_folds(source: Path, labels: pd.DataFrame, n_folds: int | None) -> pd.Series:
    """Fold by ID of another run's folds, -1 of fields that it lacks."""
    file = source / "folds.csv" if source.is_dir() else source
    stored = _read_folds(file)
    known = labels["ID"].isin(stored.index).to_numpy()
    if not known.any():
        raise InputError(
            f"folds: {file} knows none of the {len(labels)} fields; expected folds of the same data"
        )
    shared = stored.reindex(labels["ID"]).fillna(-1).astype(np.int64)
    if n_folds is not None:
        _check_number(file, shared, labels, n_folds, "give as many folds, or folds of another run")
    if not known.all():
        example = labels["ID"][~known].iloc[0]
        warnings.warn(
            f"folds: {file} lacks {(~known).sum()} of {len(labels)} fields, such as {example}; they are "
            "always learnt from",
            stacklevel=3,
        )
    return shared


def _check_fit(path: Path, stored: pd.Series, labels: pd.DataFrame, n_folds: int) -> None:
    new = labels["ID"][~labels["ID"].isin(stored.index)]
    gone = stored.index[~stored.index.isin(labels["ID"])]
    if len(new) or len(gone):
        example = new.iloc[0] if len(new) else gone[0]
        raise InputError(
            f"folds: {path} was made for other fields: {len(new)} are not in it, {len(gone)} are in it only "
            f"(such as {example}); delete it to make new folds"
        )
    _check_number(path, stored, labels, n_folds, "delete it to make new folds")


def _check_number(path: Path, folds: pd.Series, labels: pd.DataFrame, n_folds: int, what_to_do: str) -> None:
    found, expected = int(folds.max()) + 1, _possible_folds(len(_parts(labels)[0]), n_folds)
    if found != expected:
        raise InputError(f"folds: {path} holds {found} folds; expected {expected}; {what_to_do}")
