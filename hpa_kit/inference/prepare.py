"""A field, made ready for members and rule, and small: nothing of its full size is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells import FieldCells, resized
from hpa_kit.scoring.inputs import CellPlaces, cell_places

Field = NDArray[np.uint8]
Size = tuple[int, int]
D = TypeVar("D")
GREEN = 1


@dataclass(frozen=True)
class PreparedField(Generic[D]):
    """What inference needs of a field.

    Attributes:
        id: the field's ID.
        size: its height and width in pixels.
        inputs: {side: uint8 (4, side, side)}, what the members read.
        cells, nuclei: int32 (m, m), the label maps at the class maps' scale.
        green: float32 (m, m), 0 to 255.
        places: of its cells at full size.
        details: what was made of the full size for the table that is written, such as mask strings.
        n_cells: number of cells.
        made: whether its cells had to be found.
    """

    id: str
    size: Size
    inputs: dict[int, Field]
    cells: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    green: NDArray[np.float32]
    places: CellPlaces
    details: D
    n_cells: int
    made: bool


@dataclass(frozen=True)
class Preparer(Generic[D]):
    """Makes a field ready; meant for threads, while the members look at earlier fields.

    Attributes:
        inputs: field -> what the members read.
        map_size: side of the class maps.
        details: ID and field with label maps -> what the table needs of its full size.
    """

    inputs: Callable[[Field], dict[int, Field]]
    map_size: int
    details: Callable[[str, FieldCells], D]

    def __call__(self, id: str, found: FieldCells) -> PreparedField[D]:
        """Make one field with its label maps ready."""
        field, small = found.field, at_map_scale(found, self.map_size)
        return PreparedField(
            id=id,
            size=(field.shape[1], field.shape[2]),
            inputs=self.inputs(field),
            **small._asdict(),
            details=self.details(id, found),
            n_cells=len(small.places.area),
            made=found.made,
        )


class MapScale(NamedTuple):
    """What a rule needs of a field beside the class maps, at their scale; see :class:`PreparedField`."""

    cells: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    green: NDArray[np.float32]
    places: CellPlaces


def at_map_scale(found: FieldCells, map_size: int) -> MapScale:
    """A field's label maps and green at the class maps' scale, a square whatever the field is."""
    shape = (map_size, map_size)
    green = cv2.resize(found.field[GREEN].astype(np.float32), shape, interpolation=cv2.INTER_LINEAR)
    cells, nuclei = (resized(labels, shape) for labels in (found.maps.cells, found.maps.nuclei))
    return MapScale(cells, nuclei, np.asarray(green), cell_places(found.maps.cells))
