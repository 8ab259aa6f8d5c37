"""Steps that adjust cell scores after a rule has formed them, each by name; see hpa_kit.config.scoring."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import NEGATIVE
from hpa_kit.config import Settings
from hpa_kit.config.scoring import CalibrateStep, FillStep, FloorStep, FuseStep, SmallStep
from hpa_kit.inference.logits import logit, sigmoid
from hpa_kit.inference.places import CellPlaces, cell_places
from hpa_kit.inference.scoring import settle_negative

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
