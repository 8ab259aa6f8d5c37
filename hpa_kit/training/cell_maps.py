"""Label maps of cells at their training size, packed in memory and, with a store, on disk."""

import hashlib
import json
import logging
import warnings
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.archives import Place, size_and_stamp
from hpa_kit.cells import MaskFolder, resized
from hpa_kit.config import TrainSettings
from hpa_kit.data import PseudoLabels, labelled_fields, read_pseudo_labels
from hpa_kit.devices import cpus
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path
from hpa_kit.flow import Failure, attempt, run_ahead
from hpa_kit.progress import track

if TYPE_CHECKING:
    from hpa_kit.training.data import RunFields

log = logging.getLogger(__name__)

SUFFIX = ".cells"  # beside the resized fields of a store
_MARK = b"hpa_kit cells 1\n"  # raised where the same label map gives another small one than before


class CellMaps:
    """Label maps at their training size, by the number of their field; kept in memory, packed.

    A packed map of 512² takes some 10 kB, so those of all the competition's fields take 0.2 GB.

    Args:
        ids: the fields by their number.
        size: side in pixels.
        folders: of label maps; of a field's the first one's counts.
        counts: cells of each field by ID, where these are known; fields that it lacks have no label map.
        store: folder that keeps the small maps between runs, beside resized fields.

    Attributes:
        checksum: a text that changes where a label map does.
        has_cell: bool (fields,), which have a label map with any cell.

    Raises:
        InputError: label maps are missing, damaged, or hold other numbers of cells than ``counts``.
    """

    def __init__(
        self,
        ids: Sequence[str],
        size: int,
        folders: Sequence[Path],
        counts: Mapping[str, int] | None = None,
        store: Path | None = None,
    ) -> None:
        self.ids, self.size, self._counts = list(ids), size, counts
        self._store = None if store is None else store / str(size)
        self._folders = [MaskFolder(folder) for folder in folders]
        for folder in self._folders:
            folder.check()
        threads = cpus()
        with ThreadPoolExecutor(threads, "label maps") as pool:
            maps = run_ahead(pool, lambda id: attempt(self._read, id), self.ids, 2 * threads)
            read = list(track(maps, "read label maps", len(self.ids), leave=False))
        for folder in self._folders:
            folder.report()
        failed = [found.reason for found in read if isinstance(found, Failure)]
        if failed:
            raise InputError(f"train: label maps of {len(failed)} of {len(self.ids)} fields: {failed[0]}")
        good = [found for found in read if not isinstance(found, Failure)]
        self._packed = [found.packed for found in good]
        self.has_cell = np.array([found.cells > 0 for found in good], np.bool_)
        self.checksum = hashlib.sha256(repr([found.checksum for found in good]).encode()).hexdigest()

    def __getitem__(self, number: int) -> NDArray[np.integer]:
        """The label map of a field (size, size): uint8 where that holds its numbers, else int32."""
        data = zlib.decompress(self._packed[number])
        width = len(data) // self.size**2
        flat = np.frombuffer(data, f"u{width}")
        kind: type[np.uint8] | type[np.int32] = np.uint8 if width == 1 else np.int32
        return flat.reshape(self.size, self.size).astype(kind)

    def _read(self, id: str) -> "_Small":
        """A field's small map, as kept, or made of its label map and kept then."""
        if self._counts is not None and id not in self._counts:
            return _Small(zlib.compress(bytes(self.size**2), 1), 0, 0)
        folder = next((folder for folder in self._folders if folder.has(id)), self._folders[-1])
        kept = None if self._store is None else self._store / f"{id}{SUFFIX}"
        stamp = "" if kept is None else _stamp(folder.find(id))
        found = None if kept is None else _kept(kept, stamp)
        if found is None:
            cells = folder.read_cells(id)
            small = resized(cells, (self.size, self.size))
            # In the smallest type that holds the numbers, which the length tells again.
            data = small.astype(np.min_scalar_type(int(small.max()))).tobytes()
            found = _Small(zlib.compress(data, 1), zlib.crc32(data), int(cells.max(initial=0)))
            if kept is not None:
                _keep(kept, stamp, found)
        if self._counts is not None and found.cells != self._counts[id]:
            raise InputError(
                f"label maps: {folder.folder}, ID {id}: {found.cells} cells, the pseudo labels have "
                f"{self._counts[id]}; give as masks the label maps that they were made with"
            )
        return found


class _Small(NamedTuple):
    """A small label map, packed; a checksum of it unpacked, as packing is up to the library; its cells."""

    packed: bytes
    checksum: int
    cells: int


def cell_maps_of(settings: TrainSettings, ids: Sequence[str], pseudo: PseudoLabels | None = None) -> CellMaps:
    """The label maps that a run's settings name: those of its masks, or those that its pseudo labels count.

    Args:
        settings: of the run; ``masks`` or ``pseudo_labels`` is set.
        ids: the fields by their number.
        pseudo: the pseudo labels, where they are read already.

    Raises:
        InputError: as :class:`CellMaps`.
    """
    if pseudo is None and settings.pseudo_labels is not None:
        pseudo = read_pseudo_labels(settings.pseudo_labels, settings.masks)
    if pseudo is not None:
        counts = {id: len(scores) for id, scores in pseudo.scores.items()}
        return CellMaps(ids, settings.size, pseudo.masks, counts, settings.store)
    assert settings.masks is not None
    maps = CellMaps(ids, settings.size, [settings.masks], None, settings.store)
    empty = int((~maps.has_cell).sum())
    if empty:
        warnings.warn(
            f"train: {empty} of {len(ids)} fields have no cell in {settings.masks}; nothing is learnt "
            "from them",
            stacklevel=2,
        )
    return maps


def cells_of_fields(settings: TrainSettings, fields: "RunFields") -> CellMaps | None:
    """The label maps of the fields of a run that learns image labels; None where it does not look at cells.

    Raises:
        InputError: as :func:`cell_maps_of`; or no field to learn from, or none to validate on, has a cell.
    """
    if not settings.pools_cells:
        return None
    maps = cell_maps_of(settings, fields.folds["ID"].tolist())
    for numbers, what in ((fields.train, "to learn from"), (fields.validation, "to validate on")):
        if not maps.has_cell[numbers].any():
            source = settings.masks or settings.pseudo_labels
            raise InputError(f"train: none of the {len(numbers)} fields {what} has a cell in {source}")
    return maps


def check_label_maps(settings: TrainSettings) -> None:
    """Refuse label maps that are missing, before anything is written and any image is read.

    Raises:
        InputError: the folder is none, or lacks label maps: of how many fields, and of which.
    """
    if settings.masks is None or settings.pseudo_labels is not None:
        return
    folder = MaskFolder(settings.masks)
    folder.check()
    ids = labelled_fields(settings).table["ID"].tolist()
    missing = [id for id in ids if not folder.has(id)]
    if missing:
        named = ", ".join(missing[:3]) + (" and more" if len(missing) > 3 else "")
        raise InputError(
            f"masks: {settings.masks} lacks label maps of {len(missing)} of {len(ids)} fields: ID {named}; "
            "hpa-kit segment makes them, of training fields with --split train"
        )


def warn_of_seen(pseudo: PseudoLabels, ids: Sequence[str], folder: Path) -> None:
    """Say of how many of a run's fields the labels are by members that had learnt from them, if of any.

    Args:
        pseudo: the pseudo labels of ``folder``.
        ids: the run's fields.
        folder: which holds them.
    """
    labelled = [id for id in ids if id in pseudo.scores]
    seen = sum(id in pseudo.seen for id in labelled)
    if seen:
        log.warning(
            f"train: {seen} of {len(labelled)} fields were labelled by members that had seen them, in "
            f"{folder}: such labels repeat what was learnt"
        )


def _stamp(path: Place | None) -> str:
    """Of a file that was packed the same as when it lay loose; a packed one is not opened for it."""
    if path is None:
        return ""
    size, stamp = size_and_stamp(path)
    lies = path.resolve() if isinstance(path, Path) else path.archive.parent.resolve() / path.name
    # With its folder: two tools' maps of a field may be of one size and, unpacked of archives, of one time.
    return f"{lies} {size} {stamp}"


def _kept(path: Path, stamp: str) -> _Small | None:
    """What is kept of this label map; None where there is nothing, or it is another's or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    mark, _, rest = content.partition(b"\n")
    line, _, packed = rest.partition(b"\n")
    try:
        about = json.loads(line)
        whole = mark + b"\n" == _MARK and about["made_from"] == stamp and about["sum"] == zlib.crc32(packed)
        return _Small(packed, int(about["checksum"]), int(about["cells"])) if whole else None
    except (ValueError, TypeError, KeyError):
        return None


def _keep(path: Path, stamp: str, small: _Small) -> None:
    about = {
        "made_from": stamp,
        "sum": zlib.crc32(small.packed),
        "checksum": small.checksum,
        "cells": small.cells,
    }
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"".join([_MARK, json.dumps(about).encode(), b"\n", small.packed]))
    except OSError as error:
        raise InputError(f"store: {path} cannot be written: {error.strerror or error}") from error
