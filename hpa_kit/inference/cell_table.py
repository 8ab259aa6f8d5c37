"""``hpa-kit predict``: a table with a row per cell of any folder of fields, and label maps beside it."""

from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np
import pandas as pd

from hpa_kit.cells import FieldCells, write_label_maps
from hpa_kit.cells.geometry import CellGeometry, cell_geometry
from hpa_kit.config import PredictSettings
from hpa_kit.data import DataFolder, find_fields
from hpa_kit.errors import InputError
from hpa_kit.files import forget_torn, make_folder_of
from hpa_kit.inference.budget import Budget, Now
from hpa_kit.inference.ensemble import FieldMaps
from hpa_kit.inference.journal import Journal
from hpa_kit.inference.pipeline import evidence, fill, journal_of
from hpa_kit.inference.prepare import PreparedField
from hpa_kit.inference.rows import CellRows
from hpa_kit.inference.work import Filling, refuse_if_all_failed, report_fields
from hpa_kit.scoring.functions import CLASS_COLUMNS, ScoringRule, score_field

BOX = ("box_top", "box_left", "box_bottom", "box_right")
COLUMNS = ("ID", "cell", "centroid_y", "centroid_x", *BOX, "area", "cut_by_border", *CLASS_COLUMNS)


def predict(settings: PredictSettings, now: Now = monotonic) -> Path:
    """Score every cell of every field of a folder, and write a table of them.

    The same work as :func:`~hpa_kit.inference.infer`, without table, sample, time limit or mask strings:
    label maps of full size are written as ``ID.npz`` instead, see :func:`~hpa_kit.cells.write_label_maps`. A
    field that cannot be used has no rows, is counted and said. Killed at any moment, the same call goes on.
    Where the time went is kept as :func:`~hpa_kit.inference.infer` keeps it.

    Args:
        settings: see :class:`~hpa_kit.config.PredictSettings`.
        now: the clock, in seconds from any zero on.

    Returns:
        Path of the CSV: a row per cell, fields by rising ID, with ``ID``, ``cell`` (its number in the label
        map), ``centroid_y`` and ``centroid_x``, ``box_top``, ``box_left``, ``box_bottom`` and ``box_right``
        (the last two one beyond), ``area``, all in pixels of the field, ``cut_by_border`` (True or False),
        and a score per location class under its name.

    Raises:
        InputError: data, members or settings cannot be used, or not one field could be.
    """
    images = DataFolder(settings.data).images(settings.split)
    ids = find_fields(images)
    if not ids:
        raise InputError(f"predict: {images} holds no field; expected ID_red.png, _green, _blue and _yellow")
    chosen = settings.of_ensemble()
    folder = _label_map_folder(settings)
    header = pd.DataFrame(columns=list(COLUMNS)).to_csv(index=False, lineterminator="\n")
    filling = Filling(
        what="predict",
        settings=settings,
        ensemble=chosen,
        ids=ids,
        images=images,
        sizes={},
        details=partial(_keep, folder, chosen.masks),
        finish=_rows,
        budget=Budget(now=now),
        still_there=lambda id: (folder / f"{id}.npz").is_file(),
    )
    make_folder_of(settings.out)
    with CellRows(settings.out, ids, header, Journal(journal_of(settings.out))) as table:
        outcome = fill(filling, table)
        report_fields("predict", chosen.masks, ids, outcome, "has no rows")
        refuse_if_all_failed("predict", images, ids, outcome)
    return settings.out


def _label_map_folder(settings: PredictSettings) -> Path:
    folder = settings.label_maps or settings.out.with_name(f"{settings.out.stem}_label_maps")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"predict: {folder} cannot be made: {error.strerror}; name another folder with label_maps"
        ) from None
    forget_torn(folder)
    return folder


def _keep(folder: Path, masks: Path | None, id: str, found: FieldCells) -> CellGeometry:
    """Write a field's label maps where they are not there already, and measure its cells."""
    kept_here = not found.made and masks is not None and masks.resolve() == folder.resolve()
    path = folder / f"{id}.npz"
    if not (kept_here and path.is_file()):
        write_label_maps(path, found.maps)
    return cell_geometry(found.maps.cells)


def _rows(field: PreparedField[CellGeometry], maps: FieldMaps, rule: ScoringRule) -> str:
    """One field's lines of the table."""
    table = score_field(field.id, evidence(field, maps), rule)
    geometry = field.details
    places = dict(zip(("centroid_y", "centroid_x"), np.round(geometry.centroid, 2).T, strict=True))
    places |= dict(zip(BOX, geometry.box.T, strict=True))
    table = table.assign(**places, area=geometry.area, cut_by_border=geometry.cut)
    return table[list(COLUMNS)].to_csv(header=False, index=False, lineterminator="\n", float_format="%.7g")
