"""Post-processing of cell scores: the steps of an ensemble's YAML, by name; see hpa_kit.config.scoring."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.config import Settings
from hpa_kit.config.scoring import CalibrateStep, FillStep, FloorStep, FuseStep, SmallStep
from hpa_kit.errors import InputError
from hpa_kit.scoring.cam_share import NEGATIVE_CONFIDENCE
from hpa_kit.scoring.inputs import CellPlaces, cell_places, checked_scores
from hpa_kit.scoring.mean_logit import logit, sigmoid

Rows = NDArray[np.float64]

FULL_SIDE = 2048  # of the field in whose pixels areas are given


class CellContext(NamedTuple):
    """What steps know of a field beside its cells' scores.

    Attributes:
        image_scores: float64 (19,).
        areas: float64 (n,), of each cell in pixels of a field of 2048 x 2048.
        cut: bool (n,), whether a cell touches the border.
    """

    image_scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    cut: NDArray[np.bool_]


def cell_context(
    image_scores: NDArray[np.floating],
    cells: NDArray[np.int32],
    n_cells: int,
    places: CellPlaces | None = None,
) -> CellContext:
    """The context of a field, from its cells' places or else from its label map at any scale."""
    known = cell_places(cells) if places is None else places
    areas, cut = np.zeros(n_cells), np.zeros(n_cells, bool)
    n = min(n_cells, len(known.area))
    areas[:n] = known.area[:n] * FULL_SIDE**2
    cut[:n] = known.cut[:n]
    return CellContext(np.asarray(image_scores, np.float64), areas, cut)


def apply_steps(rows: Rows, context: CellContext, steps: Sequence[Settings]) -> Rows:
    """Cell scores after all steps, in order.

    A cell without any score, too small to be seen, stays without.

    Args:
        rows: float64 (n, 19); left as they are.
        context: of their field.
        steps: settings of steps, see :mod:`hpa_kit.config.scoring`.
    """
    seen = rows.any(axis=1)
    if not seen.any():
        return rows
    # Steps see only cells with scores, so that the others weigh in no mean.
    part = CellContext(context.image_scores, context.areas[seen], context.cut[seen])
    some = rows[seen].copy()
    for step in steps:
        some = _STEPS[step.step](some, part, step)  # type: ignore[attr-defined]
    adjusted = np.zeros_like(rows)
    adjusted[seen] = some
    return adjusted


def settle_negative(rows: ArrayLike, image_scores: ArrayLike) -> NDArray[np.float64]:
    """The 15th place's Negative check: a cell is Negative alone or not at all.

    Where Negative is the image's top class, every cell is Negative at 0.75 and nothing else. Elsewhere
    Negative stays alone with a cell of which it is the most confident class, and is dropped from the others.
    The 15th place used it for pseudo labels, with the known labels as image scores, not for its submission.

    Args:
        rows: (n, 19) cell scores; left as they are. A cell without any score stays without.
        image_scores: (19,) scores or known labels.

    Returns:
        float64 (n, 19).

    Raises:
        InputError: ``rows`` has another shape, or the image scores are not as above.
    """
    settled = np.array(rows, dtype=np.float64)
    if settled.ndim != 2 or settled.shape[1] != N_CLASSES:
        raise InputError(f"scores: expected shape (n_cells, {N_CLASSES}), found {settled.shape}")
    if not len(settled):
        return settled
    scored = settled.any(axis=1)
    if int(np.argmax(checked_scores(image_scores))) == NEGATIVE:
        settled[:] = 0
        settled[scored, NEGATIVE] = NEGATIVE_CONFIDENCE
        return settled
    alone = scored & (settled.argmax(axis=1) == NEGATIVE)
    settled[~alone, NEGATIVE] = 0
    settled[alone, :NEGATIVE] = 0
    return settled


def _image(rows: Rows, context: CellContext, step: Settings) -> Rows:
    return rows * context.image_scores


def _fuse(rows: Rows, context: CellContext, step: FuseStep) -> Rows:
    return step.cell * rows + (1 - step.cell) * rows.mean(axis=0)


def _calibrate(rows: Rows, context: CellContext, step: CalibrateStep) -> Rows:
    slope, image, intercept = (np.array(part) for part in (step.slope, step.image, step.intercept))
    return sigmoid(slope * logit(rows) + image * logit(context.image_scores) + intercept)


def _negative(rows: Rows, context: CellContext, step: Settings) -> Rows:
    rows[:, NEGATIVE] = (1 - np.delete(rows, NEGATIVE, axis=1)).min(axis=1)
    return rows


def _others(rows: Rows, context: CellContext, step: Settings) -> Rows:
    rows[:, :NEGATIVE] *= 1 - rows[:, [NEGATIVE]]
    return rows


def _small(rows: Rows, context: CellContext, step: SmallStep) -> Rows:
    full = np.where(context.cut, step.border, step.inside)
    part = np.divide(context.areas, full, out=np.ones(len(rows)), where=full > 0)
    return rows * np.minimum(1, part)[:, None]


def _fill(rows: Rows, context: CellContext, step: FillStep) -> Rows:
    return np.where(rows > 0, rows, step.part * context.image_scores)


def _floor(rows: Rows, context: CellContext, step: FloorStep) -> Rows:
    return np.where(rows >= step.least, rows, 0)


def _negative_check(rows: Rows, context: CellContext, step: Settings) -> Rows:
    return settle_negative(rows, context.image_scores)


_STEPS: dict[str, Callable[[Rows, CellContext, Any], Rows]] = {
    "image": _image,
    "fuse": _fuse,
    "calibrate": _calibrate,
    "negative": _negative,
    "others": _others,
    "small": _small,
    "fill": _fill,
    "floor": _floor,
    "negative_check": _negative_check,
}
