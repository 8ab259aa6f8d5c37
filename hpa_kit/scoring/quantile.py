"""Scoring cells by the high values of their class maps."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.cells import resized
from hpa_kit.classes import N_CLASSES
from hpa_kit.jit import njit
from hpa_kit.scoring.inputs import CellPlaces, checked_labels, checked_maps, checked_scores, fill_lost

QUANTILE = 0.99


def score_cells_quantile(
    class_maps: ArrayLike,
    cells: ArrayLike,
    image_scores: ArrayLike,
    n_cells: int | None = None,
    places: CellPlaces | None = None,
) -> NDArray[np.float64]:
    """Score every cell by p x Q99 of its map / Q99 of the whole map, cut at p, the image score.

    How the competition's 3rd place scored cells: the strongest cell has the image's score, the others less as
    far as they show less. The maps' own scale does not matter. The quantile of a cell that no pixel of the
    maps shows is the value at its centre of mass.

    Args:
        class_maps: (19, h, w), not below 0.
        cells: integer (H, W), 0 background, 1…n; resized to (h, w), see :func:`~hpa_kit.cells.resized`.
        image_scores: (19,) in [0, 1].
        n_cells: as for :func:`~hpa_kit.inference.score_cells`.
        places: of the field's cells, where ``cells`` was made smaller before and may have lost some.

    Returns:
        float64 (n, 19); 0 for a class whose map is empty, and for a number that no pixel has.

    Raises:
        InputError: a shape, a dtype or a value is not as above.
    """
    maps = checked_maps(class_maps, "class maps")
    labels, n_cells = checked_labels(cells, "cells", n_cells)
    scores = checked_scores(image_scores)
    if n_cells == 0:
        return np.zeros((0, N_CLASSES))
    flat = resized(labels, maps.shape[1:]).ravel()
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(1, n_cells + 2))
    planes = maps.reshape(N_CLASSES, -1)
    of_cells = _quantiles(planes, order, starts, QUANTILE)
    fill_lost(of_cells, maps, np.diff(starts) > 0, labels, places)
    of_image = np.quantile(planes, QUANTILE, axis=1).astype(np.float64)
    ratio = of_cells / np.where(of_image > 0, of_image, np.inf)
    # A few bright pixels in one cell leave the image's quantile at nothing; that cell has it all.
    ratio = np.where((of_image <= 0) & (of_cells > 0), 1, ratio)
    return np.asarray(scores * np.clip(ratio, 0, 1))


@njit
def _quantiles(planes, order, starts, q):  # type: ignore[no-untyped-def]
    """Quantile of every plane over the pixels ``order[starts[i] : starts[i + 1]]``, between neighbours."""
    found = np.zeros((len(starts) - 1, len(planes)))
    for i in range(len(starts) - 1):
        n = starts[i + 1] - starts[i]
        if n == 0:
            continue
        place = q * (n - 1)
        low = int(place)
        high = min(low + 1, n - 1)
        for k in range(len(planes)):
            values = planes[k][order[starts[i] : starts[i + 1]]]
            # From the low place on, everything is at least as large; the least of it stands beside it.
            split = np.partition(values, low)
            above = split[low]
            if high > low:
                above = split[high:].min()
            found[i, k] = split[low] + (place - low) * (above - split[low])
    return found
