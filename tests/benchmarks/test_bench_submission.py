"""What mask strings, the score and the check cost, beside the usual way in the same run.

The usual way to a mask string: a mask per cell, pycocotools, zlib, base64. The usual way to the score: every
mask as pixels. Results must be equal; times are printed, never asserted.
"""

import base64
import json
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from pycocotools import mask as coco

from hpa_kit.submission import (
    check_submission,
    decode_mask,
    encode_label_map,
    evaluate,
    prediction_string,
    truth_string,
    write_submission,
)
from hpa_kit.submission.rle import _label_changes

RSS_SCRIPT = """
import json, resource, sys, time
from hpa_kit.submission import evaluate
start = time.perf_counter()
result = evaluate(*sys.argv[1:3])
seconds = time.perf_counter() - start
print(json.dumps([result.mean_ap, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def fastest(work, repeats=5):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def wavy_cells(height, width, rows, columns, seed=0):
    """A label map of rows x columns cells with wavy outlines that nearly touch."""
    random = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    step = height / rows, width / columns
    side = int(min(step) * 0.98)
    y, x = np.mgrid[:side, :side] - side / 2
    angle, distance = np.arctan2(y, x), np.hypot(y, x)
    for cell in range(rows * columns):
        radius = side * (0.42 + 0.06 * np.sin(random.integers(3, 9) * angle + random.uniform(0, 6)))
        top, left = int(cell // columns * step[0]), int(cell % columns * step[1])
        labels[top : top + side, left : left + side][distance < radius] = cell + 1
    return labels


def usual_string(mask):
    counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return base64.b64encode(zlib.compress(counts, 9)).decode()


def usual_strings(labels):
    return {cell: usual_string(labels == cell) for cell in np.unique(labels).tolist() if cell}


@pytest.mark.parametrize(
    ("size", "grid"), [((2048, 2048), (5, 6)), ((3072, 3072), (8, 14)), ((1728, 2304), (4, 5))]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_label_map_is_encoded_as_the_usual_way_does(size, grid, order):
    labels = np.array(wavy_cells(*size, *grid), order=order)
    assert encode_label_map(labels) == usual_strings(labels)
    usual = fastest(lambda: usual_strings(labels), 3)
    ours = fastest(lambda: encode_label_map(labels), 15)
    pixels = fastest(lambda: _label_changes(labels), 15)
    print(
        f"\n{size} {order}, {labels.max()} cells: usual {usual * 1e3:.0f} ms, one pass {ours * 1e3:.1f} ms: "
        f"{usual / ours:.0f}x; the pass over the pixels alone {pixels * 1e3:.1f} ms"
    )


def test_a_row_of_a_field_of_3072_with_112_cells():
    labels = wavy_cells(3072, 3072, 8, 14)
    scores = np.random.default_rng(0).random((112, 19)) * (np.arange(19) % 6 == 0)

    def row():
        return prediction_string(scores, encode_label_map(labels))

    strings = encode_label_map(labels)
    masks = [decode_mask(string, 3072, 3072) for string in strings.values()]
    assert all((mask == (labels == cell)).all() for cell, mask in zip(strings, masks, strict=True))
    decode = fastest(lambda: decode_mask(strings[1], 3072, 3072))
    print(f"\nrow of 448 triples: {fastest(row) * 1e3:.1f} ms; one mask read back: {decode * 1e3:.2f} ms")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Truth and submission of 100 fields of 2048², 30 cells, 3 classes a cell; found cells are a bit off."""
    folder = tmp_path_factory.mktemp("score")
    random = np.random.default_rng(1)
    true, found = [], []
    for field in range(100):
        labels = wavy_cells(2048, 2048, 5, 6, seed=field % 10)
        labels = np.roll(labels, random.integers(0, 2048, 2), axis=(0, 1))
        shifted = np.roll(labels, random.integers(5, 50, 2), axis=(0, 1))
        classes = {cell: random.choice(6, 3, replace=False).tolist() for cell in range(1, 31)}
        scores = np.zeros((30, 19))
        for row, own in enumerate(classes.values()):
            scores[row, [*own[:2], random.integers(6)]] = (random.random(3) * 0.99).round(2) + 0.001
        true.append((f"f{field}", 2048, 2048, truth_string(classes, encode_label_map(labels))))
        found.append((f"f{field}", 2048, 2048, prediction_string(scores, encode_label_map(shifted))))
    write_submission(folder / "truth.csv", true)
    write_submission(folder / "found.csv", found)
    write_submission(folder / "truth_2.csv", true[:2])
    write_submission(folder / "found_2.csv", found[:2])
    return folder, true, found


def dense_overlaps(found, truth):
    """IoU of every detection with every true cell from pixels, as the TensorFlow evaluator has it."""
    masks = {mask: decode_mask(mask, 2048, 2048).ravel(order="K") for mask in {*found, *truth}}
    result = np.zeros((len(found), len(truth)))
    for row, left in enumerate(found):
        for column, right in enumerate(truth):
            common = np.count_nonzero(masks[left] & masks[right])
            result[row, column] = common / (
                np.count_nonzero(masks[left]) + np.count_nonzero(masks[right]) - common
            )
    return result


def usual_score(true, found, iou=0.6):
    """Mean AP with dense masks, one class at a time."""
    aps = []
    for index in range(19):
        n_truth, scores, hits = 0, [], []
        for (*_, truth_text), (*_, found_text) in zip(true, found, strict=True):
            words = truth_text.split()
            cells = [m for c, m in zip(words[::2], words[1::2], strict=True) if int(c) == index]
            words = found_text.split()
            triples = zip(words[::3], words[1::3], words[2::3], strict=True)
            own = [(float(p), m) for c, p, m in triples if int(c) == index]
            own = [own[k] for k in np.argsort([p for p, _ in own], kind="stable")[::-1]]
            n_truth += len(cells)
            taken = set()
            for (score, _), row in zip(own, dense_overlaps([m for _, m in own], cells), strict=True):
                best = int(row.argmax()) if len(row) else -1
                hit = best >= 0 and row[best] >= iou and best not in taken
                taken |= {best} if hit else set()
                scores.append(score)
                hits.append(hit)
        if n_truth:
            right = np.cumsum(np.array(hits, bool)[np.argsort(scores, kind="stable")[::-1]])
            precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
            aps.append(float(np.sum(np.diff(right, prepend=0) / n_truth * precision)))
    return float(np.mean(aps))


def test_100_fields_are_scored_in_seconds_and_little_memory(tables):
    folder, true, found = tables
    paths = folder / "truth_2.csv", folder / "found_2.csv"
    start = time.perf_counter()
    expected = usual_score(true[:2], found[:2])
    usual = time.perf_counter() - start
    assert evaluate(*paths).mean_ap == pytest.approx(expected, abs=1e-12)
    ours = fastest(lambda: evaluate(*paths))
    print(f"\n2 fields: dense masks {usual:.1f} s, runs {ours * 1e3:.0f} ms: {usual / ours:.0f}x")
    command = [sys.executable, "-c", RSS_SCRIPT, folder / "truth.csv", folder / "found.csv"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    mean_ap, seconds, megabytes = json.loads(output)
    assert mean_ap == evaluate(folder / "truth.csv", folder / "found.csv").mean_ap
    print(
        f"100 fields x 30 cells x 3 classes: mAP {mean_ap:.3f} in {seconds:.1f} s, {megabytes:.0f} MB at most"
    )


def test_a_submission_of_559_rows_is_checked_in_seconds(tables):
    folder, _, found = tables
    rows = [(f"r{k}", *found[k % 100][1:3], " ".join(found[k % 100][3].split()[:180])) for k in range(559)]
    write_submission(folder / "all.csv", rows)
    write_submission(folder / "sample.csv", [(*row[:3], "") for row in rows])
    start = time.perf_counter()
    assert check_submission(folder / "all.csv", folder / "sample.csv") == []
    print(f"\n559 rows x 20 cells x 3 classes are checked in {time.perf_counter() - start:.1f} s")
