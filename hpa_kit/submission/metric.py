"""The competition's score: mean average precision of cells at mask IoU 0.6."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import N_CLASSES
from hpa_kit.errors import InputError
from hpa_kit.submission.rle import mask_runs
from hpa_kit.submission.runs import overlaps
from hpa_kit.submission.table import Detections, parse_prediction, parse_truth, read_submission


class Evaluation(NamedTuple):
    """A score: ``ap`` per class (None without truth), their mean (None where no class has truth)."""

    mean_ap: float | None
    ap: dict[int, float | None]

    @property
    def without_truth(self) -> list[int]:
        """Classes left out of the mean because no cell shows them."""
        return [index for index, ap in self.ap.items() if ap is None]


class _Field(NamedTuple):
    """One field: its detections, its truth, and the IoU of each detection (rows) with each true cell."""

    found: Detections
    truth: Detections
    iou: NDArray[np.float64]


def evaluate(
    truth_csv: str | Path,
    submission_csv: str | Path,
    iou: float = 0.6,
    verified: Literal["all", "present"] = "all",
) -> Evaluation:
    """Score a submission against the truth of every cell.

    The Open Images challenge's metric for instance segmentation. Per class, detections are sorted by
    confidence; inside a field each looks at the one true cell of the class it overlaps most, and is right
    where the IoU is enough and that cell not yet taken. Equal confidences count in reversed order, inside a
    field and again over all fields in the truth's order. AP is the area under the envelope of precision over
    recall.

    Args:
        truth_csv: ``ID,ImageWidth,ImageHeight,PredictionString`` with ``class mask`` pairs.
        submission_csv: the same columns with ``class confidence mask`` triples. A field of the truth without
            a row has no detections; a row that the truth lacks is left out with a warning.
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
    fields = _read_fields(Path(truth_csv), Path(submission_csv))
    ap = {index: _average_precision(fields, index, iou, verified) for index in range(N_CLASSES)}
    known = [value for value in ap.values() if value is not None]
    return Evaluation(float(np.mean(known)) if known else None, ap)


def _read_fields(truth_csv: Path, submission_csv: Path) -> list[_Field]:
    truth, submission = read_submission(truth_csv), read_submission(submission_csv)
    rows = {row[0]: row for row in submission.itertuples(index=False, name=None)}
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
        fields.append(
            _Field(found, true_cells, _overlaps(found, true_cells, height, width, place, truth_place))
        )
    if rows:
        warnings.warn(
            f"evaluate: {len(rows)} rows are not in the truth, such as {next(iter(rows))}", stacklevel=3
        )
    return fields


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


def _average_precision(fields: list[_Field], index: int, iou: float, verified: str) -> float | None:
    """AP of one class, or None where no cell shows it."""
    confidences, right, n_truth = [np.zeros(0)], [np.zeros(0, bool)], 0
    for field in fields:
        found = np.flatnonzero(np.array(field.found.classes) == index)
        truth = np.flatnonzero(np.array(field.truth.classes) == index)
        n_truth += len(truth)
        if len(found) and (len(truth) or verified == "all"):
            values = np.array(field.found.confidences)[found]
            order = _descending(values)
            confidences.append(values[order])
            right.append(_matches(field.iou[np.ix_(found[order], truth)], iou))
    if n_truth == 0:
        return None
    return average_precision(np.concatenate(confidences), np.concatenate(right), n_truth)


def average_precision(confidences: NDArray[np.float64], right: NDArray[np.bool_], n_truth: int) -> float:
    """AP of one class: the area under the envelope of precision over recall.

    Args:
        confidences: of all detections (n,); of two equal ones the later comes first.
        right: which detections are right (n,).
        n_truth: how many there are to find, above 0.
    """
    hits = right[_descending(confidences)]
    return _area_under_envelope(np.cumsum(hits), n_truth)


def _descending(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order from high to low; the later of two equal values comes first."""
    return np.argsort(values, kind="stable")[::-1]


def _matches(overlap: NDArray[np.float64], iou: float) -> NDArray[np.bool_]:
    """Which detections (rows, best first) are right; each true cell (column) is matched once."""
    right = np.zeros(len(overlap), bool)
    if overlap.shape[1] == 0:
        return right
    taken = np.zeros(overlap.shape[1], bool)
    for row, best in enumerate(overlap.argmax(axis=1)):
        if overlap[row, best] >= iou and not taken[best]:
            right[row] = taken[best] = True
    return right


def _area_under_envelope(hits: NDArray[np.int64], n_truth: int) -> float:
    """Area under precision over recall, precision made falling from the right."""
    precision = hits / np.arange(1, len(hits) + 1)
    recall = np.concatenate([[0.0], hits / n_truth])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope))
