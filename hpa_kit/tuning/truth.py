"""The truth of every cell, compared once with the cells that were found."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import N_CLASSES
from hpa_kit.errors import InputError
from hpa_kit.submission import encode_label_map, read_submission
from hpa_kit.submission.rle import mask_runs
from hpa_kit.submission.runs import overlaps
from hpa_kit.submission.table import parse_truth

MATCH = 0.6  # IoU from which the competition takes a cell for the true one


class Compared(NamedTuple):
    """Which found cells are right as which class, bool (n, 19); how many there are to find, int64 (19,)."""

    hits: NDArray[np.bool_]
    truth: NDArray[np.int64]


class TrueCells:
    """A truth table.

    Found cells do not overlap, so above half an IoU at most one of them is a true cell's: which are right
    does not depend on confidences, and can be found out once.

    Args:
        path: the CSV, as :func:`hpa_kit.submission.evaluate` takes.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        table = read_submission(path)
        columns = ("ImageHeight", "ImageWidth", "PredictionString")
        self._rows = dict(
            zip(table["ID"], table[list(columns)].itertuples(index=False, name=None), strict=True)
        )

    def __contains__(self, id: str) -> bool:
        return id in self._rows

    def compare(self, id: str, cells: NDArray[np.int32]) -> Compared:
        """Compare the label map of a field, int32 (H, W), with its true cells.

        Raises:
            InputError: the truth is of another size, or one of its masks cannot be read.
        """
        height, width, text = self._rows[id]
        if cells.shape != (height, width):
            raise InputError(
                f"truth: {self.path}, ID {id} is {(height, width)}; its label map is {cells.shape}"
            )
        truth = parse_truth(text)
        counts = np.bincount(truth.classes, minlength=N_CLASSES)
        hits = np.zeros((int(cells.max(initial=0)), N_CLASSES), bool)
        masks = encode_label_map(cells)
        found, _ = mask_runs(list(masks.values()), height, width)
        true, faults = mask_runs(truth.masks, height, width)
        for fault in filter(None, faults):
            raise InputError(f"truth: {self.path}, ID {id}: a mask cannot be used: {fault}")
        rows = np.array(list(masks), np.int64) - 1
        for cell, mask in np.argwhere(overlaps(found, true) >= MATCH):
            hits[rows[cell], truth.classes[mask]] = True
        return Compared(hits, counts.astype(np.int64))


def no_truth(n_cells: int) -> Compared:
    """What is known where there is no truth: nothing."""
    return Compared(np.zeros((n_cells, N_CLASSES), bool), np.zeros(N_CLASSES, np.int64))
