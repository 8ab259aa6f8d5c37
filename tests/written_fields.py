"""Fields as files, made of a label map."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def write_field(folder: Path, id: str, cells: NDArray[np.int32], seed: int = 0) -> None:
    """Write the channels of a field, bright in its cells."""
    rng = np.random.default_rng(seed)
    for channel in ("red", "green", "blue", "yellow"):
        plane = np.where(cells > 0, rng.integers(40, 200, cells.shape), rng.integers(0, 9, cells.shape))
        cv2.imwrite(str(folder / f"{id}_{channel}.png"), plane.astype(np.uint8))
