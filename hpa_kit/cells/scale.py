"""Fields of a lab at the scale that segmenters know, pixels of 0.08 µm; and their label maps back again."""

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.regions import LabelMap, relabel
from hpa_kit.cells.resize import enlarge, resized
from hpa_kit.config.kinds import FIELD_SIDE
from hpa_kit.errors import InputError

MAX_PIXELS = 2**27  # of a field at that scale; more would not fit into memory beside others

Field = NDArray[np.uint8]


def at_known_scale(field: Field, scale: float) -> Field:
    """Resize a field so that its cells are as large as in the fields that segmenters know.

    Args:
        field: uint8 (4, H, W).
        scale: pixels of 0.08 µm that one of its pixels is wide.

    Returns:
        uint8 (4, h, w). Smaller ones are continued by their mirror image, to the right and below, to 2048²:
        a small field would be taken for a reduced copy of such a one.
    """
    shape = _shape(field.shape[1:], scale)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    whole = np.stack([cv2.resize(plane, shape[::-1], interpolation=how) for plane in field])
    beyond = [(0, max(0, FIELD_SIDE - side)) for side in shape]
    return np.pad(whole, [(0, 0), *beyond], mode="symmetric")


def refuse_too_large(size: tuple[int, ...], scale: float) -> None:
    """Find out whether a field of (H, W) pixels can be taken at that scale.

    Raises:
        InputError: it would be too large.
    """
    height, width = _shape(size, scale)
    if height * width > MAX_PIXELS:
        raise InputError(
            f"segmenter: a field would have {width} x {height} pixels of 0.08 µm; expected {MAX_PIXELS} at "
            "most; cut it into fields, or give pixel_size 0 to take it as it is"
        )


def as_stored(
    maps: tuple[LabelMap, LabelMap], size: tuple[int, ...], scale: float
) -> tuple[LabelMap, LabelMap]:
    """Bring label maps of a field at the known scale back to its own.

    Args:
        maps: nuclei and cells, int32 (h, w), the same number in both, of :func:`at_known_scale`'s field.
        size: (H, W) of the field as it is stored.
        scale: as there.

    Returns:
        Nuclei and cells, int32 (H, W), numbered 1…n without gaps.
    """
    height, width = _shape(size, scale)
    back = resized if scale > 1 else enlarge
    nuclei, cells = (back(np.ascontiguousarray(one[:height, :width]), (size[0], size[1])) for one in maps)
    cells = relabel(cells)
    return np.where(nuclei != 0, cells, np.int32(0)), cells


def _shape(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
