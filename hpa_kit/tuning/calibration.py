"""Probabilities from cell and image logits, fitted on fields that members have not seen."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import N_CLASSES
from hpa_kit.config.scoring import CalibrateStep

MIN_OF_A_KIND = 10  # examples of yes and of no from which a class is fitted by itself
MAX_EXAMPLES = 50_000  # more change nothing but the time
DIGITS = 4


class _Line(NamedTuple):
    """The logit of a probability: slope x cell's logit + image x image's logit + intercept."""

    slope: float
    image: float
    intercept: float


def fit_calibration(
    cell_logits: NDArray[np.floating], image_logits: NDArray[np.floating], right: NDArray[np.bool_]
) -> CalibrateStep:
    """Fit the step ``calibrate``: per class a logistic regression on two logits (Platt 1999, with one more).

    A class with few examples, or whose probability would fall with the cell's logit, takes the line of all
    classes together; where that is no better, the cell's logit stays as it is.

    Args:
        cell_logits: (n, 19), of cells.
        image_logits: (n, 19), of their images.
        right: bool (n, 19), whether the cell shows the class.
    """
    step = max(1, len(right) // MAX_EXAMPLES)
    cells, images, truth = cell_logits[::step], image_logits[::step], right[::step]
    shared = _fit(cells.ravel(), images.ravel(), truth.ravel()) or _Line(1, 0, 0)
    lines = [_fit(cells[:, k], images[:, k], truth[:, k]) or shared for k in range(N_CLASSES)]
    slope, image, intercept = (
        tuple(round(value, DIGITS) for value in part) for part in zip(*lines, strict=True)
    )
    return CalibrateStep(slope=slope, image=image, intercept=intercept)


def _fit(cells: NDArray[np.floating], images: NDArray[np.floating], right: NDArray[np.bool_]) -> _Line | None:
    if min(right.sum(), (~right).sum()) < MIN_OF_A_KIND:
        return None
    # Here, because scikit-learn takes a second to import.
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="newton-cholesky").fit(np.stack([cells, images], axis=1), right)
    slope, image = model.coef_[0]
    return _Line(float(slope), float(image), float(model.intercept_[0])) if slope > 0 else None
