"""A folder of label maps, this kit's or another tool's: which file is of which field, and what it says."""

import bisect
import logging
import os
import re
import threading
from collections import defaultdict
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.classical import ClassicalSegmenter
from hpa_kit.cells.label_maps import ENDINGS, EXPECTED_NAMES, NAMES, LabelMaps, label_map_ids
from hpa_kit.cells.mask_files import EXPECTED, MaskFile, read_mask_file
from hpa_kit.cells.regions import LabelMap
from hpa_kit.errors import InputError

log = logging.getLogger(__name__)

_NONE = (len(NAMES), len(ENDINGS))
_PICKLED = "_seg.npy"  # cellpose's arrays beside its settings; reading them would run what they hold
# What else looks as if it were of a field: any ending, or a name that speaks of cells.
_OTHER = re.compile(r"\.\w+|[_.-]\w*(seg|mask|label|cell|nucle|outline)\w*\.\w+", re.IGNORECASE)


class MaskFolder:
    """A folder that holds the label maps of fields.

    Args:
        folder: where the files are: the ID, one of :data:`NAMES`, and one of :data:`ENDINGS` in any letter
            case. ``ID.npz`` and then ``ID.png`` are looked for first.

    Raises:
        InputError: it is no folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"masks: {self.folder} is no folder; {EXPECTED_NAMES}")
        self._lock = threading.Lock()
        self._masks = self._pieces = 0

    def check(self) -> None:
        """Look through the folder before its files are read; says where a field has several.

        Raises:
            InputError: it holds files, but not one label map.
        """
        of_field = defaultdict(list)
        for name in self._names:
            if name.lower().endswith(ENDINGS) and not name.endswith(_PICKLED):
                of_field[min(label_map_ids(name), key=len)].append(name)
        if self._names and not of_field:
            raise InputError(
                f"masks: {self.folder} holds no label map, but {_listed(self._names)}; {EXPECTED_NAMES}"
            )
        several = {id: names for id, names in of_field.items() if len(names) > 1}
        if several:
            id, names = next(iter(several.items()))
            log.warning(
                f"masks: {self.folder} holds several label maps of {len(several)} fields, such as "
                f"{_listed(names)}, of which {min(names, key=partial(_rank, id))} counts"
            )

    def has(self, id: str) -> bool:
        """Whether there is a file of a field, whole or not."""
        return self._file(id) is not None

    def find(self, id: str) -> Path | None:
        """Find the file of a field, or None where there is none.

        Raises:
            InputError: there is none that can be read, but another that seems to be of the field.
        """
        path = self._file(id)
        if path is None:
            others = [name for name in self._of(id) if _OTHER.fullmatch(name[len(id) :])]
            if others:
                pickled = any(name.endswith(_PICKLED) for name in others)
                advice = "; of cellpose's pickled _seg.npy nothing is read: have it save masks as png or tif"
                raise InputError(
                    f"label maps: {self.folder} has none of ID {id}, but {_listed(others)}; {EXPECTED_NAMES}"
                    f"{advice if pickled else ''}"
                )
        return path

    def read(self, id: str, field: NDArray[np.uint8]) -> LabelMaps:
        """Read the label maps of a field.

        Args:
            id: the field's ID.
            field: uint8 (4, H, W), the field itself: its size is checked, and nuclei that the file lacks are
                taken from its blue channel.

        Returns:
            int32 maps of the field's size. Cells are numbered 1…n in the order of the file's numbers, gaps
            closed, so that row i of a table of cell scores is cell i + 1. A nucleus pixel bears the number of
            the cell it lies in: nuclei are cut to their cells and cannot disagree with them. A cell may be
            without nucleus.

        Raises:
            InputError: no file; a damaged one; other arrays than label maps; a size that is not the field's.
        """
        height, width = field.shape[1:]
        found = self._read(id, (height, width))
        nucleus = ClassicalSegmenter().find_nuclei(field) if found.nuclei is None else found.nuclei
        return LabelMaps(np.where(nucleus != 0, found.cells, np.int32(0)), found.cells)

    def read_cells(self, id: str) -> LabelMap:
        """Read a field's cells without nuclei, numbered as :meth:`read` numbers them; needs no image.

        Raises:
            InputError: no file; a damaged one; other arrays than label maps.
        """
        return self._read(id, None).cells

    def report(self) -> None:
        """Say how many cells were pieces of masks that do not tell cells apart, if there were such."""
        if self._masks:
            log.warning(
                f"masks: {self._masks} files of {self.folder} hold one value alone, in {self._pieces} "
                f"pieces: each piece became a cell; {EXPECTED}"
            )

    def _read(self, id: str, shape: tuple[int, int] | None) -> MaskFile:
        path = self.find(id)
        if path is None:
            raise InputError(
                f"label maps: {self.folder / id}.npz is missing, and so is .png; run hpa-kit segment"
            )
        found = read_mask_file(path, shape)
        with self._lock:
            self._masks += found.pieces > 0
            self._pieces += found.pieces
        return found

    def _file(self, id: str) -> Path | None:
        for ending in ENDINGS[:2]:  # the folder is only listed where these are not there
            path = self.folder / f"{id}{ending}"
            if os.path.isfile(path):  # noqa: PTH113 - False, not an error, where the name is too long
                return path
        name = min(self._of(id), key=partial(_rank, id), default="")
        return None if _rank(id, name) == _NONE else self.folder / name

    def _of(self, id: str) -> list[str]:
        """The names that begin with an ID."""
        first = bisect.bisect_left(self._names, id)
        last = bisect.bisect_left(self._names, f"{id}\U0010ffff")
        return self._names[first:last]

    @cached_property
    def _names(self) -> list[str]:
        """Of all files but hidden ones, sorted."""
        try:
            with os.scandir(self.folder) as entries:
                return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_file())
        except OSError as error:
            raise InputError(f"masks: {self.folder} cannot be read: {error.strerror}") from None


def read_label_maps(folder: str | Path, id: str, field: NDArray[np.uint8]) -> LabelMaps:
    """Read the label maps of one field of a folder; see :meth:`MaskFolder.read`."""
    return MaskFolder(folder).read(id, field)


def _rank(id: str, name: str) -> tuple[int, int]:
    """Which of several files of a field counts, the least first; ``_NONE`` for what is no label map of it."""
    stem, ending = os.path.splitext(name)  # noqa: PTH122 - a Path for each of many files is slow
    between, ending = stem.removeprefix(id), ending.lower()
    if ending not in ENDINGS or between not in NAMES:
        return _NONE
    return NAMES.index(between), ENDINGS.index(ending)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
