import csv
import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hpa_kit.errors import InputError
from hpa_kit.submission import Evaluation, decode_mask, encode_mask, evaluate
from hpa_kit.submission.metric import average_precision

CASES = (
    "class_without_truth",
    "empty_truth_image",
    "equal_scores",
    "iou_exactly_0_6",
    "non_square",
    "perfect",
)
SIDE = 40


def box(x, y, w=10, h=10, size=(SIDE, SIDE)):
    mask = np.zeros(size, bool)
    mask[y : y + h, x : x + w] = True
    return encode_mask(mask)


def write(path, rows, size=(SIDE, SIDE)):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "ImageWidth", "ImageHeight", "PredictionString"])
        writer.writerows([id, size[1], size[0], text] for id, text in rows)
    return path


@pytest.fixture
def score(tmp_path):
    def run(truth, found, **options):
        return evaluate(write(tmp_path / "truth.csv", truth), write(tmp_path / "found.csv", found), **options)

    return run


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("verified", ["all", "present"])
def test_the_score_is_that_of_the_open_images_challenge(reference, case, verified):
    folder = reference / "metric" / case
    expected = json.loads((folder / "expected.json").read_text())[verified]
    result = evaluate(folder / "truth.csv", folder / "submission.csv", verified=verified)
    assert result.mean_ap == pytest.approx(expected["mAP"], abs=1e-12)
    for index, ap in result.ap.items():
        assert ap == pytest.approx(expected["AP"][str(index)], abs=1e-12)


def test_a_perfect_submission_scores_one_whatever_the_confidences(score):
    masks = [box(0, 0), box(20, 20)]
    truth = [("a", f"0 {masks[0]} 5 {masks[0]} 5 {masks[1]}")]
    result = score(truth, [("a", f"5 0.1 {masks[1]} 0 0.5 {masks[0]} 5 1e-9 {masks[0]}")])
    assert result.mean_ap == 1
    assert result.ap[0] == result.ap[5] == 1
    assert result.without_truth == [index for index in range(19) if index not in (0, 5)]


def test_a_field_without_a_row_has_no_detections(score):
    assert score([("a", f"0 {box(0, 0)}"), ("b", f"0 {box(0, 0)}")], [("a", f"0 1 {box(0, 0)}")]).ap[0] == 0.5


def test_truth_without_any_detection_is_zero(score):
    result = score([("a", f"3 {box(0, 0)}")], [("a", "")])
    assert result.mean_ap == result.ap[3] == 0


def test_no_truth_at_all_is_no_number(score):
    result = score([("a", "")], [("a", f"0 1 {box(0, 0)}")])
    assert result.mean_ap is None
    assert set(result.ap.values()) == {None}


def test_a_cell_is_found_once(score):
    truth = [("a", f"0 {box(0, 0)} 0 {box(20, 20)}")]
    found = [("a", f"0 0.9 {box(0, 0)} 0 0.8 {box(1, 0)} 0 0.7 {box(20, 20)}")]
    assert score(truth, found).ap[0] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_detection_never_falls_back_to_its_second_best_cell(score):
    # The second detection overlaps the taken cell most, and another one enough.
    truth = [("a", f"0 {box(0, 0, 10, 10)} 0 {box(2, 0, 10, 10)}")]
    found = [("a", f"0 0.9 {box(0, 0, 10, 10)} 0 0.8 {box(0, 1, 10, 10)}")]
    assert score(truth, found, iou=0.5).ap[0] == 0.5


def test_an_overlap_of_exactly_the_threshold_matches(score):
    truth, found = [("a", f"0 {box(0, 0, 10, 10)}")], [("a", f"0 1 {box(0, 0, 6, 10)}")]
    assert score(truth, found, iou=0.6).ap[0] == 1
    assert score(truth, found, iou=0.601).ap[0] == 0


def test_equal_confidences_are_reversed_inside_a_field_and_again_over_all_fields(score):
    truth = [("a", f"0 {box(0, 0)}"), ("b", f"0 {box(0, 0)}")]
    right, wrong = f"0 0.5 {box(0, 0)}", f"0 0.5 {box(25, 25)}"
    assert score(truth[:1], [("a", f"{wrong} {right}")]).ap[0] == 0.5
    assert score(truth[:1], [("a", f"{right} {wrong}")]).ap[0] == 1
    assert score(truth, [("a", wrong), ("b", right)]).ap[0] == 0.5
    assert score(truth, [("a", right), ("b", wrong)]).ap[0] == 0.25


def test_verified_present_leaves_out_classes_that_the_field_does_not_show(score):
    truth = [("a", f"0 {box(0, 0)}"), ("b", f"1 {box(0, 0)}")]
    found = [("a", f"0 0.5 {box(0, 0)}"), ("b", f"0 0.9 {box(0, 0)} 1 1 {box(0, 0)}")]
    assert score(truth, found, verified="all").ap[0] == 0.5
    assert score(truth, found, verified="present").ap[0] == 1


def test_a_row_that_the_truth_lacks_is_left_out_and_said(score):
    with pytest.warns(UserWarning, match="1 rows are not in the truth, such as z"):
        assert score([("a", f"0 {box(0, 0)}")], [("z", "x"), ("a", f"0 1 {box(0, 0)}")]).mean_ap == 1


@pytest.mark.parametrize("found", [[], [("z", ""), ("y", f"0 1 {box(0, 0)}")]])
def test_rows_of_other_fields_alone_are_refused_by_both_names(score, tmp_path, found):
    with pytest.raises(InputError, match="no field of the truth") as caught:
        score([("a", f"0 {box(0, 0)}"), ("1e5", "")], found)
    message = str(caught.value)
    assert ("such as z, y" if found else "its IDs are none") in message and "such as a, 1e5" in message
    assert str(tmp_path) in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0 1", "in threes"),
        ("19 1 x", "no location class"),
        ("0 nan x", "no finite number"),
        ("0 1 !!!", "not base64"),
        (f"0 1 {box(0, 0, size=(30, 30))}", "shorter than the field"),
        (f"0 1 {box(0, 0, size=(90, 90))}", "longer than the field"),
    ],
)
def test_a_prediction_that_cannot_be_read_names_file_and_id(score, text, fault):
    with pytest.raises(InputError, match=rf"found\.csv, ID a: .*{fault}"):
        score([("a", f"0 {box(0, 0)}")], [("a", text)])


def test_another_size_than_the_truths_is_refused(tmp_path):
    truth = write(tmp_path / "truth.csv", [("a", "")], size=(40, 30))
    found = write(tmp_path / "found.csv", [("a", "")], size=(30, 40))
    with pytest.raises(InputError, match="ID a: size is 40 x 30, the truth's is 30 x 40"):
        evaluate(truth, found)


def test_an_id_twice_is_refused(tmp_path):
    once, twice = write(tmp_path / "1.csv", [("a", "")]), write(tmp_path / "2.csv", [("a", ""), ("a", "")])
    for truth, found in ((once, twice), (twice, once)):
        with pytest.raises(InputError, match=r"2\.csv holds ID a more than once"):
            evaluate(truth, found)


def slow_score(truth, found, iou):
    """The metric as its definition reads, one mask and one detection at a time."""
    aps = []
    for index in range(19):
        detections, n_truth = [], 0
        for id, text in truth:
            words = text.split()
            cells = [
                decode_mask(m, SIDE, SIDE)
                for c, m in zip(words[::2], words[1::2], strict=True)
                if int(c) == index
            ]
            n_truth += len(cells)
            words = dict(found)[id].split()
            triples = zip(words[::3], words[1::3], words[2::3], strict=True)
            own = [
                (float(p), k, decode_mask(m, SIDE, SIDE))
                for k, (c, p, m) in enumerate(triples)
                if int(c) == index
            ]
            taken = set()
            for confidence, _, mask in sorted(own, key=lambda d: d[:2], reverse=True):
                overlaps = [(mask & cell).sum() / max((mask | cell).sum(), 1) for cell in cells]
                best = int(np.argmax(overlaps)) if overlaps else -1
                right = best >= 0 and overlaps[best] >= iou and best not in taken
                taken |= {best} if right else set()
                detections.append((confidence, len(detections), right))
        if n_truth == 0:
            continue
        hits = [right for *_, right in sorted(detections, reverse=True)]
        ap, best_later = 0.0, 0.0
        for k in range(len(hits) - 1, -1, -1):
            best_later = max(best_later, sum(hits[: k + 1]) / (k + 1))
            ap += best_later * hits[k] / n_truth
        aps.append(ap)
    return np.mean(aps) if aps else None


@pytest.mark.parametrize("seed", range(12))
def test_the_score_agrees_with_its_definition(score, seed):
    random = np.random.default_rng(seed)

    def cell():
        x, y, w, h = (
            random.integers(0, 25),
            random.integers(0, 25),
            random.integers(6, 15),
            random.integers(6, 15),
        )
        return box(x, y, w, h)

    masks = {id: [cell() for _ in range(4)] for id in "abc"}
    truth = [
        (id, " ".join(f"{random.integers(3)} {mask}" for mask in masks[id] for _ in range(2))) for id in "abc"
    ]
    found = [
        (id, " ".join(f"{random.integers(4)} {random.choice([0.1, 0.5, 0.9])} {mask}"
                      for mask in [*masks[id], cell(), cell()] for _ in range(3)))
        for id in "abc"
    ]  # fmt: skip
    assert score(truth, found, iou=0.5).mean_ap == pytest.approx(slow_score(truth, found, 0.5), abs=1e-12)


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.5, 0.9]), st.booleans()), max_size=8), st.integers(0, 3)
)
def test_average_precision_is_the_area_that_its_definition_gives(detections, missed):
    n_truth = sum(right for _, right in detections) + missed
    assume(n_truth)
    # Best first; of two equal ones the later, as sorting keeps their order.
    latest_first = detections[::-1]
    ordered = sorted(latest_first, key=lambda one: -one[0])
    hits = [sum(right for _, right in ordered[:n]) for n in range(1, len(ordered) + 1)]
    precision = [hit / n for n, hit in enumerate(hits, start=1)]
    expected = sum(max(precision[place:]) for place, (_, right) in enumerate(ordered) if right) / n_truth
    confidences = np.array([confidence for confidence, _ in detections])
    right = np.array([found for _, found in detections], dtype=bool)
    assert average_precision(confidences, right, n_truth) == pytest.approx(expected)


def test_classes_without_truth_show_a_dash():
    table = str(Evaluation(0.5, {0: 0.5, 1: None})).splitlines()
    assert table[2].split()[-1] == "0.5000"
    assert table[3].split()[-1] == "-"
    assert str(Evaluation(None, {0: None})).endswith("no truth")
