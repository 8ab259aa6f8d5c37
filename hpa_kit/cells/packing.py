"""The label maps of a folder in few archives, for places that take no tens of thousands of files.

An archive is a zip file of ``ID.npz`` files as :func:`~hpa_kit.cells.write_label_maps` writes them, stored
without being compressed again. Whatever reads a folder of label maps reads them there: see
:mod:`hpa_kit.archives`. A kill harms nothing at any moment: an archive is whole before it has its name, and
has its name before files that it holds are removed. What then lies in two places is the same in both, and the
next call removes it from one.
"""

import logging
import os
import zipfile
import zlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from hashlib import sha256
from math import ceil
from pathlib import Path

from hpa_kit.archives import ENDING, OWN, Packed, Place, entry_of, own_archives, packed_files, read_archive
from hpa_kit.cells.label_maps import is_label_maps
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, remove_stale
from hpa_kit.locks import locked
from hpa_kit.progress import track

log = logging.getLogger(__name__)

PER_ARCHIVE = 1100  # 20 archives hold the 21,806 training fields of the competition
NAME, LOCK = "label_maps", ".packing.lock"
_LOOKS = 32  # how often a growing folder is looked at while an archive's files gather


def pack_label_maps(folder: str | Path, per_archive: int | None = None, rest: bool = True) -> int:
    """Pack the label maps of a folder that this kit wrote; all other files stay as they are.

    Archives are as few as can be: those that are not full are filled up. One of which nothing counts any
    longer, as all its files were made again, is removed. One process at a time packs a folder.

    Args:
        folder: holds ``ID.npz`` files, archives, or both.
        per_archive: label maps in an archive at most, :data:`PER_ARCHIVE` by default.
        rest: pack those too that fill no archive.

    Returns:
        how many lie loose then.

    Raises:
        InputError: an archive is damaged, or the disk takes no more; nothing is lost.
    """
    folder, most = Path(folder), per_archive or PER_ARCHIVE
    with locked(folder / LOCK, wait=True):
        remove_stale(folder)
        loose, archives = _put_right(folder)
        if rest:
            files, emptied = _with_those_not_full(loose, archives, most)
        else:
            files, emptied = list[Place](loose[: len(loose) // most * most]), list[Path]()
        for first in range(0, len(files), most):
            _write(folder, files[first : first + most])
        for archive in emptied:
            archive.unlink(missing_ok=True)
        return 0 if rest else len(loose) - len(files)


def refuse_to_pack(what: str, folders: Collection[str], packs: bool) -> None:
    """Refuse to pack label maps that lie in folders: archives hold names of files alone.

    Args:
        what: the command, for the error.
        folders: that IDs have in them, such as ``plate1/A01``.
        packs: whether anything is to be packed.

    Raises:
        InputError: there are such folders.
    """
    if packs and folders:
        raise InputError(
            f"{what}: label maps of IDs with folders in them, such as {min(folders)}/…, are not packed; "
            "leave pack out"
        )


class Packer:
    """Packs label maps of a folder while they are written, so that few lie loose at any moment.

    Args:
        folder: which grows; other processes may write to it too, and pack.
        packs: whether anything is packed at all.
    """

    def __init__(self, folder: Path, packs: bool) -> None:
        self._folder, self._packs = folder, packs
        self._unseen = self._others = 0

    def begin(self) -> None:
        """Put right what a kill may have left, and pack what fills archives."""
        if self._packs:
            left = pack_label_maps(self._folder, rest=False)
            self._others = max(0, self._loose() - left)  # what this kit did not write

    def add(self) -> None:
        """Hear that another one was written; pack where those that lie loose fill an archive."""
        self._unseen += 1
        if self._packs and self._unseen >= max(1, PER_ARCHIVE // _LOOKS):
            self._unseen = 0
            if self._loose() - self._others >= PER_ARCHIVE:
                self.begin()

    def end(self) -> None:
        """Pack what is left."""
        if self._packs:
            pack_label_maps(self._folder)

    def _loose(self) -> int:
        return sum(1 for _ in self._folder.glob("[!.]*.npz"))


def remove_packed(folder: Path, ids: Collection[str]) -> None:
    """Have the archives of a folder hold label maps of these fields no longer.

    Raises:
        InputError: as :func:`pack_label_maps`.
    """
    names = {f"{id}.npz" for id in ids}
    if not names & packed_files(folder).keys():
        return
    with locked(folder / LOCK, wait=True):
        _, archives = _put_right(folder)
        for archive in own_archives(folder):
            if names.isdisjoint(file.name for file in read_archive(archive)):
                continue
            if kept := [file for file in archives[archive] if file.name not in names]:
                _write(folder, kept)
            archive.unlink(missing_ok=True)


def _put_right(folder: Path) -> tuple[list[Path], dict[Path, list[Packed]]]:
    """Remove what is in two places from one; what lies loose then, and what counts of each archive."""
    packed, loose = packed_files(folder), list[Path]()
    archives: dict[Path, list[Packed]] = {archive: [] for archive in own_archives(folder)}
    for path in sorted(folder.glob("[!.]*.npz")):
        twin = packed.get(path.name)
        if isinstance(twin, Packed) and twin.archive in archives and _holds(path, twin):
            path.unlink(missing_ok=True)
        elif is_label_maps(path):
            loose.append(path)
    there = {path.name for path in loose}
    for file in packed.values():
        if isinstance(file, Packed) and file.archive in archives and file.name not in there:
            archives[file.archive].append(file)
    for archive in [archive for archive, files in archives.items() if not files]:
        archive.unlink(missing_ok=True)
        del archives[archive]
    return loose, archives


def _holds(path: Path, packed: Packed) -> bool:
    try:
        return path.stat().st_size == packed.size and zlib.crc32(path.read_bytes()) == packed.checksum
    except OSError:  # another process has just removed it
        return False


def _with_those_not_full(
    loose: list[Path], archives: dict[Path, list[Packed]], most: int
) -> tuple[list[Place], list[Path]]:
    """Files to pack, of archives too where these become fewer by it; and which, the smallest ones."""
    files, emptied = list[Place](loose), list[Path]()
    total = len(loose) + sum(map(len, archives.values()))
    for archive in sorted(archives, key=lambda archive: len(archives[archive])):
        if len(archives) - len(emptied) + ceil(len(files) / most) <= ceil(total / most):
            break
        files += archives[archive]
        emptied.append(archive)
    return sorted(files, key=lambda file: file.name), emptied


def _write(folder: Path, files: Sequence[Place]) -> None:
    """Write an archive, then remove the files in it that lay loose, unless others have taken their places."""
    numbers = [int(found[1]) for path in own_archives(folder) if (found := OWN.fullmatch(path.stem))]
    letters = sha256("/".join(file.name for file in files).encode()).hexdigest()[:8]
    packed = list[tuple[Path, os.stat_result]]()
    with atomic_path(folder / f"{NAME}_{max(numbers, default=0) + 1:04d}_{letters}{ENDING}") as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for file in track(files, "pack", len(files), leave=False):
                try:
                    if isinstance(file, Packed):
                        content, stamp = file.read(), file.stamp
                    else:
                        with file.open("rb") as opened:
                            content, was = opened.read(), os.fstat(opened.fileno())
                        packed.append((file, was))
                        stamp = was.st_mtime_ns
                except FileNotFoundError:  # another process has just removed it
                    continue
                except InputError as error:
                    log.warning(f"{error}; it is left out")
                    continue
                archive.writestr(entry_of(file.name, stamp), content)
        with temporary.open("rb+") as written:  # all of it is on the disk before what it holds is removed
            os.fsync(written.fileno())
    for path, was in packed:
        with suppress(FileNotFoundError):
            if _same(path.stat(), was):
                path.unlink()


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return all(getattr(one, part) == getattr(other, part) for part in ("st_ino", "st_size", "st_mtime_ns"))
