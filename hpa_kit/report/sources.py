"""What a report is about: a submission, or a run looking at fields; and what goes with it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.config import ReportSettings, read_ensemble
from hpa_kit.data import DataFolder, read_labels
from hpa_kit.errors import InputError
from hpa_kit.submission import read_submission, write_submission
from hpa_kit.training.checkpoint import BEST, LAST

if TYPE_CHECKING:
    from hpa_kit.report.predicting import KeepMaps

log = logging.getLogger(__name__)

MAX_NAMED = 10


class Source(NamedTuple):
    """What is shown.

    Attributes:
        kind: ``submission`` or ``run``.
        submission: the CSV, a run's own being written for the report, in which rows of another size than the
            truth's find nothing; None where no field is shown.
        ids: fields that are shown, in the table's order.
        total: rows of the table.
        images: folder of the fields, or None.
        labels: {ID: image label}, of those that have one.
        truth: of every cell, or None.
        runs: folders whose training is shown.
        seconds: per field that members looked at, by part.
        crops: uint8 (s, s, 3), as a network of crops saw them.
    """

    kind: str
    submission: Path | None
    ids: list[str]
    total: int
    images: Path | None
    labels: dict[str, str]
    truth: Path | None
    runs: list[Path]
    seconds: dict[str, float]
    crops: Sequence[NDArray[np.uint8]] = ()


def find_source(settings: ReportSettings, scratch: Path, keep: "KeepMaps") -> Source:
    """Read the table to show, or have the run make one.

    Args:
        settings: of the report.
        scratch: a folder for the table of a run.
        keep: is given ID and class maps of every field that members looked at.

    Raises:
        InputError: something cannot be used, or does not go together.
    """
    source = settings.source
    if not source.exists():
        raise InputError(f"report: {source} is missing; expected a submission CSV or a run folder")
    data = None if settings.data is None else DataFolder(settings.data)
    images = None if data is None else data.images(settings.split)
    truth = settings.truth or (None if data is None else data.truth(settings.split))
    runs, crops = _runs(settings), list[NDArray[np.uint8]]()
    if source.is_file():
        table, seconds = read_submission(source), dict[str, float]()
        ids = spread(table["ID"].tolist(), settings.fields)
        if runs and images is not None:
            from hpa_kit.report.predicting import (  # here: members need torch
                look_settings,
                predict_for_report,
            )

            chosen = look_settings(settings, settings.members)
            predicted = predict_for_report(chosen, images, ids, keep, cells=False)
            seconds = predicted.seconds
            _say(predicted.failed)
        elif runs:
            log.warning("report: class maps need the fields; give --data to see them")
        kind, csv, total = "submission", source, len(table)
    elif data is None or images is None:
        if settings.truth is not None:
            raise InputError(f"report: {source} is no submission; a run's truth needs --data, its fields")
        kind, csv, ids, total, seconds = "run", None, [], 0, {}
    else:
        if not _is_run(source):
            raise InputError(
                f"report: {source} holds no {BEST} or {LAST}; to show fields, give one run or a submission"
            )
        from hpa_kit.report.predicting import look_settings, predict_for_report

        all_ids = _fields_of_run(source, data, settings.split)
        chosen, ids = look_settings(settings, [source]), spread(all_ids, settings.fields)
        predicted = predict_for_report(chosen, images, ids, keep, cells=True)
        rows, crops = predicted.rows, predicted.crops
        _say(predicted.failed)
        if not rows:
            raise InputError(
                f"report: not one of {len(predicted.failed)} fields of {images} could be looked at; the "
                f"first: {next(iter(predicted.failed.values()))}"
            )
        csv = scratch / "submission.csv"
        write_submission(csv, rows)
        if truth is not None:
            truth = _truth_of(truth, [row[0] for row in rows], scratch / "truth.csv")
        kind, ids, total, seconds = "run", [row[0] for row in rows], len(rows), predicted.seconds
    if csv is not None and truth is not None:
        csv = _comparable(truth, csv, scratch)
    labels = _labels(data, settings.split)
    return Source(kind, csv, ids, total, images, labels, truth, runs, seconds, crops)


def _comparable(truth: Path, submission: Path, scratch: Path) -> Path:
    """The submission, in which rows of another size than the truth's find nothing; that is said.

    Such rows are what inference writes of a field whose image is not there, or as a sample demands.

    Args:
        truth, submission: the CSVs.
        scratch: where a changed submission goes.

    Raises:
        InputError: a file cannot be read.
    """
    sizes = ["ImageWidth", "ImageHeight"]
    table = read_submission(submission)
    known = read_submission(truth).set_index("ID")[sizes].reindex(table["ID"]).to_numpy(dtype=float)
    there = np.isfinite(known).all(axis=1)
    other = there & (known != table[sizes].to_numpy()).any(axis=1)
    if not other.any() or other.sum() == there.sum():  # where all are, the truth is of something else
        return submission
    log.warning(
        f"report: {int(other.sum())} of {len(table)} rows of {submission}, such as ID "
        f"{table['ID'][other].iloc[0]}, have another size than {truth} says; they count as finding nothing"
    )
    table.loc[other, sizes] = known[other].astype(int)
    table.loc[other, "PredictionString"] = ""
    path = scratch / "comparable.csv"
    write_submission(path, table)
    return path


def spread(ids: list[str], most: int) -> list[str]:
    """At most so many of a list, evenly over it."""
    if len(ids) <= most:
        return ids
    return [ids[k * len(ids) // most] for k in range(most)]


def _runs(settings: ReportSettings) -> list[Path]:
    own = [settings.source] if settings.source.is_dir() else []
    members = list(settings.members)
    if settings.ensemble is not None:
        members = [member.checkpoint for member in read_ensemble(settings.ensemble).members]
    return [*own, *(path if path.is_dir() else path.parent for path in members)]


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (BEST, LAST))


def _fields_of_run(run: Path, data: DataFolder, split: str) -> list[str]:
    """The split's fields; of the training fields those that the run has not learnt from."""
    ids = data.fields(split).ids
    from hpa_kit.training.learnt_fields import learnt_from

    learnt = None if split == "test" else learnt_from(run)
    if learnt is None:
        return ids
    fresh = [id for id in ids if id not in learnt]
    if not fresh:
        log.warning(f"report: {run} has learnt from all {len(ids)} fields; they are shown all the same")
    return fresh or ids


def _truth_of(truth: Path, ids: list[str], path: Path) -> Path:
    """The truth of some fields: those that were not looked at do not count as missed."""
    table = read_submission(truth)
    write_submission(path, table[table["ID"].isin(set(ids))])
    return path


def _labels(data: DataFolder | None, split: str) -> dict[str, str]:
    if data is None or split != "train":
        return {}
    try:
        path = data.labels()
    except InputError:  # a folder of images has none
        return {}
    table: pd.DataFrame = read_labels(path)
    return dict(zip(table["ID"], table["Label"], strict=True))


def _say(failed: dict[str, str]) -> None:
    for id, reason in list(failed.items())[:MAX_NAMED]:
        log.warning(f"report: ID {id} could not be looked at: {reason}")
    if len(failed) > MAX_NAMED:
        log.warning(f"report: {len(failed)} fields could not be looked at")
