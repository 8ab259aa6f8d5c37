"""Where the cells of a field lie, at any scale: for those so small that no pixel of the maps shows them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.geometry import cell_geometry


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
