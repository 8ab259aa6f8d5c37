"""What sub-categories cost beside the k-means in them, on a table like the competition's.

The usual way: rows joined by searching lists, one k-means per class on all processors. Results must be equal;
times are printed, never asserted.
"""

import time

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from hpa_kit.training import assign_subcategories
from hpa_kit.training.subcategories import read_subcategories, write_subcategories

# About as many fields per class as the competition has, of a quarter of its fields; features of a ResNet-50.
FIELDS, WIDTH, K = 5_000, 2048, 10
SHARES = (0.4, 0.05, 0.17, 0.07, 0.09, 0.12, 0.06, 0.13, 0.08, 0.03, 0.05, 0.004, 0.06, 0.14, 0.14, 0.01,
          0.45, 0.15, 0.002)  # fmt: skip


def seconds(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def test_all_but_k_means_is_nothing(tmp_path):
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(40, WIDTH)).astype(np.float32)
    features = np.maximum(looks[rng.integers(0, 40, FIELDS)] + rng.normal(0, 2, (FIELDS, WIDTH)), 0)
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    labels = (rng.random((FIELDS, 19)) < SHARES).astype(np.float32)
    labels[labels.sum(1) == 0, 0] = 1

    def k_means_alone():
        found = {}
        with threadpool_limits(1):
            for index in range(19):
                rows = np.flatnonzero(labels[:, index])
                means = KMeans(min(K, len(rows)), n_init=1, random_state=0)
                found[index] = rows, means.fit_predict(features[rows])
        return found

    alone, found = seconds(k_means_alone)
    ours, numbers = seconds(lambda: assign_subcategories(features, labels, k=K))
    for index, (rows, clusters) in found.items():
        pairs = set(zip(numbers[rows, index].tolist(), clusters.tolist(), strict=True))
        assert len(pairs) == len({pair[0] for pair in pairs}) == len({pair[1] for pair in pairs})
    print(f"\n{FIELDS} x {WIDTH}: k-means alone {alone:.1f} s, assign_subcategories {ours:.1f} s")

    ids = [f"{number:06x}" for number in range(FIELDS)]
    write_subcategories(tmp_path / "s.csv", ids, numbers)
    order = rng.permutation(FIELDS)
    table = pd.DataFrame({"ID": [ids[i] for i in order]})
    table["Label"] = ["|".join(map(str, np.flatnonzero(labels[i]))) for i in order]
    by_index, rows = seconds(lambda: read_subcategories(tmp_path / "s.csv").of_fields(table))
    by_search, searched = seconds(lambda: numbers[[ids.index(id) for id in table["ID"]]])
    assert (rows == searched).all()
    print(
        f"table: read, joined and checked in {by_index:.2f} s; joined by searching a list {by_search:.2f} s"
    )
