"""Scoring functions by name: how a cell's confidence is formed; and the table of cell scores."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import EnsembleSettings, Form, Rule, Settings
from hpa_kit.config.kinds import DEFAULT_FORM, RULE_NAMES
from hpa_kit.config.scoring import FloorStep, NegativeStep, make_step
from hpa_kit.data.cell_scores import CLASS_COLUMNS
from hpa_kit.errors import InputError
from hpa_kit.scoring.cam_share import score_cells
from hpa_kit.scoring.inputs import CellPlaces, checked_scores
from hpa_kit.scoring.mean_logit import copy_image_scores, mean_logits, score_cells_mean_logit, sigmoid
from hpa_kit.scoring.post_processing import apply_steps, cell_context
from hpa_kit.scoring.quantile import score_cells_quantile
from hpa_kit.submission import prediction_string


@dataclass(frozen=True)
class FieldEvidence:
    """All that a scoring function may look at: what the members say of a field, and where its cells are.

    Attributes:
        image_scores: float32 (19,) in [0, 1].
        class_maps: float32 (19, m, m) in [0, 1]; without pixels where nobody asked for them.
        logit_maps: float32 (19, m, m), the classifiers' maps before any ReLU; likewise.
        cells, nuclei: int32 (H, W), at any scale.
        green: (H, W), 0 to 255.
        n_cells: number of cells of the field.
        places: of the cells of the whole field: a reduced ``cells`` may have lost some of them.
        cell_logits: float32 (n_cells, 19), by members that look at cells rather than make maps; None where
            there is no such member.
        cell_weight: their part of the weight of all that say something of cells, from 0 to 1.
    """

    image_scores: NDArray[np.float32]
    class_maps: NDArray[np.float32]
    logit_maps: NDArray[np.float32]
    cells: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    green: NDArray[np.number]
    n_cells: int
    places: CellPlaces | None = None
    cell_logits: NDArray[np.float32] | None = None
    cell_weight: float = 0.0


@dataclass(frozen=True)
class ScoringFunction:
    """How cells are scored, from which maps (others need not be made), and the post-processing that follows.

    Calling it with a :class:`FieldEvidence` gives float64 (n_cells, 19), row i for cell i + 1.
    """

    score: Callable[[FieldEvidence], NDArray[np.float64]]
    class_maps: bool = False
    logit_maps: bool = False
    steps: tuple[Settings, ...] = ()
    merged: bool = True  # cell logits of the competition's classes; else of all that SubCell tells apart

    def __call__(self, seen: FieldEvidence) -> NDArray[np.float64]:
        """Score every cell of a field.

        Raises:
            InputError: ``score`` gives no such table of numbers in [0, 1].
        """
        rows = _checked(self.score(seen), seen.n_cells)
        if not self.steps:
            return rows
        context = cell_context(seen.image_scores, seen.cells, seen.n_cells, seen.places)
        return apply_steps(rows, context, self.steps)


def _checked(rows: NDArray[np.float64], n_cells: int) -> NDArray[np.float64]:
    """The rows of a scoring function, which may be anybody's, in the form that all that follows takes."""
    rows = np.asarray(rows, dtype=np.float64)
    if rows.shape != (n_cells, N_CLASSES):
        raise InputError(f"rule: it gives {rows.shape}; expected ({n_cells}, {N_CLASSES}), a row per cell")
    if not ((rows >= 0) & (rows <= 1 + 1e-6)).all():  # means of float32 maps may round above 1
        raise InputError(
            f"rule: it gives values from {rows.min()} to {rows.max()}; expected confidences from 0 to 1"
        )
    return rows


def _cam_share(seen: FieldEvidence, form: Form = DEFAULT_FORM) -> NDArray[np.float64]:
    return score_cells(
        seen.class_maps, seen.cells, seen.nuclei, seen.image_scores, seen.green, seen.n_cells, form, True
    )


def _mean_logit(seen: FieldEvidence) -> NDArray[np.float64]:
    known = (seen.cells, seen.image_scores, seen.n_cells, seen.places)
    if seen.cell_logits is None:
        return score_cells_mean_logit(seen.logit_maps, *known)
    logits = np.asarray(seen.cell_logits, np.float64)
    if seen.cell_weight < 1:
        of_maps = mean_logits(seen.logit_maps, seen.cells, seen.n_cells, seen.places)
        mixed = seen.cell_weight * logits + (1 - seen.cell_weight) * of_maps
        logits = np.where(np.isnan(of_maps), logits, mixed)
    return checked_scores(seen.image_scores) * sigmoid(logits)


def _cell_logit(seen: FieldEvidence) -> NDArray[np.float64]:
    return _mean_logit(replace(seen, image_scores=np.ones(N_CLASSES, np.float32)))


def _quantile(seen: FieldEvidence) -> NDArray[np.float64]:
    known = (seen.cells, seen.image_scores, seen.n_cells, seen.places)
    return score_cells_quantile(seen.class_maps, *known)


def _copied(seen: FieldEvidence) -> NDArray[np.float64]:
    return copy_image_scores(seen.image_scores, seen.n_cells)


# mean_logit: image score x sigmoid(mean logit in the cell). mean_logit_negative: a cell is Negative as far as
# it shows no other class, for image labels never say Negative of a field whose other cells show something, so
# a classifier cannot learn it; several of the competition's best teams formed it like this. best: the same
# without scores too low to matter, which only make the submission large. cell_logit: without the image's
# score, to be calibrated or fused by steps.
SCORING_FUNCTIONS: dict[Rule, ScoringFunction] = {
    "best": ScoringFunction(_mean_logit, logit_maps=True, steps=(NegativeStep(), FloorStep())),
    "cam_share": ScoringFunction(_cam_share, class_maps=True),
    "mean_logit": ScoringFunction(_mean_logit, logit_maps=True),
    "mean_logit_negative": ScoringFunction(_mean_logit, logit_maps=True, steps=(NegativeStep(),)),
    "cell_logit": ScoringFunction(_cell_logit, logit_maps=True),
    "quantile": ScoringFunction(_quantile, class_maps=True),
    "copied": ScoringFunction(_copied),
}
BUILT_IN = frozenset(SCORING_FUNCTIONS)


def add_rule(
    name: str,
    score: Callable[[FieldEvidence], NDArray[np.float64]],
    class_maps: bool = False,
    logit_maps: bool = False,
    steps: Sequence[Settings | str] = (),
) -> None:
    """Add a scoring function of your own: settings, ensembles' YAML and ``--rule`` take its name from now on.

    Call it before settings with that name are made. Adding one of your own again replaces it.

    Args:
        name: what to call it.
        score: a :class:`FieldEvidence` -> (n_cells, 19) confidences in [0, 1], row i for cell i + 1. It is
            called by several threads.
        class_maps, logit_maps: which maps it looks at; others may have no pixels.
        steps: what is done to its scores before those of the ensemble, as settings or by name; see
            :mod:`hpa_kit.config.scoring`.

    Raises:
        InputError: the kit has one of that name, or no step of one.
    """
    if name in BUILT_IN:
        raise InputError(f"rule: {name!r} is one of the kit's own; give yours another name")
    SCORING_FUNCTIONS[name] = ScoringFunction(
        score, class_maps, logit_maps, tuple(make_step(step) for step in steps)
    )
    if name not in RULE_NAMES:
        RULE_NAMES.append(name)


def code_of(name: Rule) -> Path | str:
    """What results depend on beside a scoring function's name: of one of your own the file it stands in.

    One that was typed in, as in a notebook, is taken for another in every process.
    """
    if name in BUILT_IN:
        return ""
    module = sys.modules.get(getattr(SCORING_FUNCTIONS[name].score, "__module__", ""))
    file = getattr(module, "__file__", None)
    return Path(file) if file else uuid4().hex


def scoring_function(
    name: Rule, form: Form = DEFAULT_FORM, steps: Sequence[Settings] = ()
) -> ScoringFunction:
    """A scoring function by name, with steps after its own.

    Args:
        name: one of :data:`SCORING_FUNCTIONS`.
        form: of ``cam_share``, see :func:`~hpa_kit.inference.score_cells`; the others have none.
        steps: what is done to its scores, in order; see :mod:`hpa_kit.config.scoring`.
    """
    rule = SCORING_FUNCTIONS[name]
    score = partial(_cam_share, form=form) if name == "cam_share" else rule.score
    return replace(rule, score=score, steps=(*rule.steps, *steps))


def scoring_of(settings: EnsembleSettings) -> ScoringFunction:
    """The scoring function that an ensemble's settings ask for."""
    return scoring_function(settings.rule, settings.form, settings.steps)


def score_field(id: str, seen: FieldEvidence, rule: ScoringFunction) -> pd.DataFrame:
    """The cell scores of one field.

    Args:
        id: the field's ID.
        seen: what the members say of it, and its cells.
        rule: one of :data:`SCORING_FUNCTIONS`, or of :func:`scoring_function`.

    Returns:
        One row per cell, rising: ``ID`` (text), ``cell`` (from 1), and a column per class by name
        (:data:`CLASS_COLUMNS`, float64).
    """
    scores = pd.DataFrame(rule(seen), columns=list(CLASS_COLUMNS))
    scores.insert(0, "ID", pd.Series([id] * len(scores), dtype=object))
    scores.insert(1, "cell", np.arange(1, len(scores) + 1))
    return scores


def scores_to_prediction(scores: pd.DataFrame, masks: Mapping[int, str]) -> str:
    """Cell scores of one field, and its cells' mask strings -> its prediction string."""
    return prediction_string(scores[list(CLASS_COLUMNS)].to_numpy(), masks)
