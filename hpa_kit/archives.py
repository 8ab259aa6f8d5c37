"""Zip archives that lie in a folder: the files in them count as if they lay in the folder themselves.

They are read in place. Which files there are is read once, of what archives say at their ends; a file is then
read by its place alone, through a handle of its own, so that threads and processes share none.
"""

import os
import re
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from hpa_kit.errors import InputError, one_line

ENDING = ".zip"
# Archives of this kit: what is in them, their number, and letters by which those of two folders differ.
OWN = re.compile(r"[a-z_]+_(\d{4,})_[0-9a-f]{8}")

MAX_BYTES = 2**29  # of a file; no image or label map that can be used has more

_WHOLE = "expected a whole zip archive of stored or deflated files; copy or make it again"
_WRITTEN = re.compile(rb"st_mtime_ns=(\d+)")
_HEADER = struct.Struct("<4s22xHH")  # before a file's bytes: a mark, and bytes of its name and of extras
_FIRST = (1980, 1, 1, 0, 0, 0)  # when time begins for zip
_END = 22  # bytes of an archive without any file
_ENCRYPTED = 1  # a bit of a file's flags


class Packed(NamedTuple):
    """A file in an archive.

    Attributes:
        archive: which holds it.
        name: of the file, without folders.
        start: where in the archive it begins.
        length: bytes that it takes there.
        size: its bytes.
        method: zip's number of how it is compressed, 0 for not at all; -1 where it is encrypted.
        checksum: CRC-32 of its bytes.
        stamp: what tells it from another file of its name and size: ``st_mtime_ns`` of the file that was
            packed, or where the archive does not say that, its checksum as text.
    """

    archive: Path
    name: str
    start: int
    length: int
    size: int
    method: int
    checksum: int
    stamp: int | str

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    def read(self) -> bytes:
        """Read its bytes.

        Raises:
            InputError: the archive is damaged, gone, or compressed in another way; the file is too large.
        """
        try:
            return self._read()
        except (OSError, ValueError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise InputError(f"archive: {self} cannot be read: {reason}; {_WHOLE}") from None

    def _read(self) -> bytes:
        if self.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is encrypted" if self.method < 0 else f"compression {self.method}")
        if max(self.size, self.length) > MAX_BYTES:
            raise ValueError(f"{max(self.size, self.length)} bytes, of which {MAX_BYTES} at most are read")
        with self.archive.open("rb") as file:
            file.seek(self.start)
            header = file.read(_HEADER.size)
            mark, name, extras = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0)
            if mark != b"PK\3\4":
                raise ValueError("it does not begin where the archive says")
            file.seek(name + extras, os.SEEK_CUR)
            content = file.read(self.length)
        if self.method == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
        if len(content) != self.size or zlib.crc32(content) != self.checksum:
            raise ValueError("its bytes are not those that were packed")
        return content


# A file that lies loose, or in an archive; both have a name.
Place = Path | Packed


def size_and_stamp(place: Place) -> tuple[int, int | str]:
    """Tell bytes and time of a file without reading it; the same whether it lies loose or this kit packed it.

    Raises:
        OSError: a loose one is gone.
    """
    if isinstance(place, Packed):
        return place.size, place.stamp
    stat = place.stat()
    return stat.st_size, stat.st_mtime_ns


def packed_files(folder: Path) -> dict[str, Place]:
    """Find the files in the archives of a folder, without any that lies loose.

    Args:
        folder: holds ``.zip`` files; or is one itself. A folder in it that is named as an archive of this kit
            is one that was unpacked, as Kaggle does it, and its files count too.

    Returns:
        {name: file}, hidden ones left out; nothing where there is no folder. Of several of a name one in an
        archive of this kit counts, of these the one with the largest number.

    Raises:
        InputError: an archive is damaged.
    """
    found: dict[str, Place] = {}
    for source in [folder] if is_archive(folder) else _sources(folder) if folder.is_dir() else []:
        places = _below(source) if source.is_dir() else read_archive(source)
        found |= {place.name: place for place in places if place.name[:1] not in (".", "")}
    return found


def read_archive(path: Path) -> list[Packed]:
    """List the files in an archive.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        # An npz file is an archive itself: where the outer one breaks off, the last whole one in it is found.
        if min((member.header_offset for member in members), default=path.stat().st_size - _END) != 0:
            raise ValueError("it breaks off")
    except (OSError, ValueError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        size = path.stat().st_size if path.exists() else 0
        raise InputError(
            f"archive: {path} cannot be read: {one_line(error)} ({size} bytes); {_WHOLE}"
        ) from None
    return [
        Packed(
            path,
            member.filename.rpartition("/")[2],
            member.header_offset,
            member.compress_size,
            member.file_size,
            -1 if member.flag_bits & _ENCRYPTED else member.compress_type,
            member.CRC,
            _stamp(member),
        )
        for member in members
    ]


def is_archive(path: Path) -> bool:
    """Whether a path is a file that is named as an archive."""
    return path.suffix.lower() == ENDING and path.is_file()


def own_archives(folder: Path) -> list[Path]:
    """List the archives of a folder that this kit wrote, by rising number."""
    found = [path for path in folder.glob(f"*{ENDING}") if OWN.fullmatch(path.stem) and path.is_file()]
    return sorted(found, key=_order)


def entry_of(name: str, stamp: int | str) -> zipfile.ZipInfo:
    """Make the entry under which a file is stored in an archive, so that :class:`Packed` gives its stamp."""
    seconds = stamp // 10**9 if isinstance(stamp, int) else 0
    entry = zipfile.ZipInfo(name, max(time.gmtime(seconds)[:6], _FIRST))
    entry.external_attr = 0o644 << 16
    if isinstance(stamp, int):
        entry.comment = b"st_mtime_ns=%d" % stamp
    return entry


def _sources(folder: Path) -> list[Path]:
    """Archives of a folder and those that were unpacked there; what counts more stands behind."""
    try:
        with os.scandir(folder) as entries:
            paths = [
                Path(entry.path)
                for entry in entries
                if entry.name[0] != "."
                and (
                    (entry.name.lower().endswith(ENDING) and entry.is_file())
                    or (OWN.fullmatch(entry.name.removesuffix(ENDING)) and entry.is_dir())
                )
            ]
    except OSError as error:
        raise InputError(f"archive: {folder} cannot be read: {error.strerror}") from None
    return sorted(paths, key=_order)


def _order(path: Path) -> tuple[int, str]:
    own = OWN.fullmatch(path.name.removesuffix(ENDING))
    return (int(own[1]) if own else -1), path.name


def _below(folder: Path) -> list[Path]:
    """All files below a folder, as unpacking may have put one more around them."""
    return [Path(place, name) for place, _, names in os.walk(folder) for name in names]


def _stamp(member: zipfile.ZipInfo) -> int | str:
    written = _WRITTEN.fullmatch(member.comment)
    return int(written[1]) if written else f"{member.CRC:08x}"
