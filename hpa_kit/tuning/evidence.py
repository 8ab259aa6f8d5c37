"""What each member says of each field's cells, worked out once and kept: what choices are tried on."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import EnsembleSettings, MemberSettings, TuneSettings
from hpa_kit.files import atomic_path, atomic_text, forget_torn
from hpa_kit.flow import Failure, batches
from hpa_kit.inference.ensemble import FieldMaps
from hpa_kit.inference.prediction import Prediction
from hpa_kit.inference.results import MAX_NAMED
from hpa_kit.inference.stream import predict_fields
from hpa_kit.scoring import scoring_rule
from hpa_kit.scoring.mean_logit import mean_logits
from hpa_kit.scoring.post_processing import cell_context
from hpa_kit.training.member import checkpoint_file
from hpa_kit.tuning.truth import Compared, TrueCells, no_truth

log = logging.getLogger(__name__)

STATE = "evidence.yaml"
# Rules that are not linear in the maps: their scores are kept for the weights that were given.
MAP_RULES = {
    "cam_share mean_share": scoring_rule("cam_share", "mean_share"),
    "cam_share max_share": scoring_rule("cam_share", "max_share"),
    "cam_share mean": scoring_rule("cam_share", "mean"),
    "cam_share max": scoring_rule("cam_share", "max"),
    "quantile": scoring_rule("quantile"),
}


class Evidence(NamedTuple):
    """One field of n cells as M members see it; members that have learnt from it say NaN.

    Attributes:
        image_scores: float32 (M, 19).
        logits: float32 (M, n, 19), means of the logit maps in the cells.
        rows: float32 (rules, n, 19), scores by :data:`MAP_RULES` with the weights that were given.
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
    images: Path,
    cache: Path,
    members_of: Mapping[str, Sequence[int]],
    truth: TrueCells | None,
) -> dict[str, Evidence]:
    """Work out the evidence of fields, or take what is kept of them.

    Args:
        settings: of the command.
        ensemble: whose members are asked.
        images: folder of the fields.
        cache: folder that keeps ``ID.npz``.
        members_of: {ID: places of the members that have not learnt from it}.
        truth: the true cells, or None.

    Returns:
        The evidence of all fields, in order; those that cannot be used are said and left out.
    """
    _forget_others(settings, ensemble, images, cache, members_of)
    lacking = [id for id in members_of if not _path(cache, id).is_file()]
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
            with atomic_path(_path(cache, prediction.id)) as temporary:
                np.savez_compressed(temporary, **made._asdict())
    for id, reason in list(failed.items())[:MAX_NAMED]:
        log.warning(f"tune: ID {id} is left out: {reason}")
    if failed:
        log.warning(f"tune: {len(failed)} of {len(lacking)} fields could not be used")
    return {id: _read(_path(cache, id)) for id in members_of if _path(cache, id).is_file()}


def _path(cache: Path, id: str) -> Path:
    return cache / f"{id}.npz"


def _read(path: Path) -> Evidence:
    with np.load(path, allow_pickle=False) as arrays:
        return Evidence(*(arrays[name] for name in Evidence._fields))


def _forget_others(
    settings: TuneSettings, ensemble: EnsembleSettings, images: Path, cache: Path, ids: Iterable[str]
) -> None:
    """Drop what is kept where it was made by other members or otherwise."""
    forget_torn(cache)
    members = [
        member.model_dump(mode="json") | _as_it_is(checkpoint_file(member.checkpoint))
        for member in ensemble.members
    ]
    chosen = ensemble.model_dump(mode="json", include={"map_size", "masks", "segmenter", "weights"})
    path = settings.truth
    truth = None if path is None else {"path": str(path)} | _as_it_is(path)
    made_from = chosen | {"images": str(images), "truth": truth, "members": members}
    text, state = yaml.safe_dump(made_from, sort_keys=False), cache / STATE
    if state.is_file() and state.read_text(encoding="utf-8") == text:
        return
    if state.is_file():
        log.info(f"tune: {cache} was made from other members, weights or masks; it is made again")
        for id in ids:
            _path(cache, id).unlink(missing_ok=True)
    atomic_text(state, text)


def _as_it_is(file: Path) -> dict[str, int]:
    """What changes when a file does."""
    stat = file.stat()
    return {"bytes": stat.st_size, "time": stat.st_mtime_ns}


def _evidence(prediction: Prediction, ensemble: EnsembleSettings) -> Evidence:
    field, n_members = prediction.prepared, len(ensemble.members)
    scores = np.full((n_members, N_CLASSES), np.nan, np.float32)
    logits = np.full((n_members, field.n_cells, N_CLASSES), np.nan, np.float32)
    for place, says in prediction.each.items():
        scores[place] = says.image_scores
        logits[place] = mean_logits(says.logit_maps, field.cells, field.n_cells, field.places)
    together = field.evidence(combined(prediction.each, ensemble.members))
    rows = np.stack([rule(together) for rule in MAP_RULES.values()]).astype(np.float32)
    context = cell_context(together.image_scores, field.cells, field.n_cells, field.places)
    truth: Compared = field.details or no_truth(field.n_cells)
    return Evidence(scores, logits, rows, context.areas, context.cut, *truth)


def combined(maps: Mapping[int, FieldMaps], members: Sequence[MemberSettings]) -> FieldMaps:
    """What members say together, by weight and mode, as :class:`~hpa_kit.inference.Ensemble` has it."""
    givers = [place for place in maps if members[place].gives_scores]
    drawers = [place for place in maps if members[place].gives_maps]
    scores = np.average([maps[k].image_scores for k in givers], axis=0, weights=_weights(givers, members))
    weights = _weights(drawers, members)
    class_maps = np.average([maps[k].class_maps for k in drawers], axis=0, weights=weights)
    return FieldMaps(scores.astype(np.float32), class_maps.astype(np.float32), maps[drawers[0]].logit_maps)


def _weights(places: Sequence[int], members: Sequence[MemberSettings]) -> list[float]:
    return [members[place].weight for place in places]
