"""A folder of label maps, this kit's or another tool's: which file is of which field, and what it says."""

import bisect
import logging
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpa_kit.archives import ENDING, Packed, Place, is_archive, packed_files
from hpa_kit.cells.classical import ClassicalSegmenter
from hpa_kit.cells.label_maps import ENDINGS, EXPECTED_NAMES, NAMES, LabelMaps, label_map_ids
from hpa_kit.cells.mask_files import EXPECTED, MaskFile, read_mask_file
from hpa_kit.cells.regions import LabelMap
from hpa_kit.errors import InputError

log = logging.getLogger(__name__)

T = TypeVar("T")

_NONE = (len(NAMES), len(ENDINGS))
_PICKLED = "_seg.npy"  # cellpose's arrays beside its settings; reading them would run what they hold
# What else looks as if it were of a field: any ending, or a name that speaks of cells.
_OTHER = re.compile(r"\.\w+|[_.-]\w*(seg|mask|label|cell|nucle|outline)\w*\.\w+", re.IGNORECASE)


class _Listing(NamedTuple):
    """What a folder holds: all names, sorted; those of loose files; and where archives hold which."""

    names: list[str]
    loose: frozenset[str]
    packed: dict[str, Place]


class MaskFolder:
    """A folder that holds the label maps of fields, each as a file of its own or in zip archives.

    Args:
        folder: where the files are: the ID, one of :data:`NAMES`, and one of :data:`ENDINGS` in any letter
            case. ``ID.npz`` and then ``ID.png`` are looked for first. In archives, see
            :func:`~hpa_kit.archives.packed_files`, files have the same names; of a field those that lie
            loose count before these. An archive itself is taken for a folder that holds it alone.

    Threads may share it, and processes that are forked or started anew; no file stays open.

    Raises:
        InputError: it is no folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder.is_dir() or is_archive(self.folder)):
            raise InputError(f"masks: {self.folder} is no folder; {EXPECTED_NAMES}")
        self._lock = threading.Lock()
        self._masks = self._pieces = 0
        self._folders: dict[str, MaskFolder] = {}  # those in it, as far as they were asked for

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def look(self) -> None:
        """List the folder, before threads do it each for themselves.

        Raises:
            InputError: it cannot be read, or an archive in it is damaged.
        """
        _ = self._listing

    def check(self) -> None:
        """Look through the folder before its files are read; says where a field has several.

        Raises:
            InputError: it holds files, but not one label map; an archive is damaged.
        """
        of_field = defaultdict(list)
        names = self._listing.names
        for name in names:
            if name.lower().endswith(ENDINGS) and not name.endswith(_PICKLED):
                of_field[min(label_map_ids(name), key=len)].append(name)
        if names and not of_field:
            raise InputError(
                f"masks: {self.folder} holds no label map, but {_listed(names)}; {EXPECTED_NAMES}"
            )
        several = {id: found for id, found in of_field.items() if len(found) > 1}
        if several:
            id, found = next(iter(several.items()))
            log.warning(
                f"masks: {self.folder} holds several label maps of {len(several)} fields, such as "
                f"{_listed(found)}, of which {min(found, key=partial(self._order, id))} counts"
            )

    def has(self, id: str) -> bool:
        """Whether there is a file of a field, whole or not."""
        return self._file(id) is not None

    def named(self, name: str) -> Place | None:
        """Find the file of a name, loose or in an archive, or None where there is none."""
        if os.path.isfile(self.folder / name):  # noqa: PTH113 - False, not an error, where it is too long
            return self.folder / name
        if name in self._listing.loose:  # it was packed since
            self.__dict__.pop("_listing", None)
        return self._listing.packed.get(name)

    def find(self, id: str) -> Place | None:
        """Find the file of a field, or None where there is none.

        Raises:
            InputError: there is none that can be read, but another that seems to be of the field; an archive
                is damaged.
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
        """Say how many cells were pieces of masks that do not tell cells apart, if there were such since."""
        if self._masks:
            log.warning(
                f"masks: {self._masks} files of {self.folder} hold one value alone, in {self._pieces} "
                f"pieces: each piece became a cell; {EXPECTED}"
            )
            self._masks = self._pieces = 0

    def _read(self, id: str, shape: tuple[int, int] | None) -> MaskFile:
        found = self.reading(lambda: self.find(id), lambda path: read_mask_file(path, shape))
        if found is None:
            raise InputError(
                f"label maps: {self.folder / id}.npz is missing, and so is .png; run hpa-kit segment"
            )
        with self._lock:
            self._masks += found.pieces > 0
            self._pieces += found.pieces
        return found

    def reading(self, find: Callable[[], Place | None], read: Callable[[Place], T]) -> T | None:
        """Find a file and read it; both again where it was packed meanwhile, or its archive was.

        Args:
            find: gives a file of this folder, or None.
            read: raises InputError where that cannot be read.
        """
        place = find()
        try:
            return None if place is None else read(place)
        except InputError:
            if place is None or (place.archive if isinstance(place, Packed) else place).exists():
                raise
        self.__dict__.pop("_listing", None)
        place = find()
        return None if place is None else read(place)

    def _file(self, id: str) -> Place | None:
        below, _, name = id.rpartition("/")
        if below:
            inside = self._inside(below)
            return None if inside is None else inside._file(name)
        for ending in ENDINGS[:2]:  # the folder is only listed where these are not there
            path = self.folder / f"{id}{ending}"
            if os.path.isfile(path):  # noqa: PTH113 - False, not an error, where the name is too long
                return path
        name = min(self._of(id), key=partial(self._order, id), default="")
        if _rank(id, name) == _NONE:
            return None
        return self.folder / name if name in self._listing.loose else self._listing.packed[name]

    def _order(self, id: str, name: str) -> tuple[bool, bool, tuple[int, int]]:
        """Which of several files counts, the least first."""
        rank = _rank(id, name)
        return rank == _NONE, name not in self._listing.loose, rank

    def _inside(self, below: str) -> "MaskFolder | None":
        """The folder in this one that IDs with folders in them have their files in."""
        with self._lock:
            if below not in self._folders and (self.folder / below).is_dir():
                self._folders[below] = MaskFolder(self.folder / below)
            return self._folders.get(below)

    def _of(self, id: str) -> list[str]:
        """The names that begin with an ID."""
        below, _, name = id.rpartition("/")
        if below:
            inside = self._inside(below)
            return [] if inside is None else [f"{below}/{one}" for one in inside._of(name)]
        names = self._listing.names
        first = bisect.bisect_left(names, id)
        last = bisect.bisect_left(names, f"{id}\U0010ffff")
        return names[first:last]

    @cached_property
    def _listing(self) -> _Listing:
        """All files but hidden ones."""
        loose = frozenset[str]()
        try:
            if self.folder.is_dir():
                with os.scandir(self.folder) as entries:
                    loose = frozenset(e.name for e in entries if e.name[0] != "." and e.is_file())
        except OSError as error:
            raise InputError(f"masks: {self.folder} cannot be read: {error.strerror}") from None
        packed = packed_files(self.folder)
        names = (name for name in loose | packed.keys() if not name.lower().endswith(ENDING))
        return _Listing(sorted(names), loose, packed)


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
