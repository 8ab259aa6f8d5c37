"""The experiment log: all runs and checkpoints below a folder, with their settings and scores."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from hpa_kit.config import PseudoLabelSettings, TrainSettings, make_settings, read_yaml, to_yaml
from hpa_kit.errors import InputError, shown
from hpa_kit.files import atomic_path
from hpa_kit.tables import text_table
from hpa_kit.training.checkpoint import SETTINGS, read_checkpoint, settings_of

SCORES = ("epoch", "val_loss", "macro_f1")
_FIRST = ("run", "checkpoint", *SCORES)
# What settings stand for that earlier versions did not keep.
_STANDS_FOR = {"label_round": 0}
_HIDDEN = frozenset({"tensorboard", "__pycache__"})


class ExperimentLog(NamedTuple):
    """What :func:`list_runs` found.

    Attributes:
        table: a row per checkpoint, and one per run that has none yet: ``run`` (its folder below the one that
            was asked for), ``checkpoint`` (file name, empty where there is none), ``epoch``, ``val_loss`` and
            ``macro_f1`` of that checkpoint's weights, and a column per setting.
        left_out: a line for everything that looked like a run or checkpoint and could not be read.
    """

    table: pd.DataFrame
    left_out: list[str]


def list_runs(folder: str | Path) -> ExperimentLog:
    """Find all runs and checkpoints below a folder; damaged and foreign files are named, never fatal.

    Raises:
        InputError: the folder is missing, or is a file.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is a file" if root.exists() else "is missing"
        raise InputError(f"runs: {root} {what}; expected a folder with runs of hpa-kit train below it")
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for run, names in _folders(root, left_out):
        name = run.relative_to(root).as_posix() if run != root else root.resolve().name
        found = [_attempt(_of_checkpoint, run / checkpoint, left_out) for checkpoint in names]
        if not names and (run / SETTINGS).is_file():
            found.append(_attempt(_of_settings, run / SETTINGS, left_out))
        rows += [{"run": name, **row} for row in found if row]
    table = pd.DataFrame(rows, columns=[*_FIRST, *TrainSettings.options()], dtype=object)
    return ExperimentLog(table, left_out)


def runs_text(table: pd.DataFrame, everything: bool = False) -> str:
    """Write an experiment log's table as text.

    Args:
        table, everything: as for :func:`runs_rows`.
    """
    return text_table(*runs_rows(table, everything))


def runs_rows(table: pd.DataFrame, everything: bool = False) -> tuple[list[str], list[list[str]]]:
    """Make an experiment log's table for people: its header, and a row of texts per checkpoint.

    Args:
        table: of :func:`list_runs`.
        everything: show every setting; else only those in which the runs differ or, where all are alike,
            those that differ from the defaults, and never ``out``, which the run's name says.
    """
    names = list(TrainSettings.options()) if everything else _telling(table)
    rows = []
    for row in table.to_dict("records"):
        epoch = "-" if row["epoch"] is None else f"{row['epoch']}/{row['epochs']}"
        scores = ["-" if row[name] is None else f"{row[name]:.4f}" for name in SCORES[1:]]
        rows.append(
            [row["run"], row["checkpoint"] or "-", epoch, *scores, *(_shown(row[name]) for name in names)]
        )
    return [*_FIRST, *names], rows


def write_runs(table: pd.DataFrame, path: str | Path) -> None:
    """Write an experiment log's table, with every setting, as CSV."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def settings_yaml(checkpoint: str | Path, only_ascii: bool = False) -> str:
    """Read the settings of a checkpoint, or a run folder, as YAML that ``hpa-kit train --config`` takes.

    Args:
        checkpoint: the file, or the folder.
        only_ascii: write other letters as YAML's escapes.

    Raises:
        InputError: it is missing, damaged, or no checkpoint of hpa-kit train.
    """
    return to_yaml(settings_of(checkpoint), only_ascii)


def _folders(root: Path, left_out: list[str]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder, sorted, with the names of its checkpoints, the best first."""

    def unreadable(error: OSError) -> None:
        left_out.append(f"{error.filename}: {error.strerror}")

    for place, folders, files in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if name not in _HIDDEN and not name.startswith("."))
        # A name with a dot before it is a file that is being written, or was when its writer was killed.
        yield (
            Path(place),
            sorted(name for name in files if name.endswith(".safetensors") and not name.startswith(".")),
        )


def _attempt(read: Any, path: Path, left_out: list[str]) -> dict[str, Any] | None:
    try:
        return read(path)
    except InputError as error:
        left_out.append(str(error))
        return None


def _of_checkpoint(path: Path) -> dict[str, Any]:
    saved = read_checkpoint(path, only=("epoch", "metrics"))
    metrics = saved.state.get("metrics") or {}
    epoch = metrics.get("epoch", saved.state.get("epoch"))
    return {
        "checkpoint": path.name,
        "epoch": None if epoch is None else int(epoch),
        **{name: metrics.get(name) for name in SCORES[1:]},
        **_settings(saved.settings, path),
    }


def _of_settings(path: Path) -> dict[str, Any] | None:
    """A run without a checkpoint: only its settings are known. None where they are of pseudo labels."""
    values = read_yaml(path)
    if "labels" in values and values.keys() <= PseudoLabelSettings.model_fields.keys():
        return None
    strange = next((name for name in values if name not in TrainSettings.options()), None)
    if strange is not None:
        raise InputError(f"runs: {path} is of no training run, which has no setting {shown(strange)}")
    return {"checkpoint": "", **dict.fromkeys(SCORES), **_settings(values, path)}


def _settings(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """Through the class, so that a setting younger than the run has its default there."""
    found = make_settings(TrainSettings, values, source=f"runs: {path}").model_dump(mode="json")
    return found | {name: value for name, value in _STANDS_FOR.items() if found[name] is None}


def _telling(table: pd.DataFrame) -> Sequence[str]:
    names = [name for name in TrainSettings.options() if name != "out"]
    differing = [name for name in names if len(set(map(repr, table[name]))) > 1]
    if differing or table.empty:
        return differing
    only = table.iloc[0]
    fields = TrainSettings.options()
    defaults = {name: field.get_default() for name, field in fields.items()} | _STANDS_FOR
    return [name for name in names if fields[name].is_required() or only[name] != defaults[name]]


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
