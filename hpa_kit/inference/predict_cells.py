"""``hpa-kit predict``: a table with a row per cell of any folder of fields, and label maps beside it."""

import logging
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from time import monotonic

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.cells import FieldCells, MaskFolder, Packer, write_label_maps
from hpa_kit.cells.label_maps import refuse_foreign
from hpa_kit.cells.regions import CellGeometry, cell_geometry
from hpa_kit.classes import N_CLASSES
from hpa_kit.config import EnsembleSettings, PredictSettings
from hpa_kit.data import CLASS_COLUMNS, DataFolder, find_fields
from hpa_kit.errors import InputError
from hpa_kit.files import make_folder, regular_path, remove_stale
from hpa_kit.inference.deadline import Budget, Now
from hpa_kit.inference.growing_table import CellTable
from hpa_kit.inference.prediction import Prediction
from hpa_kit.inference.results import Journal, Results, journal_of
from hpa_kit.inference.stream import predict_fields
from hpa_kit.scoring import FieldEvidence, ScoringFunction, score_field, scoring_of
from hpa_kit.scoring.mean_logit import sigmoid
from hpa_kit.training.checkpoint import BEST, checkpoint_file, settings_of

log = logging.getLogger(__name__)

BOX = ("box_top", "box_left", "box_bottom", "box_right")
COLUMNS = ("ID", "cell", "centroid_y", "centroid_x", *BOX, "area", "cut_by_border", *CLASS_COLUMNS)


def _all_classes(seen: FieldEvidence) -> NDArray[np.float64]:
    logits = np.zeros((0, 1)) if seen.cell_logits is None else seen.cell_logits
    return sigmoid(np.asarray(logits, np.float64))


# Probabilities of all classes that SubCell tells apart, instead of the competition's.
ALL_CLASSES = ScoringFunction(_all_classes, merged=False)


def predict(settings: PredictSettings, now: Now = monotonic) -> Path:
    """Score every cell of every field of a folder, and write a table of them.

    The same work as :func:`~hpa_kit.inference.infer`, without table, sample, time limit or mask strings:
    label maps of full size are written as ``ID.npz`` instead, see :func:`~hpa_kit.cells.write_label_maps`;
    with ``settings.pack`` they are packed meanwhile, see :func:`~hpa_kit.cells.pack_label_maps`. A
    field that cannot be used has no rows, is counted and said. Killed at any moment, the same call goes on.
    Where the time went is kept as :func:`~hpa_kit.inference.infer` keeps it. A pipe or a device gets the
    table once, when all is done; only label maps whose folder is named are kept then.

    Args:
        settings: see :class:`~hpa_kit.config.PredictSettings`.
        now: the clock, in seconds from any zero on.

    Returns:
        Path of the CSV: a row per cell, fields by rising ID, with ``ID``, ``cell`` (its number in the label
        map), ``centroid_y`` and ``centroid_x``, ``box_top``, ``box_left``, ``box_bottom`` and ``box_right``
        (the last two one beyond), ``area``, all in pixels of the field, ``cut_by_border`` (True or False),
        and a score per location class under its name; with ``settings.classes`` 31 per class of SubCell.

    Raises:
        InputError: data, members or settings cannot be used, npz files of others have the names that label
            maps would get, or not one field was scored.
    """
    images = DataFolder(settings.data).images(settings.split)
    ids = find_fields(images)
    if not ids:
        raise InputError(f"predict: {images} holds no field; expected ID_red.png, _green, _blue and _yellow")
    ensemble = _chosen(settings, images, ids)
    scoring = scoring_of(ensemble) if settings.classes == N_CLASSES else ALL_CLASSES
    what = "predict" if settings.classes == N_CLASSES else f"predict {settings.classes} classes"
    header = pd.DataFrame(columns=_columns(settings.classes)).to_csv(index=False, lineterminator="\n")
    with regular_path(settings.out) as out, CellTable(out, ids, header, Journal(journal_of(out))) as table:
        folder = make_folder(settings.label_maps or out.with_name(f"{out.stem}_label_maps"))
        remove_stale(folder)
        results = Results(what, ids, images, table.journal, settings, ensemble)
        kept, packer = MaskFolder(folder), Packer(folder, settings.pack)
        results.forget(id for id in results.done if kept.named(f"{id}.npz") is None)
        packer.begin()
        batches = results.still_to_do(settings.batch)
        if ensemble.masks is None or ensemble.masks.resolve() != folder.resolve():
            refuse_foreign("predict", folder, chain.from_iterable(batches))
        predictions = predict_fields(
            "predict",
            batches,
            images,
            settings,
            ensemble,
            details=partial(_keep, kept, ensemble.masks),
            scoring=scoring,
            budget=Budget(now=now),
            done=len(results.done),
        )
        with table.growing(), closing(predictions):
            for prediction in predictions:
                begun = now()
                lines = prediction.result(_lines, scoring)
                results.add(prediction, lines, now() - begun)
                packer.add()
                table.write_if_due()
        packer.end()
        outcome = results.outcome()
        if not outcome.late:
            table.journal.finish()
        outcome.report("predict", ensemble.masks, "has no rows")
        outcome.refuse_if_nothing_done("predict", images)
    return settings.out


def _chosen(settings: PredictSettings, images: Path, ids: list[str]) -> EnsembleSettings:
    """The members, those of SubCell by the channels that are there, and how cells are scored.

    Where all are SubCell, which needs no scores of images, and nothing else is said, scores are its own.

    Raises:
        InputError: a member looks at channels that fields lack.
    """
    ensemble = settings.of_ensemble()
    paths = (member.checkpoint for member in ensemble.members)
    if not any(settings_of(one).subcell is not None for path in paths for one in _weights_of(path)):
        return ensemble
    from hpa_kit.inference.subcell_members import fitted_to_channels, only_subcell

    ensemble = fitted_to_channels(ensemble, images, ids)
    if settings.rule is None and settings.ensemble is None and only_subcell(ensemble):
        log.info("predict: rule cell_logit: SubCell's own probabilities")
        ensemble = ensemble.model_copy(update={"rule": "cell_logit"})
    return ensemble


def _weights_of(path: Path) -> list[Path]:
    """A member's checkpoint, or those in the folders of a folder without one, which may be variants."""
    if path.is_dir() and not (path / BEST).is_file():
        return sorted(path.glob(f"*/{BEST}"))
    return [checkpoint_file(path)]


def _columns(classes: int) -> list[str]:
    """The table's columns."""
    if classes == N_CLASSES:
        return list(COLUMNS)
    from hpa_kit.models.subcell import SUBCELL_CLASSES

    return [*COLUMNS[: -len(CLASS_COLUMNS)], *SUBCELL_CLASSES]


def _keep(kept: MaskFolder, masks: Path | None, id: str, found: FieldCells) -> CellGeometry:
    """Write a field's label maps where they are not there already, and measure its cells."""
    folder, name = kept.folder, f"{id}.npz"
    kept_here = not found.made and masks is not None and masks.resolve() == folder.resolve()
    if not (kept_here and kept.named(name)):
        refuse_foreign("predict", folder, [id])
        write_label_maps(folder / name, found.maps)
    return cell_geometry(found.maps.cells)


def _lines(prediction: Prediction, scoring: ScoringFunction) -> str:
    """One field's lines of the table."""
    if scoring.merged:
        columns = list(COLUMNS)
        table = score_field(prediction.id, prediction.evidence, scoring)
    else:
        scores = scoring.score(prediction.evidence)
        columns = _columns(scores.shape[1])
        table = pd.DataFrame(scores, columns=columns[-scores.shape[1] :])
        table = table.assign(ID=prediction.id, cell=np.arange(len(scores)) + 1)
    geometry: CellGeometry = prediction.prepared.details
    places = dict(zip(("centroid_y", "centroid_x"), np.round(geometry.centroid, 2).T, strict=True))
    places |= dict(zip(BOX, geometry.box.T, strict=True))
    table = table.assign(**places, area=geometry.area, cut_by_border=geometry.cut)
    return table[columns].to_csv(header=False, index=False, lineterminator="\n", float_format="%.7g")
