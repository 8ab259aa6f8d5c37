"""Pictures of a field packed for a page: its channels, and its class maps, side by side in one grey picture.

Grey, because colour pictures keep colour at half the resolution, which would blur one channel into another.
"""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpa_kit.classes import N_CLASSES
from hpa_kit.report.plots import stretched

MAP_SIDE = 64
MAP_COLUMNS = 5
CROP_SIDE, CROP_COLUMNS = 96, 12
FAINTEST = 1e-6  # a map below is shown as nothing


class PackedMaps(NamedTuple):
    """Class maps of a field: their picture, and the highest value of each, which is white in it."""

    picture: str
    highest: list[float]


def channels_picture(field: NDArray[np.uint8], side: int, quality: int) -> str:
    """The four channels, each by its own contrast: red and green above, blue and yellow below.

    Args:
        field: uint8 (4, H, W).
        side: most pixels of a channel's longer side; a smaller field stays as it is.
        quality: 1 to 100.

    Returns:
        WebP as base64.
    """
    height, width = field.shape[1:]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = [cv2.resize(channel, size, interpolation=cv2.INTER_AREA) for channel in field]
    red, green, blue, yellow = ((stretched(channel) * 255).astype(np.uint8) for channel in small)
    return _webp(np.block([[red, green], [blue, yellow]]), quality)


def maps_picture(class_maps: NDArray[np.float32], quality: int) -> PackedMaps:
    """The class maps, 64 pixels a side, five in a row, each by its own maximum: many are faint.

    Args:
        class_maps: float32 (19, h, w) in [0, 1].
        quality: 1 to 100.

    Returns:
        WebP as base64, and the maxima.
    """
    rows = -(-N_CLASSES // MAP_COLUMNS)
    sheet = np.zeros((rows * MAP_SIDE, MAP_COLUMNS * MAP_SIDE), np.uint8)
    highest = []
    for index, one in enumerate(class_maps):
        top, left = (MAP_SIDE * part for part in divmod(index, MAP_COLUMNS))
        small = cv2.resize(one.astype(np.float32), (MAP_SIDE, MAP_SIDE), interpolation=cv2.INTER_AREA)
        highest.append(float(f"{max(float(small.max()), 0.0):.3g}"))
        scaled = 255 * small / max(highest[-1], FAINTEST)
        sheet[top : top + MAP_SIDE, left : left + MAP_SIDE] = np.clip(scaled, 0, 255)
    return PackedMaps(_webp(sheet, quality), highest)


def crops_picture(crops: Sequence[NDArray[np.uint8]], quality: int) -> str:
    """Crops of cells, uint8 (s, s, 3), 96 pixels a side, twelve in a row: WebP as base64, empty for none."""
    if not crops:
        return ""
    columns = min(CROP_COLUMNS, len(crops))
    sheet = np.zeros((-(-len(crops) // columns) * CROP_SIDE, columns * CROP_SIDE, 3), np.uint8)
    for place, crop in enumerate(crops):
        top, left = (CROP_SIDE * part for part in divmod(place, columns))
        small = cv2.resize(crop, (CROP_SIDE - 2, CROP_SIDE - 2), interpolation=cv2.INTER_AREA)
        sheet[top : top + CROP_SIDE - 2, left : left + CROP_SIDE - 2] = small
    return _webp(sheet, quality)


def _webp(picture: NDArray[np.uint8], quality: int) -> str:
    packed = io.BytesIO()
    Image.fromarray(picture).save(packed, "WEBP", quality=quality, method=2)
    return base64.b64encode(packed.getvalue()).decode("ascii")
