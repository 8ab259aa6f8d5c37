"""How a cell's confidence is formed, by name; and the table of cell scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.classes import CLASSES, NEGATIVE
from hpa_kit.config import Rule
from hpa_kit.inference.scoring import copy_image_scores, score_cells, score_cells_mean_logit
from hpa_kit.submission import prediction_string

CLASS_COLUMNS = tuple(location.name for location in CLASSES)


@dataclass(frozen=True)
class FieldEvidence:
    """All that a rule may look at: what the members say of a field, and where its cells are.

    Attributes:
        image_scores: float32 (19,) in [0, 1].
        class_maps: float32 (19, m, m) in [0, 1]; without pixels where no rule asked for them.
        logit_maps: float32 (19, m, m), the classifiers' maps before any ReLU; likewise.
        cells, nuclei: int32 (H, W), at any scale.
        green: (H, W), 0 to 255.
        n_cells: number of cells of the field; a reduced ``cells`` may have lost some.
    """

    image_scores: NDArray[np.float32]
    class_maps: NDArray[np.float32]
    logit_maps: NDArray[np.float32]
    cells: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    green: NDArray[np.number]
    n_cells: int


@dataclass(frozen=True)
class ScoringRule:
    """A rule, and which maps it looks at, so that the others need not be made.

    Calling it with a :class:`FieldEvidence` gives float64 (n_cells, 19), row i for cell i + 1.
    """

    score: Callable[[FieldEvidence], NDArray[np.float64]]
    class_maps: bool = False
    logit_maps: bool = False

    def __call__(self, seen: FieldEvidence) -> NDArray[np.float64]:
        """Score every cell of a field."""
        return self.score(seen)


def _cam_share(seen: FieldEvidence) -> NDArray[np.float64]:
    return score_cells(
        seen.class_maps, seen.cells, seen.nuclei, seen.image_scores, seen.green, n_cells=seen.n_cells
    )


def _mean_logit(seen: FieldEvidence) -> NDArray[np.float64]:
    return score_cells_mean_logit(seen.logit_maps, seen.cells, seen.image_scores, n_cells=seen.n_cells)


def _mean_logit_negative(seen: FieldEvidence) -> NDArray[np.float64]:
    """As mean_logit, but a cell is Negative as far as it shows no other class: the least of all 1 - p.

    Image labels never say Negative of a field whose other cells show something, so a classifier cannot learn
    it; several of the competition's best teams formed it like this.
    """
    rows = _mean_logit(seen)
    nothing_else = (1 - np.delete(rows, NEGATIVE, axis=1)).min(axis=1)
    rows[:, NEGATIVE] = np.where(rows.any(axis=1), nothing_else, 0)  # a cell that no pixel shows stays at 0
    return rows


def _copied(seen: FieldEvidence) -> NDArray[np.float64]:
    return copy_image_scores(seen.image_scores, seen.n_cells)


RULES: dict[Rule, ScoringRule] = {
    "cam_share": ScoringRule(_cam_share, class_maps=True),
    "mean_logit": ScoringRule(_mean_logit, logit_maps=True),
    "mean_logit_negative": ScoringRule(_mean_logit_negative, logit_maps=True),
    "copied": ScoringRule(_copied),
}


def score_field(id: str, seen: FieldEvidence, rule: ScoringRule) -> pd.DataFrame:
    """The cell scores of one field.

    Args:
        id: the field's ID.
        seen: what the members say of it, and its cells.
        rule: one of :data:`RULES`.

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
