"""Arrays in and out of numpy's files, without pickles and without more memory than the reader expects."""

import io
import math
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_NEEDS_64_BITS = 2**31  # bytes of an array, from which on the zip has to count in 64 bits


def write_npz(path: str | Path, arrays: Mapping[str, NDArray[Any]], level: int = 0) -> None:
    """Write arrays to an npz file, which ``numpy.load`` opens without pickles.

    Unlike ``numpy.savez`` it leaves nothing open where the disk takes no more, of which Python would complain
    once the error has been told.

    Args:
        path: the file.
        arrays: by name; of numbers or text.
        level: zlib's, 0 to 9; 0 packs nothing.

    Raises:
        OSError: the disk takes no more.
        ValueError: an array is of objects.
    """
    packing = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", packing, compresslevel=level or None) as archive:
        for name, array in arrays.items():
            large = array.nbytes >= _NEEDS_64_BITS
            with archive.open(f"{name}.npy", "w", force_zip64=large) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_npz(path: str | Path | io.BytesIO, names: Collection[str], most: int) -> dict[str, NDArray[Any]]:
    """Read some arrays of an npz file.

    ``numpy.load`` unpacks whatever a file claims to hold: 10 MB can become 10 GB.

    Args:
        path: the file, or its bytes.
        names: the arrays wanted; those that the file lacks are left out.
        most: bytes of one array.

    Raises:
        ValueError: the file is missing, damaged, no npz, or an array is larger or of pickled objects.
    """
    if not zipfile.is_zipfile(path):
        size = _size(path)
        raise ValueError("is missing" if size is None else f"no npz file ({size} bytes)")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            found = {name: members[f"{name}.npy"] for name in names if f"{name}.npy" in members}
            arrays = {}
            for name, info in found.items():
                with archive.open(info) as member:
                    arrays[name] = _read(member, info.filename, info.file_size, most)
            return arrays
    # What numpy and zipfile raise for a file that is no archive of arrays, or a broken one.
    except (OSError, EOFError, NotImplementedError, RuntimeError, MemoryError, zlib.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None


def npz_names(path: str | Path | io.BytesIO) -> list[str]:
    """List the names of the arrays in an npz file, or in its bytes.

    Raises:
        ValueError: the file is missing, damaged, or no npz.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(str(error)) from None


def foreign_arrays(path: str | Path, own: str) -> list[str]:
    """The names of the arrays in a whole npz file that lacks one, by which its writer would know it.

    Empty where it has that one, and where the file is missing or damaged: nobody can use that one.
    """
    try:
        names = npz_names(path)
    except ValueError:
        return []
    return [] if own in names else names or ["nothing"]


def read_npy(path: str | Path | io.BytesIO, most: int) -> NDArray[Any]:
    """Read the array of an npy file.

    Args:
        path: the file, or its bytes.
        most: bytes of the array.

    Raises:
        ValueError: the file is missing, damaged, no npy, larger, or of pickled objects.
    """
    try:
        with path if isinstance(path, io.BytesIO) else Path(path).open("rb") as file:
            name = "the array" if isinstance(path, io.BytesIO) else Path(path).name
            return _read(file, name, _size(path) or 0, most)
    except (OSError, EOFError, RuntimeError, MemoryError) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _size(path: str | Path | io.BytesIO) -> int | None:
    """Bytes of a file, or None where it is missing."""
    if isinstance(path, io.BytesIO):
        return path.getbuffer().nbytes
    return Path(path).stat().st_size if Path(path).exists() else None


def _read(file: IO[bytes], name: str, size: int, most: int) -> NDArray[Any]:
    """An array of so many bytes at most; one that claims more than its file holds gets no room."""
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    if size > most:
        raise ValueError(f"{name} claims {size} bytes, {dtype} {shape}; expected {most} bytes at most")
    claimed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and claimed != size - file.tell():
        raise ValueError(f"{name} claims {claimed} bytes, holds {size - file.tell()}")
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
