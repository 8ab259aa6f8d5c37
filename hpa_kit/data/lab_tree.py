"""What lies where in a tree of folders that a lab has: the fields by ID, and the files of each."""

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hpa_kit.data.fields import CHANNELS, ENDINGS, find_fields
from hpa_kit.data.lab_images import TIF_ENDINGS
from hpa_kit.data.lab_zarr import ZARR_ENDINGS, zarr_kind
from hpa_kit.errors import InputError

LABELS_ENDING = ".labels.ome.tif"  # of label maps that this kit writes
# What tifs are called that hold label maps, by this kit and by others: they are no fields.
_NO_FIELD = re.compile(r".*(\.labels\.ome|_cp_masks|_masks|_mask|_cellmask)\.tiff?", re.IGNORECASE)
_DEPTH = 8  # folders inside of each other
_CHANNEL_FILE = re.compile(rf".+_({'|'.join(CHANNELS)})({'|'.join(map(re.escape, ENDINGS))})", re.IGNORECASE)
_BLOCK = 2**20


class LabField(NamedTuple):
    """Where a field is: an image; or, of the competition's layout, its folder and its ID there."""

    path: Path
    id: str = ""


class ImageFile(NamedTuple):
    """A file of an image: its path below it, bytes, and when it was changed."""

    name: str
    bytes: int
    modified: int  # nanoseconds


def files_of(path: Path) -> Iterator[ImageFile]:
    """List the files of an image, sorted: itself, or all below an OME-Zarr folder.

    Raises:
        InputError: one cannot be read.
    """
    try:
        if not path.is_dir():
            stat = path.stat()
            yield ImageFile(path.name, stat.st_size, stat.st_mtime_ns)
            return
        for place, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                file = Path(place, name)
                stat = file.stat()
                yield ImageFile(str(file.relative_to(path)), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise InputError(f"fields: {path} cannot be read: {error.strerror}") from None


def checksum_of(path: Path, files: Sequence[ImageFile]) -> int:
    """Add the contents of all files of an image up to a checksum.

    Raises:
        InputError: one cannot be read.
    """
    checksum = 0
    try:
        for file in files:
            with (path / file.name if path.is_dir() else path).open("rb") as stream:
                while block := stream.read(_BLOCK):
                    checksum = zlib.crc32(block, checksum)
    except OSError as error:
        raise InputError(f"fields: {path} cannot be read: {error.strerror}") from None
    return checksum


def lab_fields(root: Path) -> Iterator[tuple[str, LabField]]:
    """Find the fields in a folder and those in it; an ID may come twice, and none is sorted.

    Raises:
        InputError: a folder cannot be read.
    """
    return _walk(root, "", 0)


def _walk(folder: Path, below: str, depth: int) -> Iterator[tuple[str, LabField]]:
    """ID and place of every field in a folder and those in it; hidden ones are passed over."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if entry.name[0] != ".")
    except OSError as error:
        raise InputError(f"fields: {folder} cannot be read: {error.strerror}") from None
    kind = zarr_kind(folder)
    if kind == "image":
        yield below or _without(folder.name, ZARR_ENDINGS), LabField(folder)
        return
    inside = f"{below}/" if below else ""
    files = [name for name, is_folder in found if not is_folder and not kind]
    if any(_CHANNEL_FILE.fullmatch(name) for name in files):
        yield from ((f"{inside}{id}", LabField(folder, id)) for id in find_fields(folder))
    for name in files:
        other = _CHANNEL_FILE.fullmatch(name) or _NO_FIELD.fullmatch(name)
        if name.lower().endswith(TIF_ENDINGS) and not other:
            yield f"{inside}{_without(name, TIF_ENDINGS)}", LabField(folder / name)
    for name in [name for name, is_folder in found if is_folder and depth < _DEPTH]:
        yield from _walk(folder / name, f"{inside}{_without(name, ZARR_ENDINGS)}", depth + 1)


def _without(name: str, endings: Iterable[str]) -> str:
    """A name without its ending, which may be in any letter case."""
    ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)] if len(name) > len(ending) else name
