"""Fields with round cells, drawn where a test wants them."""

import numpy as np
import pytest


@pytest.fixture
def draw_field():
    """A function: shape, centres as parts of height and width -> uint8 (4, H, W) with a cell at each centre.

    Sizes are those of a 2048-pixel field, reduced as the field is, so fields of any size show the same cells.
    """

    def draw(shape, centres, nucleus=75, cell=190, noise=2.0, seed=0):
        unit = (shape[0] * shape[1]) ** 0.5 / 2048
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        distance = np.full(shape, np.inf, np.float32)
        for cy, cx in centres:
            distance = np.minimum(distance, np.hypot(y - cy * shape[0], x - cx * shape[1]))
        body = 120 * (distance < cell * unit)
        image = np.stack([body, 0 * body, 200 * (distance < nucleus * unit), 0.8 * body])
        image += np.random.default_rng(seed).normal(8, noise, image.shape)
        return np.clip(image, 0, 255).astype(np.uint8)

    return draw
