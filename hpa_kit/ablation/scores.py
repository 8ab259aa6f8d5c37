"""What a submission of known cells is worth: of its image scores, and of its cells."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.ablation.classifiers import Score
from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path
from hpa_kit.submission import evaluate, read_submission
from hpa_kit.submission.table import parse_prediction, parse_truth
from hpa_kit.tables import read_table

COLUMNS = ("variant", "seed", "masks", "measure", "value")
OLD_VARIANT = "rung"  # the first column's name in tables that were written before
IMAGE_MAP = "image mAP"


class Results:
    """All that was measured so far, kept as CSV.

    Args:
        path: the CSV; what it holds already is taken over.

    Raises:
        InputError: it is no such table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[tuple[str, int, str, str], float] = {}
        if path.exists():
            table = read_table(path, COLUMNS[1:]).rename(columns={OLD_VARIANT: COLUMNS[0]})
            if COLUMNS[0] not in table:
                raise InputError(f"ablation: {path} has no column {COLUMNS[0]}; delete it to measure anew")
            for row in table[list(COLUMNS)].itertuples(index=False, name=None):
                try:
                    self._values[row[0], int(row[1]), row[2], row[3]] = float(row[4])
                except ValueError as error:
                    raise InputError(f"ablation: {path} is damaged: {error}; delete it") from None

    def has(self, score: Score) -> bool:
        """Whether a submission was measured."""
        return (score.variant, score.seed, score.masks, score.rule) in self._values

    def measure(self, score: Score, truth: Path, submission: Path) -> dict[str, float]:
        """Measure a submission and keep what comes of it, by the name of the measure.

        Where image scores were copied to all cells, they are measured as such too.

        Raises:
            InputError: a file cannot be used, or the truth shows no class.
        """
        found = {score.rule: cell_map(truth, submission)}
        if score.rule == "copied":
            found = {IMAGE_MAP: image_map(truth, submission)} | found
        for measure, value in found.items():
            self._values[score.variant, score.seed, score.masks, measure] = value
        with atomic_path(self.path) as temporary:
            self.table().to_csv(temporary, index=False, lineterminator="\n")
        return found

    def table(self) -> pd.DataFrame:
        """Columns ``variant``, ``seed``, ``masks``, ``measure``, ``value``; one row per number."""
        rows = [(*key, value) for key, value in self._values.items()]
        return pd.DataFrame(rows, columns=list(COLUMNS))


def cell_map(truth: Path, submission: Path) -> float:
    """Measure the competition's score.

    Raises:
        InputError: a file cannot be used, or the truth shows no class.
    """
    found = evaluate(truth, submission).mean_ap
    if found is None:
        raise InputError(f"ablation: {truth} shows no class in any cell; there is nothing to score")
    return found


def image_map(truth: Path, submission: Path) -> float:
    """Average, over the classes that test fields show, the average precision of image scores.

    A field's label is what its cells show, and Negative only where they show nothing else, as in the
    competition's tables; its score for a class is its cells' highest.

    Args:
        truth: pairs of class and mask per field.
        submission: of the rule ``copied``.

    Raises:
        InputError: a file cannot be used, or the truth shows no class.
    """
    labels = {id: _label(text) for id, text in _rows(truth)}
    scores = {id: _highest(text) for id, text in _rows(submission)}
    shown = np.stack(list(labels.values()))
    given = np.stack([scores.get(id, np.zeros(N_CLASSES)) for id in labels])
    return mean_average_precision(shown, given)


def mean_average_precision(shown: NDArray[np.bool_], given: NDArray[np.float64]) -> float:
    """Average, over classes that occur, the mean precision at each field that shows the class.

    Args:
        shown: bool (fields, classes).
        given: float (fields, classes), scores; fields of equal score count together.

    Raises:
        InputError: no class occurs.
    """
    from sklearn.metrics import average_precision_score

    present = np.flatnonzero(shown.any(axis=0))
    if not len(present):
        raise InputError("ablation: no test field shows any class; there is nothing to score")
    return float(np.mean([average_precision_score(shown[:, c], given[:, c]) for c in present]))


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    table = read_submission(path)
    return zip(table["ID"], table["PredictionString"], strict=True)


def _label(text: str) -> NDArray[np.bool_]:
    label = np.zeros(N_CLASSES, dtype=bool)
    label[parse_truth(text).classes] = True
    label[NEGATIVE] &= not np.delete(label, NEGATIVE).any()
    return label


def _highest(text: str) -> NDArray[np.float64]:
    found = parse_prediction(text)
    highest = np.zeros(N_CLASSES)
    np.maximum.at(highest, np.array(found.classes, dtype=int), np.array(found.confidences, dtype=float))
    return highest
