"""``hpa-kit predict``: a table with a row per cell of any folder of fields, and label maps beside it."""

import logging
from collections.abc import Sequence
from contextlib import closing, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.cells import FieldCells, MaskFolder, Packer, write_label_maps
from hpa_kit.cells.label_maps import refuse_foreign
from hpa_kit.cells.packing import refuse_to_pack
from hpa_kit.cells.regions import CellGeometry, cell_geometry
from hpa_kit.classes import N_CLASSES
from hpa_kit.cluster import connected, with_whole_paths
from hpa_kit.config import EnsembleSettings, PredictSettings
from hpa_kit.config.kinds import Also
from hpa_kit.data import CLASS_COLUMNS, DataFolder, Images, find_fields, lab_pixel
from hpa_kit.errors import InputError
from hpa_kit.files import make_folder, regular_path, remove_stale
from hpa_kit.inference.deadline import Budget, Now
from hpa_kit.inference.growing_table import CellTable
from hpa_kit.inference.made_fields import FieldJob, made_fields
from hpa_kit.inference.prediction import Made, Prediction
from hpa_kit.inference.results import Journal, Results, journal_of
from hpa_kit.scoring import FieldEvidence, ScoringFunction, score_field, scoring_of
from hpa_kit.scoring.mean_logit import sigmoid
from hpa_kit.training.checkpoint import BEST, checkpoint_file, settings_of

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from hpa_kit.cells.lab_files import Outlines

BOX = ("box_top", "box_left", "box_bottom", "box_right")
# Tables that are no CSV, by their endings: the class of hpa_kit.inference.lab_tables that writes each.
TABLES = {".parquet": "ParquetTable", ".h5ad": "AnnDataTable"}
# Endings of files that a table of cells is not written as, and would be taken for.
REFUSED = (".arrow", ".feather", ".h5", ".hdf5", ".json", ".pq", ".xls", ".xlsx", ".zarr")
PLACES = ("ID", "cell", "centroid_y", "centroid_x", *BOX, "area", "cut_by_border")
COLUMNS = (*PLACES, *CLASS_COLUMNS)


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
    With ``settings.also`` further files lie beside the label maps, see :mod:`hpa_kit.cells.lab_files`. Where
    the time went is kept as :func:`~hpa_kit.inference.infer` keeps it. A pipe or a device gets the
    table once, when all is done; only label maps whose folder is named are kept then.

    Args:
        settings: see :class:`~hpa_kit.config.PredictSettings`.
        now: the clock, in seconds from any zero on.

    Returns:
        Path of the table, of the kind that its ending says (see :mod:`hpa_kit.inference.lab_tables` for those
        that are no CSV): a row per cell, fields by rising ID, with ``ID``, ``cell`` (its number in the label
        map), ``centroid_y`` and ``centroid_x``, ``box_top``, ``box_left``, ``box_bottom`` and ``box_right``
        (the last two one beyond), ``area``, all in pixels of the field, ``cut_by_border`` (True or False),
        and a score per location class under its name; with ``settings.classes`` 31 per class of SubCell.

    Raises:
        InputError: data, members or settings cannot be used, what writes such a table is not installed, npz
            files of others have the names that label maps would get, or not one field was scored.
    """
    if settings.cluster is not None:
        settings = with_whole_paths(settings)
    in_parts = settings.out.suffix.lower() == ".parquet" and (
        settings.cluster is not None or settings.out.is_dir()
    )
    table_kind = _table_kind(settings.out, in_parts)
    images = DataFolder(settings.data, settings).images(settings.split)
    ids = find_fields(images)
    if not ids:
        raise InputError(
            f"predict: {images} holds no field; expected ID_red.png, _green, _blue and _yellow, or tif, "
            "OME-TIFF or OME-Zarr of all channels"
        )
    ensemble = _chosen(settings, images, ids)
    scoring = scoring_of(ensemble) if settings.classes == N_CLASSES else ALL_CLASSES
    what = "predict" if settings.classes == N_CLASSES else f"predict {settings.classes} classes"
    header = pd.DataFrame(columns=_columns(settings.classes)).to_csv(index=False, lineterminator="\n")
    place = nullcontext(settings.out) if in_parts else regular_path(settings.out)
    with place as out, table_kind(out, ids, header, Journal(journal_of(out))) as table:
        folder = make_folder(settings.label_maps or out.with_name(f"{out.stem}_label_maps"))
        inside = {id.rpartition("/")[0] for id in ids} - {""}
        refuse_to_pack("predict", inside, settings.pack)
        for below in ("", *inside):
            remove_stale(folder / below)
        results = Results(what, ids, images, table.journal, settings, ensemble)
        kept, packer = MaskFolder(folder), Packer(folder, settings.pack)
        results.forget(
            id
            for id in results.done
            if kept.named(f"{id}.npz") is None or _lacks_lab_files(folder, id, settings.also)
        )
        packer.begin()
        batches = results.still_to_do(settings.batch)
        if ensemble.masks is None or ensemble.masks.resolve() != folder.resolve():
            refuse_foreign("predict", folder, chain.from_iterable(batches))
        job = FieldJob(
            "predict", images, settings, ensemble, scoring,
            details=partial(_keep, MaskFolder(folder), ensemble.masks, settings.also, images),
            made=partial(_made, scoring, folder, now),
            embeddings=settings.out.suffix.lower() == ".h5ad",
            outputs=(folder,),
        )  # fmt: skip
        with connected(settings.cluster if batches else None, "predict", settings.device) as workers:
            fields = made_fields(job, batches, workers, budget=Budget(now=now), done=len(results.done))
            with table.growing(), closing(fields):
                for field in fields:
                    results.add(field)
                    packer.add()
                    table.write_if_due()
        packer.end()
        outcome = results.outcome()
        if not outcome.late:
            table.journal.finish()
        outcome.report("predict", ensemble.masks, "has no rows")
        outcome.refuse_if_nothing_done("predict", images)
    return settings.out


def _chosen(settings: PredictSettings, images: Images, ids: list[str]) -> EnsembleSettings:
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

    return [*PLACES, *SUBCELL_CLASSES]


def _table_kind(out: Path, in_parts: bool) -> type[CellTable]:
    """The class that writes a table of that name, or the parts of one.

    Raises:
        InputError: its ending is of something else.
    """
    ending = out.suffix.lower()
    if ending in TABLES:
        from hpa_kit.inference import lab_tables

        kind: type[CellTable] = getattr(lab_tables, "ParquetParts" if in_parts else TABLES[ending])
        return kind
    if ending in REFUSED:
        raise InputError(
            f"predict: {out} cannot be written; expected .csv, .parquet or .h5ad, found {ending}"
        )
    return CellTable


def _lacks_lab_files(folder: Path, id: str, also: Sequence[Also]) -> bool:
    """Whether a field lacks one of the further files that are wanted."""
    if not also:
        return False
    from hpa_kit.cells.lab_files import lacks_lab_files

    return lacks_lab_files(folder, id, also)


class _Measured(NamedTuple):
    """What is kept of a field's full size: where its cells are, and their outlines where these are wanted."""

    geometry: CellGeometry
    shapes: "Outlines | None" = None


def _keep(
    kept: MaskFolder, masks: Path | None, also: Sequence[Also], images: Images, id: str, found: FieldCells
) -> _Measured:
    """Write a field's label maps where they are not there already, and measure its cells."""
    folder, name = kept.folder, f"{id}.npz"
    kept_here = not found.made and masks is not None and masks.resolve() == folder.resolve()
    if not (kept_here and kept.named(name)):
        refuse_foreign("predict", folder, [id])
        write_label_maps(folder / name, found.maps)
    geometry = cell_geometry(found.maps.cells)
    if not also:
        return _Measured(geometry)
    from hpa_kit.cells.lab_files import lab_file, outlines_of, write_ome_labels

    if "ome-tiff" in also:
        write_ome_labels(lab_file(folder, id, "ome-tiff"), found.maps, lab_pixel(images, id))
    return _Measured(geometry, outlines_of(found.maps) if "geojson" in also else None)


def _made(scoring: ScoringFunction, folder: Path, now: Now, prediction: Prediction, _: object = None) -> Made:
    """What is kept of a field."""
    begun = now()
    lines = prediction.result(_result, scoring, folder)
    return prediction.made(lines, now() - begun)


def _result(prediction: Prediction, scoring: ScoringFunction, folder: Path) -> str | bytes:
    """One field's lines of the table, behind them the embeddings of its cells; its outlines are written."""
    measured: _Measured = prediction.prepared.details
    table = _rows(prediction, scoring, measured.geometry)
    if measured.shapes is not None:
        from hpa_kit.cells.lab_files import lab_file, write_geojson

        names = ["area", *table.columns[len(PLACES) :]]
        rows = table[names].to_numpy(np.float64).tolist()
        values = [dict(zip(names, row, strict=True)) for row in rows]
        write_geojson(lab_file(folder, prediction.id, "geojson"), prediction.id, measured.shapes, values)
    lines = table.to_csv(header=False, index=False, lineterminator="\n", float_format="%.7g")
    embeddings = () if prediction.says is None else prediction.says.embeddings
    if not embeddings:
        return lines
    from hpa_kit.inference.lab_tables import with_embeddings

    return with_embeddings(lines, embeddings)


def _rows(prediction: Prediction, scoring: ScoringFunction, geometry: CellGeometry) -> pd.DataFrame:
    """One field's rows of the table."""
    if scoring.merged:
        columns = list(COLUMNS)
        table = score_field(prediction.id, prediction.evidence, scoring)
    else:
        scores = scoring.score(prediction.evidence)
        columns = _columns(scores.shape[1])
        table = pd.DataFrame(scores, columns=columns[-scores.shape[1] :])
        table = table.assign(ID=prediction.id, cell=np.arange(len(scores)) + 1)
    places = dict(zip(("centroid_y", "centroid_x"), np.round(geometry.centroid, 2).T, strict=True))
    places |= dict(zip(BOX, geometry.box.T, strict=True))
    return table.assign(**places, area=geometry.area, cut_by_border=geometry.cut)[columns]
