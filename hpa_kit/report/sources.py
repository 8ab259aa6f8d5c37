"""What a report is about: a submission, or what a run's network says of fields; and what goes with it."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.config import (
    EnsembleSettings,
    PredictSettings,
    ReportSettings,
    StreamSettings,
    make_settings,
    read_ensemble,
)
from hpa_kit.data import DataFolder, Images, read_labels
from hpa_kit.devices import pick_devices
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, batches
from hpa_kit.report.records import PackedMaps, maps_picture
from hpa_kit.scoring import ScoringFunction, score_field, scores_to_prediction, scoring_of
from hpa_kit.submission import encode_label_map, read_submission, write_submission
from hpa_kit.training.checkpoint import BEST, LAST, checkpoint_file, settings_of

if TYPE_CHECKING:
    from hpa_kit.inference import Prediction

log = logging.getLogger(__name__)

Row = tuple[str, int, int, str]
MAX_NAMED = 10
MAX_CROPS = 48  # shown of all fields together


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
        maps: packed class maps of fields that members predicted, by ID.
        seconds: per field that members predicted, by part.
        crops: uint8 (s, s, 3), as a network of crops saw them.
    """

    kind: str
    submission: Path | None
    ids: list[str]
    total: int
    images: "Images | None"
    labels: dict[str, str]
    truth: Path | None
    runs: list[Path]
    maps: dict[str, PackedMaps]
    seconds: dict[str, float]
    crops: Sequence[NDArray[np.uint8]] = ()


def find_source(settings: ReportSettings, scratch: Path) -> Source:
    """Read the table to show, or have the run make one.

    Args:
        settings: of the report.
        scratch: a folder for the table of a run.

    Raises:
        InputError: something cannot be used, or does not go together.
    """
    source = settings.source
    if not source.exists():
        raise InputError(f"report: {source} is missing; expected a submission CSV or a run folder")
    data = None if settings.data is None else DataFolder(settings.data, settings)
    images = None if data is None else data.images(settings.split)
    truth = settings.truth or (None if data is None else data.truth(settings.split))
    runs, predicted = _runs(settings), Predicted()
    if source.is_file():
        table = read_submission(source)
        ids = spread(table["ID"].tolist(), settings.fields)
        if runs and images is not None:
            chosen = predict_settings(settings, settings.members)
            predicted = predict_for_report(chosen, images, ids, cells=False, quality=settings.quality)
            _say(predicted.failed)
        elif runs:
            log.warning("report: class maps need the fields; give --data to see them")
        kind, csv, total = "submission", source, len(table)
    elif data is None or images is None:
        if settings.truth is not None:
            raise InputError(f"report: {source} is no submission; a run's truth needs --data, its fields")
        kind, csv, ids, total = "run", None, [], 0
    else:
        if not any((source / name).is_file() for name in (BEST, LAST)):
            raise InputError(
                f"report: {source} holds no {BEST} or {LAST}; to show fields, give one run or a submission"
            )
        all_ids = _fields_of_run(source, data, settings.split)
        chosen, ids = predict_settings(settings, [source]), spread(all_ids, settings.fields)
        predicted = predict_for_report(chosen, images, ids, cells=True, quality=settings.quality)
        rows = predicted.rows
        _say(predicted.failed)
        if not rows:
            raise InputError(
                f"report: not one of {len(predicted.failed)} fields of {images} could be used; the "
                f"first: {next(iter(predicted.failed.values()))}"
            )
        csv = scratch / "submission.csv"
        write_submission(csv, rows)
        if truth is not None:
            truth = _truth_of(truth, [row[0] for row in rows], scratch / "truth.csv")
        kind, ids, total = "run", [row[0] for row in rows], len(rows)
    if csv is not None and truth is not None:
        csv = _comparable(truth, csv, scratch)
    labels = _labels(data, settings.split)
    of_cells = predicted.maps, predicted.seconds, predicted.crops
    return Source(kind, csv, ids, total, images, labels, truth, runs, *of_cells)


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
    """Take at most so many of a list, evenly over it."""
    if len(ids) <= most:
        return ids
    return [ids[k * len(ids) // most] for k in range(most)]


def _runs(settings: ReportSettings) -> list[Path]:
    own = [settings.source] if settings.source.is_dir() else []
    members = list(settings.members)
    if settings.ensemble is not None:
        members = [member.checkpoint for member in read_ensemble(settings.ensemble).members]
    return [*own, *(path if path.is_dir() else path.parent for path in members)]


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
    """The truth of some fields: those that were not predicted do not count as missed."""
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
        log.warning(f"report: ID {id} could not be used: {reason}")
    if len(failed) > MAX_NAMED:
        log.warning(f"report: {len(failed)} fields could not be used")


@dataclass
class Predicted:
    """What came of a report's fields.

    Attributes:
        rows: of a submission, where cells were asked for, in the order of the fields.
        failed: {ID: why it could not be used}.
        maps: packed class maps by ID, where they were asked for.
        seconds: per field by part.
        crops: uint8 (s, s, 3), as the first network of crops saw them, some of each field.
    """

    rows: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    maps: dict[str, PackedMaps] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    crops: list[NDArray[np.uint8]] = field(default_factory=list)


def predict_for_report(
    settings: StreamSettings, images: Images, ids: Sequence[str], *, cells: bool, quality: int = 0
) -> Predicted:
    """Have members predict fields for a report.

    Args:
        settings: which members predict, and how; of several devices the first one works.
        images: folder of the fields.
        ids: the fields.
        cells: whether cells are scored too; they are found where a network of crops looks at them as well.
        quality: 1 to 100, of the packed class maps; 0 keeps none.

    Raises:
        InputError: members cannot be loaded.
    """
    from hpa_kit.inference import predict_fields  # here: members need torch, a submission's page does not

    ensemble, found = settings.of_ensemble(), Predicted()
    scoring, seen = scoring_of(ensemble), _crops_seen(ensemble, -(-MAX_CROPS // max(1, len(ids))))
    rows: dict[str, Row] = {}
    predictions = predict_fields(
        "report",
        list(batches(ids, settings.batch)),
        images,
        settings.model_copy(update={"device": pick_devices(settings.device)[0]}),
        ensemble,
        details=lambda id, one: encode_label_map(one.maps.cells) if cells else None,
        find_cells=cells or seen is not None,
    )
    with closing(predictions):
        for prediction in predictions:
            row = prediction.result(_row, scoring if cells else None)
            if isinstance(row, Failure):
                found.failed[prediction.id] = row.reason
                continue
            rows[prediction.id] = row
            if seen is not None:
                found.crops += seen(prediction)[: MAX_CROPS - len(found.crops)]
            if quality and prediction.evidence.class_maps.size:
                found.maps[prediction.id] = maps_picture(prediction.evidence.class_maps, quality)
            for part, seconds in prediction.seconds.items():
                found.seconds[part] += seconds
    found.rows = [rows[id] for id in ids if id in rows]
    found.seconds = {part: seconds / len(rows) for part, seconds in found.seconds.items()}
    return found


def _row(prediction: "Prediction", scoring: ScoringFunction | None) -> Row:
    field = prediction.prepared
    height, width = field.size
    if scoring is None:
        return prediction.id, width, height, ""
    scores = score_field(prediction.id, prediction.evidence, scoring)
    return prediction.id, width, height, scores_to_prediction(scores, field.details)


def _crops_seen(
    ensemble: EnsembleSettings, most: int
) -> Callable[["Prediction"], Sequence[NDArray[np.uint8]]] | None:
    """What gives of a prediction the crops as the first network of crops saw them, so many of a field.

    None where no member is such a network.
    """
    for member in ensemble.members:
        trained = settings_of(checkpoint_file(member.checkpoint))
        if trained.network == "crops":
            break
    else:
        return None
    if trained.subcell is not None:
        from hpa_kit.inference.subcell_members import subcell_key

        own = subcell_key(member, member.crop or trained.crops.side or 0, trained.crops.neighbours != "kept")
        return lambda prediction: [
            np.ascontiguousarray(crop[:3].transpose(1, 2, 0))
            for crop in prediction.prepared.inputs.crops[own].pixels[:most]
        ]
    import torch

    from hpa_kit.models import Normaliser
    from hpa_kit.models.crop_net import FADED

    normalise = Normaliser(trained.in_channels, trained.normalisation)
    key = member.size or trained.size, trained.crops.side or 0
    outside = FADED[trained.crops.neighbours]

    def seen(prediction: "Prediction") -> Sequence[NDArray[np.uint8]]:
        crops = prediction.prepared.inputs.crops[key]
        pixels, masks = (torch.from_numpy(values[:most]) for values in (crops.pixels, crops.masks))
        statistics = torch.from_numpy(crops.statistics).expand(len(pixels), -1, -1)
        inside = masks[:, None].float()
        found = normalise(pixels, statistics)[:, :3] * (outside + (1 - outside) * inside)
        # From two spreads below the field's mean to four above.
        shown = ((found + 2) / 6).clamp(0, 1).mul(255).to(torch.uint8).permute(0, 2, 3, 1)
        return list(shown.numpy())

    return seen


def predict_settings(settings: ReportSettings, members: Sequence[Path]) -> PredictSettings:
    """Make the settings by which members predict a report's fields; what they leave open the ensemble says.

    Args:
        settings: of the report; ``data`` is given.
        members: runs, or none where the settings name an ensemble.
    """
    said = ("masks", "segmenter", "weights", "rule", "views", "map_size")
    names = ("data", "channels", "pixel_size", "stack", *said, "batch", "workers", "device")
    given = {name: getattr(settings, name) for name in names}
    source = {"members": tuple(members)} if members else {"ensemble": settings.ensemble}
    return make_settings(PredictSettings, given, source, {"out": settings.out}, source="report")
