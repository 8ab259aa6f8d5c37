"""What scoring takes, checked and in one form; and where cells lie that the maps do not show."""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.cells.regions import cell_geometry
from hpa_kit.classes import N_CLASSES
from hpa_kit.errors import InputError
from hpa_kit.scoring.pixel_runs import all_finite

MAX_CELLS = 1_000_000  # a larger number in a label map of fewer pixels is no count of cells


def checked_maps(maps: ArrayLike, name: str) -> NDArray[np.float32]:
    """Maps as float32 (19, h, w) in C order.

    Raises:
        InputError: another shape, no numbers, or values that are not finite.
    """
    array = np.asarray(maps)
    if array.ndim != 3 or array.shape[0] != N_CLASSES or 0 in array.shape:
        raise InputError(f"{name}: expected shape ({N_CLASSES}, h, w), found {array.shape}")
    _refuse_non_numbers(array, name)
    plain = np.ascontiguousarray(array, dtype=np.float32)
    if not all_finite(plain):
        raise InputError(f"{name}: expected finite values, found NaN or infinity")
    return plain


def checked_labels(labels: ArrayLike, name: str, n_cells: int | None = None) -> tuple[NDArray[np.int32], int]:
    """A label map as int32 (H, W), and its number of cells.

    Raises:
        InputError: not two axes, no integers, a negative number, or a number above ``n_cells``.
    """
    array = np.asarray(labels)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{name}: expected a label map (H, W), found shape {array.shape}")
    if array.dtype.kind not in "iub":
        raise InputError(f"{name}: expected integers, 0 for background and 1 to n, found {array.dtype}")
    lowest, highest = int(array.min()), int(array.max())
    limit = max(array.size, MAX_CELLS) if n_cells is None else n_cells
    if lowest < 0 or highest > limit:
        found = lowest if lowest < 0 else highest
        raise InputError(
            f"{name}: expected 0 for background and 1 to n cells (at most {limit}), found {found}"
        )
    return np.ascontiguousarray(array, dtype=np.int32), highest if n_cells is None else n_cells


def checked_scores(image_scores: ArrayLike) -> NDArray[np.float64]:
    """Image scores as float64 (19,).

    Raises:
        InputError: another shape, no numbers, or values that are not finite.
    """
    array = np.asarray(image_scores)
    if array.shape != (N_CLASSES,):
        raise InputError(f"image scores: expected shape ({N_CLASSES},), found {array.shape}")
    _refuse_non_numbers(array, "image scores")
    scores = array.astype(np.float64)
    if not np.isfinite(scores).all():
        raise InputError("image scores: expected finite values, found NaN or infinity")
    return scores


def checked_green(
    green: ArrayLike, field_shape: tuple[int, ...], map_shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """The green channel as float32 of the maps' shape, bilinear; it may be of another scale than the field.

    Raises:
        InputError: not two axes, not the field's proportions, not numbers from 0 to 255.
    """
    array = np.asarray(green)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"green: expected one channel (H, W), found shape {array.shape}")
    if array.shape not in (field_shape, map_shape) and not _same_proportions(array.shape, field_shape):
        raise InputError(f"green: expected the shape of the cells, {field_shape}, found {array.shape}")
    _refuse_non_numbers(array, "green")
    lowest, highest = float(array.min()), float(array.max())
    if not (lowest >= 0 and highest <= 255):
        raise InputError(f"green: expected values from 0 to 255, found {lowest:g} to {highest:g}")
    plane = np.ascontiguousarray(array, dtype=np.float32)
    if plane.shape != map_shape:
        plane = np.asarray(cv2.resize(plane, map_shape[::-1], interpolation=cv2.INTER_LINEAR))
    return plane


class CellPlaces(NamedTuple):
    """Of cells 1…n, in order, whatever the size of the field.

    Attributes:
        area: float64 (n,), the part of the field's pixels that a cell has.
        centre: float64 (n, 2), y and x of its centre of mass, as parts of the field's height and width; NaN
            for a number without pixels.
        cut: bool (n,), whether it touches the field's border.
    """

    area: NDArray[np.float64]
    centre: NDArray[np.float64]
    cut: NDArray[np.bool_]


def cell_places(cells: NDArray[np.int32]) -> CellPlaces:
    """The places of the cells of a label map, int32 (H, W)."""
    measured = cell_geometry(cells)
    # A pixel's centre lies half a pixel from where it begins.
    return CellPlaces(measured.area / cells.size, (measured.centroid + 0.5) / cells.shape, measured.cut)


def fill_lost(
    values: NDArray[np.floating],
    maps: NDArray[np.float32],
    shown: NDArray[np.bool_],
    cells: NDArray[np.int32],
    places: CellPlaces | None = None,
) -> None:
    """Give every cell that the maps do not show the maps' values at its centre of mass.

    Args:
        values: (n, 19), a row per cell, changed in place; a number without any pixel keeps its row.
        maps: float32 (19, h, w).
        shown: bool (n,), whether a pixel of the maps lies in the cell.
        cells: int32 (H, W), the label map before it was brought to the maps' size.
        places: of the field's cells, where ``cells`` itself was made smaller before and may have lost some.
    """
    if shown.all():
        return
    known = cell_places(cells) if places is None else places
    n = min(len(values), len(known.area))
    lost = np.flatnonzero(~shown[:n] & (known.area[:n] > 0))
    y, x = (known.centre[lost] * maps.shape[1:]).astype(np.int64).T
    values[lost] = maps[:, y, x].T


def _same_proportions(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two (H, W) are one field at two scales, but for rounding to whole pixels."""
    scale = shape[0] / other[0]
    return abs(shape[1] - other[1] * scale) <= max(1.0, scale)


def _refuse_non_numbers(array: NDArray[Any], name: str) -> None:
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: expected numbers, found {array.dtype}")
