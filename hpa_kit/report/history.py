"""How runs were trained, by table and by epoch, and what the fields of a submission took."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from hpa_kit.errors import InputError
from hpa_kit.inference.growing_table import read_seconds, seconds_of
from hpa_kit.report.experiment_log import list_runs, runs_rows
from hpa_kit.training.log import read_scalars
from hpa_kit.training.run_folder import EVENTS, METRICS

log = logging.getLogger(__name__)


def histories(folders: list[Path]) -> dict[str, Any]:
    """The training of all runs below some folders.

    Args:
        folders: run folders, or folders with runs below.

    Returns:
        ``header`` and ``rows`` of the table of their checkpoints, and ``runs``: {``name``, ``epochs``,
        ``metrics``: {name: a number or None per epoch}}, the seconds an epoch took among them where the run
        kept its events.

    Raises:
        InputError: a folder is missing.
    """
    tables, places = [], dict[str, Path]()
    alike = len({folder.resolve().name for folder in folders}) < len(set(folders))
    for folder in dict.fromkeys(folders):
        book = list_runs(folder)
        for line in book.left_out:
            log.warning(f"report: left out: {line}")
        own = folder.resolve().name
        paths = [folder if name == own else folder / name for name in book.table["run"]]
        # Runs of one name are told apart by their paths.
        names = list(map(str, paths)) if alike else book.table["run"].tolist()
        book.table["run"] = names
        tables.append(book.table)
        places |= dict(zip(names, paths, strict=True))
    filled = [table for table in tables if len(table)]
    header, rows = runs_rows(pd.concat(filled, ignore_index=True)) if filled else ([], [])
    read = ((name, _history(path)) for name, path in places.items())
    runs = [{"name": name, **history} for name, history in read if history is not None]
    return {"header": header, "rows": rows, "runs": runs}


def inference_seconds(source: Path) -> list[tuple[str, float, int]]:
    """What a field of a submission took when it was made: (part, mean seconds, number of fields) in order.

    Args:
        source: the CSV, or a run folder. Where no file of seconds lies beside it the list is empty.
    """
    if not (source.is_file() and seconds_of(source).is_file()):  # a folder such as . has no name
        return []
    try:
        found = read_seconds(seconds_of(source))
    except InputError as error:
        log.warning(f"report: left out: {error}")
        return []
    return [(part, one.seconds_per_field, one.fields) for part, one in found.items()]


def _history(run: Path) -> dict[str, Any] | None:
    path = run / METRICS
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path)
        epochs = table.pop("epoch").astype(int)
        metrics = {str(name): _numbers(table[name]) for name in table}
    except (OSError, ValueError, KeyError, pd.errors.ParserError) as error:
        log.warning(f"report: left out: {path} is no table of metrics: {' '.join(str(error).split())}")
        return None
    seconds = read_scalars(run / EVENTS, "seconds")
    if seconds:
        metrics["seconds per epoch"] = [seconds.get(epoch) for epoch in epochs]
    return {"epochs": epochs.tolist(), "metrics": metrics}


def _numbers(column: "pd.Series[Any]") -> list[float | None]:
    values = pd.to_numeric(column, errors="raise").astype(float)
    return [float(f"{value:.5g}") if abs(value) < float("inf") else None for value in values]
