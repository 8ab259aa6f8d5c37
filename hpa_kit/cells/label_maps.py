"""Label maps as the files that this kit writes, ``ID.npz``."""

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.regions import LabelMap
from hpa_kit.errors import InputError, one_line
from hpa_kit.files import atomic_path
from hpa_kit.npz import foreign_arrays, read_npz, write_npz

if TYPE_CHECKING:
    from hpa_kit.archives import Packed

FORMAT = "hpa_kit label maps"
VERSION = 1

# What a field's file may be called after its ID: as this kit and most do, by cellpose, by others. Where there
# are several the first counts, and of one name the first ending.
NAMES = ("", "_cp_masks", "_masks", "_mask", "_cellmask")
ENDINGS = (".npz", ".png", ".npy", ".tif", ".tiff")
EXPECTED_NAMES = "expected ID.npz, .png, .npy or .tif, or cellpose's ID_cp_masks.png"

_OWN, _PACKING = "info", 3  # the array by which this kit's files are known; zlib's level
_MAX_INFO = 2**20  # bytes of what a file says of itself


class LabelMaps(NamedTuple):
    """Nuclei and cells of a field: int32 (H, W), 0 background, the same number in both."""

    nuclei: LabelMap
    cells: LabelMap


class LabelMapInfo(NamedTuple):
    """What a file says of itself."""

    version: int
    n_cells: int
    shape: tuple[int, int]
    settings: dict[str, Any]
    images: list[list[Any]] | None  # name, bytes and checksum of each that it was made from; None: unknown


def write_label_maps(
    path: str | Path,
    maps: LabelMaps,
    settings: Mapping[str, Any] | None = None,
    images: Sequence[Sequence[Any]] | None = None,
) -> None:
    """Write the label maps of a field to an ``.npz`` file, atomically.

    Args:
        path: the file, ``ID.npz``.
        maps: nuclei and cells, integers (H, W) of one size, 0 or above.
        settings: what the maps were made with; anything that JSON holds.
        images: what they were made from: name, bytes and checksum of each image.

    The file is a zip of numpy arrays that ``numpy.load`` opens without pickle: ``cells`` and ``nuclei`` in
    the smallest unsigned type that holds their numbers, and ``info``, a JSON text with format, version,
    number of cells, size, settings and, where they are given, images. zlib's level 3 is several times faster
    than its default and costs a quarter more bytes.
    """
    nuclei, cells = (np.asarray(array) for array in maps)
    if nuclei.shape != cells.shape or cells.ndim != 2:
        raise ValueError(
            f"expected two label maps (H, W) of one size, found {nuclei.shape} and {cells.shape}"
        )
    info = {
        "format": FORMAT,
        "version": VERSION,
        "n_cells": int(cells.max(initial=0)),
        "shape": list(cells.shape),
        "settings": dict(settings or {}),
    }
    if images is not None:
        info["images"] = [list(image) for image in images]
    arrays = {
        "info": np.array(json.dumps(info, sort_keys=True)),
        "cells": _compact(cells),
        "nuclei": _compact(nuclei),
    }
    with atomic_path(path) as temporary:
        write_npz(temporary, arrays, _PACKING)


def content_of(path: "str | Path | Packed") -> str | Path | io.BytesIO:
    """What numpy's files are read from: a path, or of a file in an archive its bytes.

    Raises:
        InputError: the archive is damaged.
    """
    return path if isinstance(path, str | Path) else io.BytesIO(path.read())


def label_map_info(path: "str | Path | Packed") -> LabelMapInfo:
    """Read what a file of :func:`write_label_maps` says of itself, without its maps.

    Raises:
        InputError: the file is missing, damaged, or not of this kit.
    """
    content = content_of(path)
    try:
        info = json.loads(str(read_npz(content, ("info",), _MAX_INFO)["info"][()]))
        if info["format"] != FORMAT:
            raise ValueError(f"format {info['format']!r}")
        height, width = info["shape"]
        shape, settings = (int(height), int(width)), dict(info["settings"])
        return LabelMapInfo(int(info["version"]), int(info["n_cells"]), shape, settings, info.get("images"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"label maps: {path} was not written by this kit: {one_line(error)}; make it again"
        ) from None


def is_label_maps(path: "str | Path | Packed") -> bool:
    """Whether :func:`write_label_maps` wrote a file, whole or not behind what it says of itself."""
    try:
        label_map_info(path)
    except InputError:
        return False
    return True


def refuse_foreign(what: str, folder: Path, ids: Iterable[str]) -> None:
    """Refuse to write label maps over other npz files that have the names of fields.

    Args:
        what: the command, for the error.
        folder: where ``ID.npz`` are to be written.
        ids: of the fields.

    Raises:
        InputError: a whole file is none that :func:`write_label_maps` wrote; a damaged one may go.
    """
    for path in (folder / f"{id}.npz" for id in ids):
        if found := foreign_arrays(path, _OWN):
            raise InputError(
                f"{what}: {path} holds {', '.join(found)}, and hpa-kit did not write it; it is not "
                "overwritten: name another folder for label maps"
            )


def label_map_ids(name: str) -> list[str]:
    """List the IDs that a file of this name may hold the label map of, whatever its ending."""
    stem = os.path.splitext(name)[0]  # noqa: PTH122 - a Path for each of many files is slow
    return [stem.removesuffix(end) for end in NAMES if stem.endswith(end)]


def _compact(labels: NDArray[Any]) -> NDArray[Any]:
    if labels.dtype.kind not in "bui" or labels.min(initial=0) < 0:
        raise ValueError(f"expected label maps of whole numbers, 0 or above, found {labels.dtype}")
    return np.ascontiguousarray(labels, np.min_scalar_type(int(labels.max(initial=0))))
