"""How well a classifier does on image labels."""

import numpy as np
from numpy.typing import NDArray


def macro_f1(scores: NDArray[np.floating], targets: NDArray[np.floating], threshold: float = 0.5) -> float:
    """Mean over classes of F1; classes that no field of ``targets`` shows are left out.

    Args:
        scores: float (n, classes), probabilities.
        targets: (n, classes) of zeros and ones.
        threshold: a class is given where its score is above it.

    Returns:
        0 to 1; NaN where no field shows any class.
    """
    given, true = scores > threshold, targets > 0.5
    shown = true.any(axis=0)
    if not shown.any():
        return float("nan")
    hits = (given & true).sum(axis=0)[shown]
    total = given.sum(axis=0)[shown] + true.sum(axis=0)[shown]
    return float(np.mean(2 * hits / total))
