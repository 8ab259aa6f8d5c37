"""Scoring cells by their mean logit; probabilities and their logits."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.cells import resized
from hpa_kit.classes import N_CLASSES
from hpa_kit.scoring.inputs import CellPlaces, checked_labels, checked_maps, checked_scores, fill_lost
from hpa_kit.scoring.pixel_runs import areas, find_runs, sum_plane

MIN_PROBABILITY = 1e-6  # probabilities this near to 0 or 1 have no larger logit


def logit(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """The logit of probabilities, finite for 0 and 1 too."""
    inside = np.clip(np.asarray(p, np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def sigmoid(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of :func:`logit`, for values of any size."""
    return np.asarray(1 / (1 + np.exp(-np.clip(np.asarray(x, np.float64), -500, 500))))


def score_cells_mean_logit(
    logit_maps: ArrayLike,
    cells: ArrayLike,
    image_scores: ArrayLike,
    n_cells: int | None = None,
    places: CellPlaces | None = None,
) -> NDArray[np.float64]:
    """Score every cell by image score x sigmoid(mean logit in the cell).

    The mean of a cell that no pixel of the maps shows is the value at its centre of mass.

    Args:
        logit_maps: (19, h, w), the classifier's maps before any ReLU, whose mean is the image's logit.
        cells: integer (H, W), 0 background, 1…n; resized to (h, w), see :func:`~hpa_kit.cells.resized`.
        image_scores: (19,) in [0, 1].
        n_cells: as for :func:`score_cells`.
        places: of the field's cells, where ``cells`` was made smaller before and may have lost some.

    Returns:
        float64 (n, 19), every class for every cell; all 0 for a number that no pixel has.

    Raises:
        InputError: a shape, a dtype or a value is not as above.
    """
    mean = mean_logits(logit_maps, cells, n_cells, places)
    scores = checked_scores(image_scores)
    shown = ~np.isnan(mean)
    return np.where(shown, scores * sigmoid(np.where(shown, mean, 0)), 0)


def mean_logits(
    logit_maps: ArrayLike,
    cells: ArrayLike,
    n_cells: int | None = None,
    places: CellPlaces | None = None,
) -> NDArray[np.float64]:
    """The mean of every logit map in every cell: float64 (n, 19), NaN where the scores would be all 0.

    Takes, and raises, what :func:`score_cells_mean_logit` does.
    """
    maps = checked_maps(logit_maps, "logit maps")
    labels, n_cells = checked_labels(cells, "cells", n_cells)
    if n_cells == 0:
        return np.zeros((0, N_CLASSES))
    runs = find_runs(resized(labels, maps.shape[1:]))
    pixels = areas(runs, n_cells).sum(axis=1)
    sums = np.stack([sum_plane(plane, runs, n_cells) for plane in maps], axis=1)
    mean = np.where(pixels[:, None] > 0, sums / np.maximum(pixels, 1)[:, None], np.nan)
    fill_lost(mean, maps, pixels > 0, labels, places)
    return mean


def copy_image_scores(image_scores: ArrayLike, n_cells: int) -> NDArray[np.float64]:
    """Give every cell the scores of its image: the baseline that cell scores have to beat.

    Args:
        image_scores: (19,) in [0, 1].
        n_cells: number of cells.

    Returns:
        float64 (n_cells, 19).
    """
    return np.tile(checked_scores(image_scores), (n_cells, 1))
