"""What each member says of each field's cells, worked out once and kept: what choices are tried on."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells import label_map_ids
from hpa_kit.cells.segmenters import code_of_segmenter
from hpa_kit.classes import N_CLASSES
from hpa_kit.config import EnsembleSettings, MemberSettings, TuneSettings
from hpa_kit.data import Images
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, remove_stale
from hpa_kit.flow import Failure, batches
from hpa_kit.inference.ensemble import FieldMaps
from hpa_kit.inference.prediction import Prediction
from hpa_kit.inference.results import MAX_NAMED
from hpa_kit.inference.stream import predict_fields
from hpa_kit.npz import foreign_arrays, read_npz, write_npz
from hpa_kit.resume import depends_on, field_stamps
from hpa_kit.scoring import scoring_function
from hpa_kit.scoring.mean_logit import mean_logits
from hpa_kit.scoring.post_processing import cell_context
from hpa_kit.tuning.truth import Compared, TrueCells, no_truth

log = logging.getLogger(__name__)

STAMP = "made_from"  # beside the evidence in its file: what it depends on
_OWN, _PACKING = "image_scores", 6  # the array by which evidence is known; zlib's level
MAX_BYTES = 2**31  # of an array; more than any field's
# Rules that are not linear in the maps: their scores are kept for the weights that were given.
MAP_RULES = {
    "cam_share mean_share": scoring_function("cam_share", "mean_share"),
    "cam_share max_share": scoring_function("cam_share", "max_share"),
    "cam_share mean": scoring_function("cam_share", "mean"),
    "cam_share max": scoring_function("cam_share", "max"),
    "quantile": scoring_function("quantile"),
}


class Evidence(NamedTuple):
    """One field of n cells as M members see it; members that have learnt from it say NaN.

    Attributes:
        image_scores: float32 (M, 19).
        logits: float32 (M, n, 19), means of the logit maps in the cells, or what a member says of crops.
        rows: float32 (rules, n, 19), scores by :data:`MAP_RULES` with the weights that were given; NaN where
            no member gives maps.
        areas, cut: of the cells, see :class:`~hpa_kit.scoring.post_processing.CellContext`.
        hits: bool (n, 19), which cells are right as a class, by the truth; all False without one.
        truth: int64 (19,), cells of each class there are to find.
    """

    image_scores: NDArray[np.float32]
    logits: NDArray[np.float32]
    rows: NDArray[np.float32]
    areas: NDArray[np.float64]
    cut: NDArray[np.bool_]
    hits: NDArray[np.bool_]
    truth: NDArray[np.int64]


def gather(
    settings: TuneSettings,
    ensemble: EnsembleSettings,
    images: Images,
    cache: Path,
    members_of: Mapping[str, Sequence[int]],
    truth: TrueCells | None,
) -> dict[str, Evidence]:
    """Work out the evidence of fields, or take what is kept of them.

    Args:
        settings: of the command.
        ensemble: whose members are asked.
        images: folder of the fields.
        cache: folder that keeps ``ID.npz``, each with what it was made from; files of other IDs, or made from
            something else, are not read.
        members_of: {ID: places of the members that have not learnt from it}.
        truth: the true cells, or None.

    Returns:
        The evidence of all fields, in order; those that cannot be used are said and left out.

    Raises:
        InputError: the cache is a file, or holds an npz file of something else in a field's place.
    """
    remove_stale(cache)
    made_from = ensemble.model_dump(exclude={"masks", "rule", "form", "steps"})
    own_code = code_of_segmenter(ensemble.segmenter)
    common = depends_on("tune", settings.amp, made_from, settings.truth, *own_code)
    own = field_stamps(members_of, images, [(ensemble.masks, label_map_ids)], members_of)
    stamps = {id: f"{common}-{stamp}" for id, stamp in own.items()}
    found = {id: _kept(cache / f"{id}.npz", stamps[id]) for id in members_of}
    lacking = [id for id, evidence in found.items() if evidence is None]
    _refuse_foreign(cache, lacking)
    others = sum((cache / f"{id}.npz").is_file() for id in lacking)
    if others:
        log.info(
            f"tune: {others} of {len(found)} files in {cache} were made from other members, folds, images, "
            "label maps or truth; they are made again"
        )
    failed: dict[str, str] = {}
    predictions = predict_fields(
        "tune",
        list(batches(lacking, settings.batch)),
        images,
        settings,
        ensemble,
        details=lambda id, found: None if truth is None else truth.compare(id, found.maps.cells),
        members_of=members_of,
    )
    with closing(predictions):
        for prediction in predictions:
            made = prediction.result(_evidence, ensemble)
            if isinstance(made, Failure):
                failed[prediction.id] = made.reason
                continue
            found[prediction.id] = made
            with atomic_path(cache / f"{prediction.id}.npz") as temporary:
                stamp = np.array(stamps[prediction.id])
                write_npz(temporary, made._asdict() | {STAMP: stamp}, _PACKING)
    for id, reason in list(failed.items())[:MAX_NAMED]:
        log.warning(f"tune: ID {id} is left out: {reason}")
    if failed:
        log.warning(f"tune: {len(failed)} of {len(lacking)} fields could not be used")
    return {id: evidence for id, evidence in found.items() if evidence is not None}


def _refuse_foreign(cache: Path, ids: list[str]) -> None:
    """Raise where a file that evidence would overwrite is something else, such as a label map."""
    if cache.exists() and not cache.is_dir():
        raise InputError(f"cache: {cache} is a file; expected a folder for evidence of hpa-kit tune")
    for path in (cache / f"{id}.npz" for id in ids):
        if found := foreign_arrays(path, _OWN):
            raise InputError(
                f"cache: {path} holds {', '.join(found)}, expected evidence of hpa-kit tune; it is not "
                "overwritten: give --cache a folder of its own"
            )


def _kept(path: Path, stamp: str) -> Evidence | None:
    """A field's evidence where it is kept and was made from what there is now."""
    try:
        arrays = read_npz(path, (*Evidence._fields, STAMP), MAX_BYTES)
        if str(arrays.pop(STAMP)) == stamp:
            return Evidence(**arrays)
    except (ValueError, KeyError, TypeError):  # damaged, or of an older version
        pass
    return None


def _evidence(prediction: Prediction, ensemble: EnsembleSettings) -> Evidence:
    field, n_members = prediction.prepared, len(ensemble.members)
    scores = np.full((n_members, N_CLASSES), np.nan, np.float32)
    logits = np.full((n_members, field.n_cells, N_CLASSES), np.nan, np.float32)
    for place, says in prediction.each.items():
        scores[place] = says.image_scores
        if says.cell_logits is None:
            logits[place] = mean_logits(says.logit_maps, field.cells, field.n_cells, field.places)
        else:
            shown = field.places.area > 0
            logits[place, shown] = says.cell_logits[shown]
    together = field.evidence(combined(prediction.each, ensemble.members))
    if together.class_maps.size:
        rows = np.stack([rule(together) for rule in MAP_RULES.values()]).astype(np.float32)
    else:
        rows = np.full((len(MAP_RULES), field.n_cells, N_CLASSES), np.nan, np.float32)
    context = cell_context(together.image_scores, field.cells, field.n_cells, field.places)
    truth: Compared = field.details or no_truth(field.n_cells)
    return Evidence(scores, logits, rows, context.areas, context.cut, *truth)


def combined(maps: Mapping[int, FieldMaps], members: Sequence[MemberSettings]) -> FieldMaps:
    """What members say together, by weight and mode, as :class:`~hpa_kit.inference.Ensemble` has it.

    Maps are without pixels where no member gives any.
    """
    givers = [place for place in maps if members[place].gives_scores]
    drawers = [place for place in maps if members[place].gives_maps and maps[place].class_maps.size]
    scores = np.average([maps[k].image_scores for k in givers], axis=0, weights=_weights(givers, members))
    if not drawers:
        nothing = np.zeros((N_CLASSES, 0, 0), np.float32)
        return FieldMaps(scores.astype(np.float32), nothing, nothing)
    weights = _weights(drawers, members)
    class_maps = np.average([maps[k].class_maps for k in drawers], axis=0, weights=weights)
    return FieldMaps(scores.astype(np.float32), class_maps.astype(np.float32), maps[drawers[0]].logit_maps)


def _weights(places: Sequence[int], members: Sequence[MemberSettings]) -> list[float]:
    return [members[place].weight for place in places]
