"""Cell scores by runs against a mask per cell and class, 25 cells x 19 classes at 512 x 512."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hpa_kit.scoring import score_cells

SIDE, CELLS_A_SIDE = 512, 5


def field() -> dict[str, NDArray]:
    """25 round cells that touch, each with a nucleus; every class is looked at in every cell."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    step = SIDE / CELLS_A_SIDE
    number = (y // step * CELLS_A_SIDE + x // step + 1).astype(np.int32)
    from_centre = np.hypot(y % step - step / 2, x % step - step / 2)
    maps = rng.random((19, SIDE, SIDE), dtype=np.float32)
    maps[maps < rng.random((19, 1, 1)) / 2] = 0
    return {
        "class_maps": maps,
        "cells": np.where(from_centre < step / 2, number, 0),
        "nuclei": np.where(from_centre < step / 4, number, 0),
        "image_scores": rng.uniform(0.1, 1, 19),
        "green": rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8),
    }


def masked_scores(class_maps, cells, nuclei, image_scores, green):
    """The usual way: per cell and class, the map times the cell's mask."""
    rows = np.zeros((cells.max(), 19))
    for cell in range(1, len(rows) + 1):
        inside = cells == cell
        nucleus = inside & (nuclei > 0)
        area, nucleus_area = inside.sum(), nucleus.sum()
        for index in range(19):
            values = class_maps[index] * inside
            nucleus_values = class_maps[index] * nucleus
            share = max((values > 1e-6).sum() / area, (nucleus_values > 1e-6).sum() / nucleus_area)
            high = max((values >= 0.75).sum() / area, (nucleus_values >= 0.75).sum() / nucleus_area)
            if (share >= 0.1 or high >= 0.04) and green[inside].mean() >= 1:
                mean = values[values > 1e-6].mean(dtype=np.float64)
                rows[cell - 1, index] = image_scores[index] * mean * share
    return rows


def indexed_scores(class_maps, cells, nuclei, image_scores, green):
    """The same with boolean indexing and each mask's work done once: the best that plain loops do."""
    rows = np.zeros((cells.max(), 19))
    for cell in range(1, len(rows) + 1):
        inside = cells == cell
        in_nucleus = nuclei[inside] > 0
        bright = green[inside].mean() >= 1
        for index in range(19):
            values = class_maps[index][inside]
            positive, top = values > 1e-6, values >= 0.75
            share = max(positive.mean(), positive[in_nucleus].mean())
            high = max(top.mean(), top[in_nucleus].mean())
            if (share >= 0.1 or high >= 0.04) and bright:
                mean = values[positive].mean(dtype=np.float64)
                rows[cell - 1, index] = image_scores[index] * mean * share
    return rows


def fastest(call: Callable[[], NDArray], times: int) -> tuple[float, NDArray]:
    seconds, result = np.inf, np.zeros(0)
    for _ in range(times):
        begun = time.perf_counter()
        result = call()
        seconds = min(seconds, time.perf_counter() - begun)
    return seconds, result


def test_bench_cell_scores_by_runs() -> None:
    data = field()
    score_cells(**data)  # compiles
    ours, scores = fastest(lambda: score_cells(**data), 20)
    print(f"\ncell scores, 25 cells x 19 classes at 512 px: by runs {ours * 1e3:.1f} ms")
    for name, usual in {"map x mask": masked_scores, "boolean index": indexed_scores}.items():
        theirs, expected = fastest(lambda usual=usual: usual(**data), 2)
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        print(f"  {name:14s} {theirs * 1e3:7.1f} ms  {theirs / ours:5.0f} x")
