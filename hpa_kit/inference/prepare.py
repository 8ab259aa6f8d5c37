"""A field, made ready for members and rule, and small: nothing of its full size is kept but mask strings."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells import LabelMaps, has_label_maps, read_label_maps
from hpa_kit.data import read_field
from hpa_kit.errors import InputError
from hpa_kit.inference.arrays import resized
from hpa_kit.submission import encode_label_map

log = logging.getLogger(__name__)

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
    """

    id: str
    size: Size
    inputs: dict[int, Field]
    cells: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    green: NDArray[np.float32]
    masks: dict[int, str]
    n_cells: int


class CellFinder:
    """Label maps of fields: kept ones where there are good ones, else found by a segmenter.

    May be called from several threads.

    Args:
        masks: folder of ``ID.npz`` or ``ID.png``, or None.
        segment: field -> nuclei and cells.

    Raises:
        InputError: ``masks`` is no folder.
    """

    def __init__(self, masks: Path | None, segment: Callable[[Field], tuple[NDArray, NDArray]]) -> None:
        if masks is not None and not masks.is_dir():
            raise InputError(f"masks: {masks} is no folder; expected one with ID.npz or ID.png files")
        self.masks, self.segment = masks, segment
        self.found = 0  # fields whose cells the segmenter had to find
        self._lock = Lock()

    def __call__(self, id: str, field: Field) -> LabelMaps:
        """The label maps of one field, int32 (H, W) each."""
        if self.masks is not None and has_label_maps(self.masks, id):
            try:
                return read_label_maps(self.masks, id, field)
            except InputError as error:
                log.warning(f"{error}; its cells are found again")
        with self._lock:
            self.found += 1
        return LabelMaps(*self.segment(field))


@dataclass(frozen=True)
class Preparer:
    """Reads a field and makes it ready; meant for threads, while the members look at earlier fields.

    Attributes:
        images: folder of the images.
        find_cells: field -> label maps.
        inputs: field -> what the members read.
        map_size: side of the class maps.
        sizes: {ID: (height, width)} that the sample demands; a field of another size gets masks of that one.
    """

    images: Path
    find_cells: CellFinder
    inputs: Callable[[Field], dict[int, Field]]
    map_size: int
    sizes: dict[str, Size]

    def __call__(self, id: str) -> PreparedField:
        """Make one field ready.

        Raises:
            InputError: the field cannot be read.
        """
        field = read_field(self.images, id)
        nuclei, cells = self.find_cells(id, field)
        height, width = self.sizes.get(id, field.shape[1:])
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
        )
