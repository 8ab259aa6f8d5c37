"""How right cell scores are, by the metric's own matching: curves, calibration, confusion, errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import N_CLASSES
from hpa_kit.submission.metric import (
    ClassMatches,
    ComparedField,
    average_precision,
    compare_fields,
    match_class,
    precision_recall,
)
from hpa_kit.submission.table import Detections

IOU = 0.6
MAX_POINTS = 120  # of a curve; more cannot be seen
BINS = 10
NOTHING = N_CLASSES  # column of the confusion: not found, or no class given; row: no true cell
MAX_ERRORS = 40  # of each class and kind


class CellMatch(NamedTuple):
    """What the truth says of a found cell: which of the field's true cells it is, their IoU, its classes."""

    true_cell: int
    iou: float
    classes: tuple[int, ...]


class FieldMatches(NamedTuple):
    """Cells of one field. A cell is a distinct mask, numbered from 0 in the order of first appearance.

    Attributes:
        true_masks: mask string of each true cell.
        true_classes: its classes.
        found: {found cell: the true cell it is}; found cells that are none have no entry.
        missed: true cells that no found cell is.
    """

    true_masks: list[str]
    true_classes: list[tuple[int, ...]]
    found: dict[int, CellMatch]
    missed: list[int]


class Error(NamedTuple):
    """A score that is wrong, and how surely.

    Attributes:
        kind: ``given`` (the cell does not show the class) or ``missed`` (it does).
        location: the class.
        id: the field.
        cell: found cell, or None where a missed one was not found.
        true_cell: true cell of a missed class, else None.
        surety: the confidence of what was given; 1 - the confidence of what was missed.
    """

    kind: str
    location: int
    id: str
    cell: int | None
    true_cell: int | None
    surety: float


class Evidence(NamedTuple):
    """All figures; see :func:`measure`."""

    mean_ap: float | None
    classes: list[dict[str, Any]]
    calibration: list[list[float]]
    confusion: NDArray[np.float64]
    matches: dict[str, FieldMatches]
    errors: list[Error]


def measure(truth_csv: Path, submission_csv: Path) -> Evidence:
    """Compare a submission with the truth of every cell.

    Which detections are right is what :func:`hpa_kit.submission.evaluate` finds. Beside that a found cell
    *is* the true cell it overlaps most, where their IoU is 0.6 or more, whatever the classes.

    Raises:
        InputError: as :func:`hpa_kit.submission.evaluate`.
    """
    fields = compare_fields(truth_csv, submission_csv)
    matched = [match_class(fields, index, IOU) for index in range(N_CLASSES)]
    classes = [_of_class(one) for one in matched]
    known = [one["ap"] for one in classes if one["ap"] is not None]
    matches = {field.id: match_cells(field) for field in fields}
    confidences = np.concatenate([one.confidences for one in matched])
    right = np.concatenate([one.taken >= 0 for one in matched])
    return Evidence(
        float(np.mean(known)) if known else None,
        classes,
        calibration(confidences, right),
        confusion(fields, matches),
        matches,
        _errors(fields, matched, matches),
    )


def _of_class(matched: ClassMatches) -> dict[str, Any]:
    """AP, counts, the precision-recall curve and the calibration of one class."""
    right = matched.taken >= 0
    found: dict[str, Any] = {
        "ap": None,
        "truth": matched.n_truth,
        "found": len(right),
        "curve": [],
        "calibration": calibration(matched.confidences, right),
    }
    if matched.n_truth:
        found["ap"] = average_precision(matched.confidences, right, matched.n_truth)
        found["curve"] = _thinned(*precision_recall(matched.confidences, right, matched.n_truth))
    return found


def _thinned(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> list[list[float]]:
    """The corners of a falling curve, at most :data:`MAX_POINTS`, always with its last point."""
    corners = np.flatnonzero(np.append(np.diff(precision) < 0, len(precision) > 0))
    if len(corners) > MAX_POINTS:
        corners = corners[np.unique(np.linspace(0, len(corners) - 1, MAX_POINTS).round().astype(int))]
    return [[round(float(recall[k]), 4), round(float(precision[k]), 4)] for k in corners]


def calibration(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> list[list[float]]:
    """Measure how often detections of a confidence are right, in ten groups of about equal size, rising.

    Returns:
        [mean confidence, part that is right, how many] per group; equal confidences are never parted.
    """
    if not len(confidences):
        return []
    order = np.argsort(confidences, kind="stable")
    values = confidences[order]
    wanted = values[(np.arange(1, BINS) * len(values)) // BINS]
    starts = np.unique(np.append(0, np.searchsorted(values, wanted, side="left")))
    groups = np.split(order, starts[1:])
    return [
        [round(float(confidences[group].mean()), 5), round(float(right[group].mean()), 5), len(group)]
        for group in groups
    ]


def match_cells(field: ComparedField) -> FieldMatches:
    """Match found cells with true cells, whatever their classes; each true cell is one found cell's."""
    found_first, true_first = _first_places(field.found), _first_places(field.truth)
    true_classes: list[list[int]] = [[] for _ in true_first]
    number = {field.truth.masks[place]: cell for cell, place in enumerate(true_first)}
    for index, mask in zip(field.truth.classes, field.truth.masks, strict=True):
        true_classes[number[mask]].append(index)
    classes = [tuple(sorted(set(some))) for some in true_classes]
    iou = field.iou[np.ix_(found_first, true_first)]
    found: dict[int, CellMatch] = {}
    free = set(range(len(true_first)))
    for cell, true_cell in sorted(np.argwhere(iou >= IOU).tolist(), key=lambda pair: -iou[tuple(pair)]):
        if true_cell in free and cell not in found:
            found[cell] = CellMatch(true_cell, float(iou[cell, true_cell]), classes[true_cell])
            free.remove(true_cell)
    return FieldMatches([field.truth.masks[place] for place in true_first], classes, found, sorted(free))


def cell_scores(detections: Detections) -> list[dict[int, float]]:
    """Gather {class: confidence} of each cell of a field, cells as :class:`FieldMatches` numbers them."""
    scores: dict[str, dict[int, float]] = {}
    for index, confidence, mask in zip(*detections, strict=True):
        own = scores.setdefault(mask, {})
        own[index] = max(confidence, own.get(index, confidence))
    return list(scores.values())


def confusion(fields: Sequence[ComparedField], matches: dict[str, FieldMatches]) -> NDArray[np.float64]:
    """Count what cells that show a class were given instead.

    A cell of k true classes is compared with the k classes it scored highest. A true class among them counts
    there; else its one cell is shared evenly by those of them that are wrong, or counts as nothing where
    there are none or the cell was not found.

    Returns:
        float64 (20, 20): row = true class, column = what was given, 19 = nothing; row 19 = the first class of
        found cells that are no true cell. Each row of a class adds up to the cells that show it.
    """
    table = np.zeros((N_CLASSES + 1, N_CLASSES + 1))
    for field in fields:
        own = matches[field.id]
        for cell, scores in enumerate(cell_scores(field.found)):
            ranked = sorted((k for k in scores if scores[k] > 0), key=lambda k: -scores[k])
            if cell not in own.found:
                if ranked:
                    table[NOTHING, ranked[0]] += 1
                continue
            true = own.found[cell].classes
            given = ranked[: len(true)]
            wrong = [index for index in given if index not in true] or [NOTHING]
            for index in true:
                if index in given:
                    table[index, index] += 1
                else:
                    table[index, wrong] += 1 / len(wrong)
        for true_cell in own.missed:
            table[list(own.true_classes[true_cell]), NOTHING] += 1
    return table


def _errors(
    fields: Sequence[ComparedField], matched: Sequence[ClassMatches], matches: dict[str, FieldMatches]
) -> list[Error]:
    """The surest errors of each class and kind, surest first."""
    numbers = [_numbers(field.found) for field in fields]
    scores = [cell_scores(field.found) for field in fields]
    errors: list[Error] = []
    for index, one in enumerate(matched):
        given = [
            Error("given", index, fields[f].id, numbers[f][d], None, float(confidence))
            for f, d, confidence, taken in zip(*one[:4], strict=True)
            if taken < 0
        ]
        missed = []
        for field, own_scores in zip(fields, scores, strict=True):
            own = matches[field.id]
            cells = {match.true_cell: cell for cell, match in own.found.items()}
            for true_cell, classes in enumerate(own.true_classes):
                if index in classes:
                    cell = cells.get(true_cell)
                    confidence = 0.0 if cell is None else own_scores[cell].get(index, 0.0)
                    missed.append(Error("missed", index, field.id, cell, true_cell, 1 - confidence))
        for some in (given, [error for error in missed if error.surety > 0.5]):
            errors += sorted(some, key=lambda error: -error.surety)[:MAX_ERRORS]
    return sorted(errors, key=lambda error: -error.surety)


def _first_places(detections: Detections) -> list[int]:
    """Where each distinct mask stands first."""
    places: dict[str, int] = {}
    for place, mask in enumerate(detections.masks):
        places.setdefault(mask, place)
    return list(places.values())


def _numbers(detections: Detections) -> list[int]:
    """The cell of each detection."""
    number = {mask: cell for cell, mask in enumerate(dict.fromkeys(detections.masks))}
    return [number[mask] for mask in detections.masks]
