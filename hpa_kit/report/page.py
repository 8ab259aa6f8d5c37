"""``hpa-kit report``: fields, cells, scores, figures and training as one HTML file without a network."""

import html
import logging
import tempfile
from importlib.resources import files
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import pandas as pd

from hpa_kit import __version__
from hpa_kit.classes import CLASSES
from hpa_kit.config import ReportSettings
from hpa_kit.errors import InputError, one_line
from hpa_kit.files import atomic_text, make_folder_of
from hpa_kit.inference.growing_table import read_seconds, seconds_of
from hpa_kit.report.error_analysis import Error, Evidence, measure
from hpa_kit.report.experiment_log import list_runs, runs_rows
from hpa_kit.report.records import (
    MAP_COLUMNS,
    MAP_SIDE,
    UNITS,
    FieldRecord,
    crops_picture,
    field_records,
    packed,
)
from hpa_kit.report.sources import find_source
from hpa_kit.training.log import read_scalars
from hpa_kit.training.run_folder import EVENTS, METRICS

log = logging.getLogger(__name__)

SCRIPTS = ("base", "pictures", "charts", "fields", "viewer", "cell", "figures", "training", "start")
PLACE_OF_SIZE = "@size@"


class Report(NamedTuple):
    """A written report: its file, its bytes, the fields shown, and those of the table."""

    path: Path
    size: int
    fields: int
    total: int


def write_report(settings: ReportSettings) -> Report:
    """Write a submission, or a run, as a page to look at in a browser.

    The page holds everything it shows and asks for nothing from a network. Pictures are kept small and read
    when they come into view. With the truth of every cell it shows what is right by the competition's own
    matching; with members (a run is its own) it shows class maps.

    Args:
        settings: see :class:`~hpa_kit.config.ReportSettings`.

    Raises:
        InputError: a file cannot be used, or the settings do not go together.
    """
    make_folder_of(settings.out)
    with tempfile.TemporaryDirectory(prefix="hpa-kit-report-") as scratch:
        source = find_source(settings, Path(scratch))
        evidence, seconds = None, dict(source.seconds)
        if source.submission is not None and source.truth is not None:
            evidence = measure(source.truth, source.submission)
        started = monotonic()
        records = field_records(settings, source, {} if evidence is None else evidence.matches)
        if records:
            seconds["drawing for this page"] = (monotonic() - started) / len(records)
    ids = [record.summary["id"] for record in records]
    index = {
        "name": settings.source.name or str(settings.source),
        "kind": source.kind,
        "version": __version__,
        "total": source.total,
        "side": settings.side,
        "units": UNITS,
        "map": [MAP_SIDE, MAP_COLUMNS],
        "maps": bool(source.maps),
        "crops": crops_picture(source.crops, settings.quality),
        "pictures": source.images is not None,
        "classes": [[one.name, one.colour] for one in CLASSES],
        "fields": [record.summary for record in records],
        "evidence": None if evidence is None else _evidence(evidence, ids),
        "training": histories(source.runs),
        "seconds": seconds,
        "inference": inference_seconds(settings.source),
    }
    page = _assembled(index, records)
    atomic_text(settings.out, page)
    return Report(settings.out, len(page.encode()), len(records), source.total)


def _evidence(evidence: Evidence, ids: list[str]) -> dict[str, Any]:
    """Figures of all fields of the truth, errors of those that are shown."""
    number = {id: place for place, id in enumerate(ids)}
    errors = [_error(error, evidence, number[error.id]) for error in evidence.errors if error.id in number]
    return {
        "map": evidence.mean_ap,
        "fields": len(evidence.matches),
        "truth": sum(len(match.true_masks) for match in evidence.matches.values()),
        "matched": sum(len(match.found) for match in evidence.matches.values()),
        "classes": evidence.classes,
        "calibration": evidence.calibration,
        "confusion": evidence.confusion.round(2).tolist(),
        "errors": errors,
    }


def _error(error: Error, evidence: Evidence, field: int) -> list[Any]:
    """[kind, class, field, found cell or -1, place among the missed or -1, surety]."""
    missed = -1
    if error.cell is None and error.true_cell is not None:
        missed = evidence.matches[error.id].missed.index(error.true_cell)
    cell = -1 if error.cell is None else error.cell
    return [int(error.kind == "missed"), error.location, field, cell, missed, round(error.surety, 4)]


def _assembled(index: dict[str, Any], records: list[FieldRecord]) -> str:
    static = files("hpa_kit.report") / "static"
    page = (static / "report.html").read_text(encoding="utf-8")
    fields = "\n".join(
        f'<script type="application/json" id="field-{place}">{record.text}</script>'
        for place, record in enumerate(records)
    )
    scripts = "\n".join((static / "js" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "title": html.escape(f"{index['name']} - hpa-kit report"),
        "style": (static / "report.css").read_text(encoding="utf-8"),
        "script": scripts,
        "index": packed(index),
        "fields": fields,
    }
    pieces = page.split("@@")  # text and names of parts in turn
    whole = "".join(piece if k % 2 == 0 else parts[piece] for k, piece in enumerate(pieces))
    size = f"{len(whole.encode()) / 1e6:.1f} MB"
    return whole.replace(PLACE_OF_SIZE, size, 1)


def histories(folders: list[Path]) -> dict[str, Any]:
    """Gather the training of all runs below some folders.

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
        found = list_runs(folder)
        for line in found.left_out:
            log.warning(f"report: left out: {line}")
        own = folder.resolve().name
        paths = [folder if name == own else folder / name for name in found.table["run"]]
        # Runs of one name are told apart by their paths.
        names = list(map(str, paths)) if alike else found.table["run"].tolist()
        found.table["run"] = names
        tables.append(found.table)
        places |= dict(zip(names, paths, strict=True))
    filled = [table for table in tables if len(table)]
    header, rows = runs_rows(pd.concat(filled, ignore_index=True)) if filled else ([], [])
    read = ((name, _history(path)) for name, path in places.items())
    runs = [{"name": name, **history} for name, history in read if history is not None]
    return {"header": header, "rows": rows, "runs": runs}


def inference_seconds(source: Path) -> list[tuple[str, float, int]]:
    """Read what a field of a submission took: (part, mean seconds, number of fields) in order.

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
        log.warning(f"report: left out: {path} is no table of metrics: {one_line(error)}")
        return None
    seconds = read_scalars(run / EVENTS, "seconds")
    if seconds:
        metrics["seconds per epoch"] = [seconds.get(epoch) for epoch in epochs]
    return {"epochs": epochs.tolist(), "metrics": metrics}


def _numbers(column: "pd.Series[Any]") -> list[float | None]:
    values = pd.to_numeric(column, errors="raise").astype(float)
    return [float(f"{value:.5g}") if abs(value) < float("inf") else None for value in values]
