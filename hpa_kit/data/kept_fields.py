"""One resized field as a file that knows what it was made from.

A line that says what it is, a line of JSON, then the packed planes. Of what Kaggle's image can read without
loss zstd is the fastest that is small, a third of the planes' bytes. pyarrow has it, which is in that image;
where pyarrow is not, zlib packs as small and takes three times as long to read
(``tests/benchmarks/test_bench_store.py`` compares them with others).
"""

import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.fields import CHANNELS, Images, channel_paths
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path

# Raised where the same image gives another field than before: files of other versions are made again.
VERSION = 2
SUFFIX = ".field"

_MARK = b"hpa_kit field\n"
# Higher levels of either take several times as long to write for a twentieth of the bytes.
_ZSTD_LEVEL, _ZLIB_LEVEL = 1, 3
_PNG = b"\x89PNG\r\n\x1a\n"
_TAIL, _BLOCK = 4096, 2**20

Field = NDArray[np.uint8]


class Origin(NamedTuple):
    """A channel's file as it was when its field was made."""

    name: str
    bytes: int
    modified: int  # nanoseconds
    checksum: int


def kept_path(folder: Path, id: str, size: int) -> Path:
    """Where the field of an ID lies; each size has a folder of its own."""
    return folder / str(size) / f"{id}{SUFFIX}"


def origins(images: "Images", id: str, n_channels: int) -> list[Origin]:
    """The files of a field's first channels, as they are now.

    Raises:
        InputError: one is missing or cannot be read.
    """
    if not isinstance(images, Path):
        return images.origins(id, n_channels)
    found = []
    for path in channel_paths(images, id, CHANNELS[:n_channels]):
        stat = _stat(path)
        found.append(Origin(path.name, stat.st_size, stat.st_mtime_ns, _checksum(path)))
    return found


def write_kept(path: Path, field: Field, made_from: list[Origin]) -> None:
    """Keep a resized field, atomically.

    Args:
        path: as :func:`kept_path` gives.
        field: uint8 (4, S, S); as many channels are kept as it was made from.
        made_from: its images.

    Raises:
        InputError: the file cannot be written.
    """
    packing, packed = _pack(np.ascontiguousarray(field[: len(made_from)]).tobytes())
    about = {
        "version": VERSION,
        "size": field.shape[1],
        "packing": packing,
        "bytes": len(packed),
        "checksum": zlib.crc32(packed),
        "images": made_from,
    }
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"".join([_MARK, json.dumps(about).encode(), b"\n", packed]))
    except OSError as error:
        raise InputError(
            f"store: {path} cannot be written: {error.strerror or error}; the same command goes on once it "
            "can"
        ) from error


def kept_fault(path: Path, size: int, images: "Images", id: str, n_channels: int) -> str | None:
    """What is wrong with a kept field, told from its first lines and its images' sizes and times.

    An image of another time counts as unchanged where its checksum is the same: copies have their own times.

    Returns:
        None where it is good, an empty text where there is none.

    Raises:
        InputError: an image is missing.
    """
    try:
        with path.open("rb") as stream:
            about = _about(stream.read(len(_MARK)), stream.readline())
            there, start = path.stat().st_size, stream.tell()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"store: {path} cannot be read: {error.strerror}"
    if about is None or not _reads_the_same(about) or about["size"] != size:
        return f"store: {path} was not written by this version, or is damaged"
    if there - start != about["bytes"]:
        return f"store: {path} is truncated"
    before = [Origin(*image) for image in about["images"]]
    if len(before) < n_channels:
        return f"store: {path} lacks {', '.join(CHANNELS[len(before) : n_channels])}"
    changed = _changed(before, images, id, n_channels)
    return f"store: {path} was made from another {changed}" if changed else None


def read_kept(path: Path, size: int, n_channels: int) -> Field:
    """A kept field, uint8 (4, size, size); channels from ``n_channels`` on are 0.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    try:
        content = path.read_bytes()
        end = content.index(b"\n", len(_MARK)) + 1
        about = _about(content[: len(_MARK)], content[len(_MARK) : end])
        if about is None or about["size"] != size or len(about["images"]) < n_channels:
            raise ValueError("it is no field of this size and these channels")
        packed = memoryview(content)[end:]
        if zlib.crc32(packed) != about["checksum"]:
            raise ValueError("it is damaged")
        planes = _unpack(about["packing"], packed, len(about["images"]) * size**2)
        kept = np.frombuffer(planes, np.uint8).reshape(-1, size, size)[:n_channels]
    except (OSError, ValueError, zlib.error) as error:
        raise InputError(f"store: {path} cannot be read: {error}") from None
    if n_channels == len(CHANNELS):
        return kept
    return np.concatenate([kept, np.zeros((len(CHANNELS) - n_channels, size, size), np.uint8)])


def _zstd() -> Any | None:
    """pyarrow's zstd, or None where pyarrow is not installed."""
    try:
        from pyarrow import Codec
    except ImportError:
        return None
    return Codec("zstd", compression_level=_ZSTD_LEVEL)


def _pack(planes: bytes) -> tuple[str, bytes]:
    zstd = _zstd()
    if zstd is None:
        return "zlib", zlib.compress(planes, _ZLIB_LEVEL)
    return "zstd", zstd.compress(planes, asbytes=True)


def _unpack(packing: str, packed: memoryview, size: int) -> Any:
    """Bytes, or a buffer of them.

    Raises:
        ValueError: it takes something that is not installed.
    """
    if packing == "zlib":
        unpacked = zlib.decompressobj().decompress(packed, size + 1)
        if len(unpacked) != size:
            raise ValueError(f"it does not unpack to {size} bytes")
        return unpacked
    zstd = _zstd()
    if packing != "zstd" or zstd is None:
        raise ValueError(f"it is packed by {packing}; zstd needs pyarrow")
    return zstd.decompress(packed, decompressed_size=size)


def _about(mark: bytes, line: bytes) -> dict[str, Any] | None:
    """What a file says of itself, or None where it says nothing of use."""
    if mark != _MARK:
        return None
    try:
        about: dict[str, Any] = json.loads(line)
        known = {"version", "size", "packing", "bytes", "checksum", "images"} <= set(about)
        images = about["images"] if known else []
        if 0 < len(images) <= len(CHANNELS) and all(len(image) == len(Origin._fields) for image in images):
            return about
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def _reads_the_same(about: dict[str, Any]) -> bool:
    """Whether this version would make the same field; version 1 turned tifs that asked for it."""
    if about["version"] == 1:
        return not any(str(name).lower().endswith((".tif", ".tiff")) for name, *_ in about["images"])
    return bool(about["version"] == VERSION)


def _changed(before: list[Origin], images: Images, id: str, n_channels: int) -> str | None:
    """The first image that is another than a field was made from, or None."""
    if not isinstance(images, Path):
        return images.differing(before, id, n_channels)
    now = zip(before, channel_paths(images, id, CHANNELS[:n_channels]), strict=False)
    return next((kept.name for kept, image in now if not _unchanged(kept, image)), None)


def _unchanged(kept: Origin, image: Path) -> bool:
    stat = _stat(image)
    if (kept.name, kept.bytes) != (image.name, stat.st_size):
        return False
    return kept.modified == stat.st_mtime_ns or kept.checksum == _checksum(image)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:  # such as a link that leads nowhere
        raise InputError(f"fields: {path} cannot be read: {error.strerror}") from None


def _checksum(path: Path) -> int:
    """Of a png the end, which has the checksum of all its pixels; of others the whole file.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(_PNG)) == _PNG:
                stream.seek(max(0, path.stat().st_size - _TAIL))
            else:
                stream.seek(0)
            checksum = 0
            while block := stream.read(_BLOCK):  # whatever its size
                checksum = zlib.crc32(block, checksum)
            return checksum
    except OSError as error:
        raise InputError(f"fields: {path} cannot be read: {error.strerror}") from None
