"""A field, made ready for members and rule, and small: nothing of its full size is kept but mask strings."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells import FieldCells
from hpa_kit.inference.arrays import resized
from hpa_kit.submission import encode_label_map

Field = NDArray[np.uint8]
Size = tuple[int, int]
GREEN = 1


@dataclass(frozen=True)
class PreparedField:
    """What inference needs of a field.

    Attributes:
        id: the field's ID.
        size: height and width of its masks, in pixels.
        inputs: {side: uint8 (4, side, side)}, what the members read.
        cells, nuclei: int32 (m, m), the label maps at the class maps' scale.
        green: float32 (m, m), 0 to 255.
        masks: {cell: mask string}, from the label map of full size.
        n_cells: number of cells.
        made: whether its cells had to be found.
    """

    id: str
    size: Size
    inputs: dict[int, Field]
    cells: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    green: NDArray[np.float32]
    masks: dict[int, str]
    n_cells: int
    made: bool


@dataclass(frozen=True)
class Preparer:
    """Makes a field ready; meant for threads, while the members look at earlier fields.

    Attributes:
        inputs: field -> what the members read.
        map_size: side of the class maps.
        sizes: {ID: (height, width)} that the sample demands; a field of another size gets masks of that one.
    """

    inputs: Callable[[Field], dict[int, Field]]
    map_size: int
    sizes: dict[str, Size]

    def __call__(self, id: str, found: FieldCells) -> PreparedField:
        """Make one field with its label maps ready."""
        field, (nuclei, cells) = found.field, found.maps
        height, width = self.sizes.get(id, (field.shape[1], field.shape[2]))
        shape = (self.map_size, self.map_size)
        green = field[GREEN].astype(np.float32)
        return PreparedField(
            id=id,
            size=(height, width),
            inputs=self.inputs(field),
            cells=resized(cells, shape),
            nuclei=resized(nuclei, shape),
            green=np.asarray(cv2.resize(green, shape, interpolation=cv2.INTER_LINEAR)),
            masks=encode_label_map(resized(cells, (height, width))),
            n_cells=int(cells.max(initial=0)),
            made=found.made,
        )
