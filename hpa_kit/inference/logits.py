"""Probabilities and their logits."""

import numpy as np
from numpy.typing import NDArray

LEAST_PROBABILITY = 1e-6  # probabilities this near to 0 or 1 have no larger logit


def logit(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """The logit of probabilities, finite for 0 and 1 too."""
    inside = np.clip(np.asarray(p, np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def sigmoid(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of :func:`logit`, for values of any size."""
    return np.asarray(1 / (1 + np.exp(-np.clip(np.asarray(x, np.float64), -500, 500))))
