"""The competition's score: mean average precision of cells at mask IoU 0.6."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit.classes import CLASSES, N_CLASSES
from hpa_kit.errors import InputError
from hpa_kit.submission.rle import mask_runs
from hpa_kit.submission.runs import overlaps
from hpa_kit.submission.table import Detections, parse_prediction, parse_truth, read_submission
from hpa_kit.tables import text_table


class Evaluation(NamedTuple):
    """A score: ``ap`` per class (None without truth), their mean (None where no class has truth).

    Printed it is a table, in which a class without truth shows a dash.
    """

    mean_ap: float | None
    ap: dict[int, float | None]

    @property
    def without_truth(self) -> list[int]:
        """Classes left out of the mean because no cell shows them."""
        return [index for index, ap in self.ap.items() if ap is None]

    def __str__(self) -> str:
        rows = [
            [f"{index:2d} {CLASSES[index].name}", "-" if ap is None else f"{ap:.4f}"]
            for index, ap in self.ap.items()
        ]
        mean = "no truth" if self.mean_ap is None else f"{self.mean_ap:.4f}"
        return text_table(["class", "AP"], [*rows, ["mean", mean]])


class ComparedField(NamedTuple):
    """One field: its detections, its truth, and the IoU of each detection (rows) with each true cell."""

    id: str
    found: Detections
    truth: Detections
    iou: NDArray[np.float64]


class ClassMatches(NamedTuple):
    """The detections of one class that count: fields in the truth's order, inside a field best first.

    Attributes:
        fields: int64 (n,), which of the compared fields each lies in.
        detections: int64 (n,), its place among that field's detections.
        confidences: float64 (n,).
        taken: int64 (n,), place of the true cell it is right about among the field's truth; -1 is wrong.
        n_truth: how many cells of the class there are to find.
    """

    fields: NDArray[np.int64]
    detections: NDArray[np.int64]
    confidences: NDArray[np.float64]
    taken: NDArray[np.int64]
    n_truth: int


def evaluate(
    truth_csv: str | Path,
    submission_csv: str | Path,
    iou: float = 0.6,
    verified: Literal["all", "present"] = "all",
) -> Evaluation:
    """Score a submission against the truth of every cell.

    The Open Images challenge's metric for instance segmentation. Per class, detections are sorted by
    confidence; inside a field each is compared with the one true cell of the class it overlaps most, and is
    right where the IoU is enough and that cell not yet taken. Equal confidences count in reversed order,
    inside a field and again over all fields in the truth's order. AP is the area under the envelope of
    precision over recall.

    Args:
        truth_csv: ``ID,ImageWidth,ImageHeight,PredictionString`` with ``class mask`` pairs.
        submission_csv: the same columns with ``class confidence mask`` triples. A field of the truth without
            a row has no detections; a row that the truth lacks is left out with a warning. One row at least
            has to be of the truth.
        iou: overlap from which a detection is right; the value itself is enough.
        verified: ``all`` counts every detection; ``present`` leaves out detections of a class that the
            field's truth does not show.

    Raises:
        InputError: a file, a size, a prediction or a mask cannot be used; the file and the ID are named.
    """
    if verified not in ("all", "present"):
        raise InputError(f"evaluate: verified is {verified!r}; expected 'all' or 'present'")
    if not 0 < iou <= 1:
        raise InputError(f"evaluate: iou is {iou}; expected a number above 0, up to 1")
    fields = compare_fields(Path(truth_csv), Path(submission_csv))
    ap = {index: _average_precision(fields, index, iou, verified) for index in range(N_CLASSES)}
    known = [value for value in ap.values() if value is not None]
    return Evaluation(float(np.mean(known)) if known else None, ap)


def compare_fields(truth_csv: Path, submission_csv: Path) -> list[ComparedField]:
    """Read both tables and compare their masks, field by field in the truth's order.

    Raises:
        InputError: as :func:`evaluate`.
    """
    truth, submission = read_submission(truth_csv), read_submission(submission_csv)
    rows = {row[0]: row for row in submission.itertuples(index=False, name=None)}
    if rows.keys().isdisjoint(truth["ID"]):
        raise InputError(
            f"evaluate: {submission_csv} has no field of the truth: its IDs are "
            f"{_such_as(submission['ID'])}, those of {truth_csv} {_such_as(truth['ID'])}; give the truth of "
            "these fields"
        )
    fields = []
    for id, width, height, text in truth.itertuples(index=False, name=None):
        truth_place, place = f"truth: {truth_csv}, ID {id}", f"submission: {submission_csv}, ID {id}"
        _, found_width, found_height, found_text = rows.pop(id, (id, width, height, ""))
        if (found_width, found_height) != (width, height):
            raise InputError(
                f"{place}: size is {found_width} x {found_height}, the truth's is {width} x {height}"
            )
        true_cells = _parsed(parse_truth, text, truth_place)
        found = _parsed(parse_prediction, found_text, place)
        iou = _overlaps(found, true_cells, height, width, place, truth_place)
        fields.append(ComparedField(id, found, true_cells, iou))
    if rows:
        warnings.warn(
            f"evaluate: {len(rows)} rows are not in the truth, such as {next(iter(rows))}", stacklevel=3
        )
    return fields


def _such_as(ids: "pd.Series[str]") -> str:
    shown = ", ".join(ids.iloc[:2])
    return "none" if ids.empty else f"such as {shown}"


def _parsed(parse: Callable[[str], Detections], text: str, place: str) -> Detections:
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _overlaps(
    found: Detections, truth: Detections, height: int, width: int, place: str, truth_place: str
) -> NDArray[np.float64]:
    """IoU of detections with true cells (n, m); a mask that several classes share is read once."""
    sides = []
    for masks, where in ((found.masks, place), (truth.masks, truth_place)):
        distinct = list(dict.fromkeys(masks))
        runs, faults = mask_runs(distinct, height, width)
        for mask, fault in zip(distinct, faults, strict=True):
            if fault:
                raise InputError(f"{where}: mask {mask[:24]} cannot be used: {fault}")
        number = {mask: index for index, mask in enumerate(distinct)}
        sides.append((runs, np.array([number[mask] for mask in masks], dtype=np.int64)))
    (found_runs, found_index), (truth_runs, truth_index) = sides
    return overlaps(found_runs, truth_runs)[found_index][:, truth_index]


def match_class(
    fields: list[ComparedField], index: int, iou: float = 0.6, verified: Literal["all", "present"] = "all"
) -> ClassMatches:
    """Match the detections of one class with its true cells; see :func:`evaluate`."""
    parts: list[list[NDArray[np.int64]]] = [[], [], []]
    confidences, n_truth = [np.zeros(0)], 0
    for number, field in enumerate(fields):
        found = np.flatnonzero(np.array(field.found.classes) == index)
        truth = np.flatnonzero(np.array(field.truth.classes) == index)
        n_truth += len(truth)
        if len(found) and (len(truth) or verified == "all"):
            values = np.array(field.found.confidences)[found]
            order = _descending(values)
            confidences.append(values[order])
            taken = _matches(field.iou[np.ix_(found[order], truth)], iou)
            taken[taken >= 0] = truth[taken[taken >= 0]]
            for part, more in zip(parts, (np.full(len(order), number), found[order], taken), strict=True):
                part.append(more)
    numbers, detections, taken = (np.concatenate([np.zeros(0, np.int64), *part]) for part in parts)
    return ClassMatches(numbers, detections, np.concatenate(confidences), taken, n_truth)


def _average_precision(
    fields: list[ComparedField], index: int, iou: float, verified: Literal["all", "present"]
) -> float | None:
    """AP of one class, or None where no cell shows it."""
    matched = match_class(fields, index, iou, verified)
    if matched.n_truth == 0:
        return None
    return average_precision(matched.confidences, matched.taken >= 0, matched.n_truth)


def average_precision(confidences: NDArray[np.float64], right: NDArray[np.bool_], n_truth: int) -> float:
    """Measure a class's AP: the area under the envelope of precision over recall.

    Args:
        confidences: of all detections (n,); of two equal ones the later comes first.
        right: which detections are right (n,).
        n_truth: how many there are to find, above 0.
    """
    recall, precision = precision_recall(confidences, right, n_truth)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def precision_recall(
    confidences: NDArray[np.float64], right: NDArray[np.bool_], n_truth: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure recall and the envelope of precision (falling from the right) after each detection, best first.

    Args:
        confidences, right, n_truth: as for :func:`average_precision`.
    """
    hits = np.cumsum(right[_descending(confidences)])
    precision = hits / np.arange(1, len(hits) + 1)
    return hits / n_truth, np.maximum.accumulate(precision[::-1])[::-1]


def _descending(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order from high to low; the later of two equal values comes first."""
    return np.argsort(values, kind="stable")[::-1]


def _matches(overlap: NDArray[np.float64], iou: float) -> NDArray[np.int64]:
    """The true cell (column) that each detection (row, best first) is right about, once each; -1 is none."""
    taken = np.full(len(overlap), -1, np.int64)
    if overlap.shape[1] == 0:
        return taken
    free = np.ones(overlap.shape[1], bool)
    for row, best in enumerate(overlap.argmax(axis=1)):
        if overlap[row, best] >= iou and free[best]:
            taken[row], free[best] = best, False
    return taken
