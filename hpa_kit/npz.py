"""Arrays out of numpy's npz files, without pickles and without more memory than the reader expects."""

import math
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


def read_npz(path: str | Path, names: Collection[str], most: int) -> dict[str, NDArray[Any]]:
    """Read some arrays of an npz file.

    ``numpy.load`` unpacks whatever a file claims to hold: 10 MB can become 10 GB.

    Args:
        path: the file.
        names: the arrays wanted; those that the file lacks are left out.
        most: bytes of one array.

    Raises:
        ValueError: the file is missing, damaged, no npz, or an array is larger or of pickled objects.
    """
    if not zipfile.is_zipfile(path):
        there = Path(path).exists()
        raise ValueError(f"no npz file ({Path(path).stat().st_size} bytes)" if there else "is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            found = {name: members[f"{name}.npy"] for name in names if f"{name}.npy" in members}
            return {name: _read(archive, info, most) for name, info in found.items()}
    # What numpy and zipfile raise for a file that is no archive of arrays, or a broken one.
    except (OSError, EOFError, NotImplementedError, RuntimeError, MemoryError, zlib.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> NDArray[Any]:
    if info.file_size > most:
        raise ValueError(f"{info.filename} claims {info.file_size} bytes; expected {most} at most")
    with archive.open(info) as member:
        _check_claim(member, info)
    with archive.open(info) as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def _check_claim(member: IO[bytes], info: zipfile.ZipInfo) -> None:
    """Refuse an array that claims more than its member holds, before numpy makes room for it."""
    version = np.lib.format.read_magic(member)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(member)
    claimed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and claimed != info.file_size - member.tell():
        raise ValueError(f"{info.filename} claims {claimed} bytes, holds {info.file_size - member.tell()}")
