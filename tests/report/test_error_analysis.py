"""Figures of a report, by the metric's own matching."""

import numpy as np
import pytest

from hpa_kit.report.error_analysis import NOTHING, calibration, cell_scores, measure
from hpa_kit.submission import encode_mask, evaluate, write_submission
from hpa_kit.submission.table import parse_prediction


def mask(left, right=None):
    cells = np.zeros((20, 60), bool)
    cells[4:16, left : (left + 10 if right is None else right)] = True
    return encode_mask(cells)


A, B, C, HALF = mask(0), mask(15), mask(30), mask(30, 34)


@pytest.fixture
def measured(tmp_path):
    def run(truth, found):
        for name, text in (("truth", truth), ("found", found)):
            write_submission(tmp_path / f"{name}.csv", [("a", 60, 20, text)])
        return measure(tmp_path / "truth.csv", tmp_path / "found.csv")

    return run


def test_the_figures_are_those_of_the_metric(simulated):
    found = measure(simulated.truth, simulated.submission)
    expected = evaluate(simulated.truth, simulated.submission)
    assert found.mean_ap == expected.mean_ap
    assert {index: one["ap"] for index, one in enumerate(found.classes)} == expected.ap
    assert 0 < found.mean_ap < 1


def test_the_curve_of_a_class_is_the_envelope_whose_area_is_its_ap(simulated):
    for one in measure(simulated.truth, simulated.submission).classes:
        if one["ap"] is None:
            assert one["curve"] == []
            continue
        recall, precision = np.array([[0, 1], *one["curve"]]).T
        assert (np.diff(recall) > 0).all()
        assert (np.diff(precision[1:]) < 0).all()
        assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(one["ap"], abs=0.002)


def test_a_confidence_is_calibrated_where_so_many_are_right():
    confidences = np.repeat([0.25, 0.75], 40)
    right = np.arange(80) % 4 == 0
    right[40:] = np.arange(40) % 4 != 0
    assert calibration(confidences, right) == [[0.25, 0.25, 40], [0.75, 0.75, 40]]
    assert calibration(np.zeros(0), np.zeros(0, bool)) == []


def test_groups_of_a_calibration_hold_all_scores_and_part_no_equal_ones():
    confidences = np.random.default_rng(0).choice([0.1, 0.2, 0.5, 0.9], 97)
    groups = calibration(confidences, confidences > 0.4)
    assert sum(size for *_, size in groups) == 97
    assert [mean for mean, *_ in groups] == [0.1, 0.2, 0.5, 0.9]
    assert [right for _, right, _ in groups] == [0, 0, 1, 1]


def test_a_cell_counts_where_it_was_given_its_class_and_else_where_it_was_put(measured):
    found = measured(f"0 {A} 5 {B} 7 {B}", f"0 0.9 {A} 5 0.8 {B} 3 0.7 {B} 7 0.1 {B}").confusion
    assert (found[0, 0], found[5, 5], found[7, 3]) == (1, 1, 1)
    assert found.sum() == 3


def test_cells_that_are_not_found_or_not_there_count_as_nothing(measured):
    found = measured(f"0 {A} 5 {C}", f"0 0 {A} 2 0.5 {B} 5 0.9 {HALF}").confusion
    assert found[0, NOTHING] == 1  # found, and given nothing
    assert found[5, NOTHING] == 1  # of the cell less than 0.6 was found
    assert (found[NOTHING, 2], found[NOTHING, 5]) == (1, 1)


def test_each_row_of_the_confusion_adds_up_to_the_cells_of_its_class(simulated):
    found = measure(simulated.truth, simulated.submission)
    truth = [one["truth"] for one in found.classes]
    assert found.confusion[:NOTHING].sum(axis=1) == pytest.approx(truth)


def test_a_found_cell_is_the_true_cell_it_overlaps_whatever_the_classes(measured):
    matches = measured(f"0 {A} 5 {A} 7 {C}", f"2 0.9 {B} 3 0.9 {A}").matches["a"]
    assert matches.found[1].classes == (0, 5)
    assert matches.found[1].iou == 1
    assert 0 not in matches.found
    assert [matches.true_masks[k] for k in matches.missed] == [C]


def test_errors_come_by_how_surely_they_are_wrong(measured):
    found = measured(f"0 {A} 5 {B} 7 {C}", f"0 0.6 {A} 2 0.95 {A} 5 0.2 {B} 3 0.3 {B}").errors
    assert [(e.kind, e.location, round(e.surety, 2)) for e in found] == [
        ("missed", 7, 1.0),
        ("given", 2, 0.95),
        ("missed", 5, 0.8),
        ("given", 3, 0.3),
    ]
    assert [e.cell for e in found] == [None, 0, 1, 1]


def test_scores_of_a_cell_are_its_mask_s_highest_of_each_class():
    detections = parse_prediction(f"0 0.2 {A} 3 0.9 {B} 0 0.4 {A} 5 0.1 {A}")
    assert cell_scores(detections) == [{0: 0.4, 5: 0.1}, {3: 0.9}]
