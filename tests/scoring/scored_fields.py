"""Fields to score cells of, and the 15th place's rule written slowly."""

import numpy as np

SIDE = 60


def one_cell(n=1, side=SIDE):
    """Cells side by side as strips, a nucleus in the middle of each, empty maps, bright green."""
    cells = np.zeros((side, side), np.int32)
    nuclei = np.zeros_like(cells)
    width = side // n
    for cell in range(n):
        cells[5:-5, cell * width + 1 : (cell + 1) * width - 1] = cell + 1
        nuclei[20:40, cell * width + 4 : (cell + 1) * width - 4] = cell + 1
    return {
        "class_maps": np.zeros((19, side, side), np.float32),
        "cells": cells,
        "nuclei": nuclei,
        "image_scores": np.full(19, 0.5),
        "green": np.full((side, side), 100, np.uint8),
    }


def plain_scores(class_maps, cells, nuclei, image_scores, green, form="mean_share"):
    """The same rule with a mask per cell and class."""
    least = (0.01 * class_maps.shape[2]) ** 2
    rows = np.zeros((cells.max(initial=0), 19))
    for row, cell in enumerate(range(1, len(rows) + 1)):
        inside = cells == cell
        nucleus = inside & (nuclei > 0)
        if inside.sum() <= least:
            continue
        shares = []
        for index in np.flatnonzero(image_scores >= 0.01):
            values = class_maps[index].astype(np.float64)
            positive = values > 1e-6
            share, high = positive[inside].mean(), (values[inside] >= 0.75).mean()
            if nucleus.sum() >= least and nucleus.any():
                share = max(share, positive[nucleus].mean())
                high = max(high, (values[nucleus] >= 0.75).mean())
            shares.append(share)
            if (share >= 0.1 or high >= 0.04) and green[inside].mean() >= 1:
                strength = getattr(values[inside & positive], form.split("_")[0])()
                rows[row, index] = image_scores[index] * strength * (share if "share" in form else 1)
        if not rows[row].any():
            empty = np.median(1 - np.array(shares)) if shares else 0
            rows[row, 18] = 0.75 * max(1e-6, (empty - 0.9) / 0.1)
    return rows


def random_field(rng, height, width, n_cells):
    """Blocks of cells with gaps and lost numbers, patchy maps."""
    cells = np.kron(rng.integers(0, n_cells + 1, (8, 9)), np.ones((height // 8, width // 9), np.int64))
    cells = np.pad(cells, ((0, height - cells.shape[0]), (0, width - cells.shape[1])))
    maps = rng.random((19, height, width), dtype=np.float32)
    maps[maps < rng.random((19, 1, 1))] = 0
    return {
        "class_maps": maps,
        "cells": cells.astype(np.int32),
        "nuclei": np.where(rng.random((height, width)) < 0.3, cells, 0).astype(np.int32),
        "image_scores": np.where(rng.random(19) < 0.3, 0.005, rng.random(19)),
        "green": (rng.random((height, width)) * rng.choice([1.5, 30], (1, width))).astype(np.uint8),
    }
