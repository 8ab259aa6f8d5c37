"""What networks that find cells learn: background, border and foreground, drawn from label maps."""

import cv2
import numpy as np
from numpy.typing import NDArray

# The networks' channels, and what costs nothing: pixels beyond the field.
BACKGROUND, BORDER, FOREGROUND, IGNORED = 0, 1, 2, 255


def border_width(side: int) -> int:
    """Tell how many pixels of each of two cells that touch are border, where 2048 px are ``side``.

    2 at the published scale, 1 at smaller ones. Source: ImJoy's training of DPNUnet, which the published
    networks come from: 1.33 in 512 pixels of a side, and 0.66.
    """
    return max(1, round(1.33 * side / 512 + 0.66))


def network_target(labels: NDArray[np.integer], width: int, known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw what one network learns of a label map.

    Border are the pixels of a label within ``width`` of another label, whether or not a line of background
    lies between; so labels that touch are parted by twice as much. Towards the background there is none, nor
    at the edge of the field: a cell that it cuts is foreground up to there.

    Args:
        labels: (H, W), of nuclei or of cells, 0 background; numbers up to 2^24.
        width: of the border in pixels.
        known: which pixels are of the field, (H, W).

    Returns:
        uint8 (H, W) of :data:`BACKGROUND`, :data:`BORDER`, :data:`FOREGROUND` and, where nothing is known,
        :data:`IGNORED`.
    """
    # OpenCV looks at no int32; float32 holds these numbers exactly. Beyond the array it looks at nothing.
    values = labels.astype(np.float32)
    inside = (values > 0) & known
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1,) * 2)
    lowest = cv2.erode(np.where(inside, values, np.float32(np.inf)), disc)
    highest = cv2.dilate(np.where(inside, values, np.float32(0)), disc)
    target = np.where(inside, np.uint8(FOREGROUND), np.uint8(BACKGROUND))
    target[inside & ((lowest != values) | (highest != values))] = BORDER
    target[~known] = IGNORED
    return target
