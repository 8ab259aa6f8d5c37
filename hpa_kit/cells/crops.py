"""Crops of cells: windows of a field at its size, one around each cell, with the mask of that cell.

A field is resized once, as for every network, and crops are cut out of it: all have the field's scale, and
neither store nor inference holds a pixel twice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.regions import cell_geometry
from hpa_kit.config.kinds import FIELD_SIDE, PIXEL_SIZE

STEP = 32  # sides of crops are multiples of it, so that most networks take them
_SHARE = 0.9  # of cells whose box a crop holds
_DILATION = 7  # pixels of 0.08 µm by which masks grow where crops are scaled


class Crops(NamedTuple):
    """Crops of n cells of a field.

    Attributes:
        pixels: uint8 (n, C, side, side), black beyond the field.
        masks: uint8 (n, side, side), 1 in the cell.
        statistics: float32 (2, C), mean and spread of the channels of the whole field.
    """

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    statistics: NDArray[np.float32]


def centres(
    cells: NDArray[np.integer], n_cells: int | None = None, known: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """The pixel in the middle of each cell's box.

    Args:
        cells: label map (S, S) at the size of the field, 0 background and 1…n.
        n_cells: rows to make; by default the largest number in ``cells``.
        known: float64 (n, 2), y and x of cells' centres as parts of the field, for cells that ``cells`` has
            lost; without it, or where it says NaN, such a cell is at −1.

    Returns:
        int64 (n, 2), y and x.
    """
    measured = cell_geometry(cells)
    n_cells = len(measured.area) if n_cells is None else n_cells
    found = np.full((n_cells, 2), -1, np.int64)
    there = np.flatnonzero(measured.area > 0)
    found[there] = (measured.box[there, :2] + measured.box[there, 2:]) // 2
    if known is not None:
        lost = np.flatnonzero((found < 0).all(axis=1) & ~np.isnan(known).any(axis=1))
        found[lost] = np.minimum(known[lost] * cells.shape, np.array(cells.shape) - 1).astype(np.int64)
    return found


def cut_crops(
    field: NDArray[np.uint8],
    cells: NDArray[np.integer],
    numbers: Sequence[int] | NDArray[np.int64],
    at: NDArray[np.int64],
    side: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Cut cells out of a field.

    Args:
        field: uint8 (C, S, S).
        cells: its label map (S, S).
        numbers: of the cells (n,); of one that has no pixel the mask is the pixel it is at.
        at: y and x (n, 2) that lie in the middle of each crop; a crop of one at −1 is black and without mask.
        side: of the crops in pixels.

    Returns:
        Pixels uint8 (n, C, side, side), black beyond the field, and masks uint8 (n, side, side).
    """
    height, width = cells.shape
    pixels = np.zeros((len(numbers), field.shape[0], side, side), np.uint8)
    masks = np.zeros((len(numbers), side, side), np.uint8)
    for crop, mask, number, (y, x) in zip(pixels, masks, numbers, at.tolist(), strict=True):
        if y < 0:
            continue
        top, left = y - side // 2, x - side // 2
        rows = slice(max(top, 0), min(top + side, height))
        columns = slice(max(left, 0), min(left + side, width))
        inside = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        crop[:, *inside] = field[:, rows, columns]
        mask[inside] = cells[rows, columns] == number
        if not mask.any():
            mask[side // 2, side // 2] = 1
    return pixels, masks


def crops_of(
    field: NDArray[np.uint8],
    cells: NDArray[np.integer],
    side: int,
    n_cells: int | None = None,
    known: NDArray[np.float64] | None = None,
) -> Crops:
    """Crops of all cells of a field uint8 (C, S, S); see :func:`centres` and :func:`cut_crops`."""
    at = centres(cells, n_cells, known)
    pixels, masks = cut_crops(field, cells, np.arange(1, len(at) + 1), at, side)
    return Crops(pixels, masks, field_statistics(field))


def scaled_crops(
    field: NDArray[np.uint8],
    cells: NDArray[np.integer],
    extent: int,
    wanted: int,
    zeroed: bool,
    pixel: float | None = None,
    size: int = FIELD_SIDE,
) -> Crops:
    """Cut crops out of a field of full size and scale each by itself, as SubCell has them.

    Args:
        field: uint8 (C, H, W).
        cells: its label map (H, W), 0 background and 1…n.
        extent: side of what is cut, in pixels of 0.08 µm.
        wanted: side of the crops that come out, in pixels of theirs.
        zeroed: blacken what is outside a cell's mask, which has grown by 7 pixels of 0.08 µm.
        pixel: micrometres of the field's pixels; None takes its longer side for ``size`` pixels of 0.08 µm.
        size: see ``pixel``.
    """
    per = max(field.shape[1:]) / size if pixel is None else PIXEL_SIZE / pixel
    side, radius = max(1, round(extent * per)), round(_DILATION * per)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    at = centres(cells)
    found = np.zeros((len(at), len(field), wanted, wanted), np.uint8)
    masks = np.zeros((len(at), wanted, wanted), np.uint8)
    how = cv2.INTER_AREA if side > wanted else cv2.INTER_LINEAR
    for number in range(1, len(at) + 1):  # one after the other: at full size all would be large
        (crop,), (mask,) = cut_crops(field, cells, [number], at[number - 1 : number], side)
        if at[number - 1, 0] < 0:
            continue
        mask = cv2.dilate(mask, disc)
        if zeroed:
            crop = crop * mask
        for channel, plane in zip(found[number - 1], crop, strict=True):
            cv2.resize(plane, (wanted, wanted), dst=channel, interpolation=how)
        masks[number - 1] = cv2.resize(mask, (wanted, wanted), interpolation=cv2.INTER_NEAREST)
        masks[number - 1, wanted // 2, wanted // 2] |= not masks[number - 1].any()
    return Crops(found, masks, np.zeros((2, len(field)), np.float32))


def field_statistics(field: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean and spread of each channel of a field uint8 (C, S, S), float32 (2, C), 0 to 255."""
    found = [cv2.meanStdDev(np.ascontiguousarray(plane)) for plane in field]
    return np.array([[float(part[0, 0]) for part in one] for one in found], np.float32).T


def fitting_side(boxes: NDArray[np.integer]) -> int:
    """The smallest side of crops, a multiple of 32, that holds nine in ten boxes.

    Args:
        boxes: the larger side of each cell's box, in pixels of the field at its size (n,); none gives 32.
    """
    if not len(boxes):
        return STEP
    held = float(np.quantile(boxes, _SHARE, method="inverted_cdf"))
    return max(STEP, int(-(-held // STEP)) * STEP)
