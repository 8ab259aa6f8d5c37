"""Label maps as files: ``ID.npz`` that this kit writes, and ``ID.png`` as others do."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.classical import ClassicalSegmenter
from hpa_kit.cells.regions import LabelMap, relabel
from hpa_kit.data.decode import decode_plane, read_image
from hpa_kit.data.headers import MAX_PIXELS, read_header
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path
from hpa_kit.npz import read_npz

FORMAT = "hpa_kit label maps"
VERSION = 1
SUFFIXES = (".npz", ".png")

# Bytes of what a file says of itself, and of the header before an array's numbers.
_MOST_INFO, _HEADER = 2**20, 2**12


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
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def label_map_info(path: str | Path) -> LabelMapInfo:
    """What a file of :func:`write_label_maps` says of itself, without reading its maps.

    Raises:
        InputError: the file is missing, damaged, or not of this kit.
    """
    return _read_info(path)[0]


def label_map_images(path: str | Path) -> list[list[Any]] | None:
    """The images that a file of :func:`write_label_maps` was made from; None where it does not say.

    Raises:
        InputError: as :func:`label_map_info`.
    """
    return _read_info(path)[1]


def _read_info(path: str | Path) -> tuple[LabelMapInfo, list[list[Any]] | None]:
    try:
        info = json.loads(str(read_npz(path, ("info",), _MOST_INFO)["info"][()]))
        if info["format"] != FORMAT:
            raise ValueError(f"format {info['format']!r}")
        height, width = info["shape"]
        shape, settings = (int(height), int(width)), dict(info["settings"])
        found = LabelMapInfo(int(info["version"]), int(info["n_cells"]), shape, settings)
        return found, info.get("images")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"label maps: {path} was not written by this kit: {_text(error)}; make it again"
        ) from None


def has_label_maps(folder: str | Path, id: str) -> bool:
    """Whether a folder holds ``ID.npz`` or ``ID.png``, whole or not."""
    return any((Path(folder) / f"{id}{suffix}").is_file() for suffix in SUFFIXES)


def read_label_maps(folder: str | Path, id: str, field: NDArray[np.uint8]) -> LabelMaps:
    """Read the label maps of a field from ``ID.npz`` (looked for first) or ``ID.png``.

    Args:
        folder: where the files are.
        id: the field's ID.
        field: uint8 (4, H, W), the field itself: its size is checked, and nuclei that the file lacks are
            taken from its blue channel.

    Returns:
        int32 maps of the field's size. Cells are numbered 1…n in the order of the file's numbers, gaps
        closed, so that row i of a table of cell scores is cell i + 1. A nucleus pixel bears the number of the
        cell it lies in: nuclei are cut to their cells and cannot disagree with them. A cell may be without
        nucleus.

    ``ID.npz`` holds ``cells`` and, if it has them, ``nuclei``, of any integer type, whoever wrote it.
    ``ID.png`` is 8 or 16 bit grey and holds cells.

    Raises:
        InputError: no file; a damaged one; other arrays than these; a size that is not the field's.
    """
    path = _file_of(folder, id)
    if path.suffix == ".npz":
        cells, nuclei = _read_npz(path, ("cells", "nuclei"), field[0].size)
    else:
        cells, nuclei = _read_png(path), None
    for array in (cells, nuclei):
        if array is not None and array.shape != field.shape[1:]:
            raise InputError(
                f"label maps: {path} is {_size(array.shape)} pixels, its field {_size(field.shape[1:])}; "
                "make it again"
            )
    nucleus = ClassicalSegmenter().find_nuclei(field) if nuclei is None else nuclei
    numbered = _numbered(cells, path)
    return LabelMaps(np.where(nucleus != 0, numbered, np.int32(0)), numbered)


def read_cells(folder: str | Path, id: str) -> LabelMap:
    """Read a field's cells alone, numbered as :func:`read_label_maps` numbers them; needs no image.

    Raises:
        InputError: no file; a damaged one; other arrays than label maps.
    """
    path = _file_of(folder, id)
    cells = _read_npz(path, ("cells",), MAX_PIXELS)[0] if path.suffix == ".npz" else _read_png(path)
    return _numbered(cells, path)


def _file_of(folder: str | Path, id: str) -> Path:
    path = next((p for s in SUFFIXES if (p := Path(folder) / f"{id}{s}").is_file()), None)
    if path is None:
        raise InputError(
            f"label maps: {Path(folder) / id}.npz is missing, and so is .png; run hpa-kit segment"
        )
    return path


def _read_npz(path: Path, names: tuple[str, ...], pixels: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Cells and, where they are asked for and there, nuclei: 64 bits for so many pixels at most."""
    try:
        arrays = read_npz(path, names, 8 * pixels + _HEADER)
        cells, nuclei = arrays["cells"], arrays.get("nuclei")
    except KeyError:
        raise InputError(f"label maps: {path} cannot be read: it has no cells; make it again") from None
    except ValueError as error:
        raise InputError(f"label maps: {path} cannot be read: {_text(error)}; make it again") from None
    for name, array in (("cells", cells), ("nuclei", nuclei)):
        if array is not None and (array.ndim != 2 or array.dtype.kind not in "bui"):
            raise InputError(
                f"label maps: {path}: {name} is {array.dtype} {array.shape}; expected whole numbers (H, W)"
            )
    return cells, nuclei


def _read_png(path: Path) -> NDArray[Any]:
    where = f"label maps: {path}"
    content = read_image(path, where)
    header = read_header(io.BytesIO(content), where)
    # Colour and palette files lose their numbers on the way to one plane, jpg files change them.
    if header.kind != "png" or content[25] != 0:
        raise InputError(f"{where} is a {header.kind} with colours; expected a grey png, 8 or 16 bit")
    return decode_plane(content, where)


def _numbered(cells: NDArray[Any], path: Path) -> LabelMap:
    if cells.min(initial=0) < 0:
        raise InputError(f"label maps: {path}: cells holds {cells.min()}; expected 0 and above")
    return relabel(cells)


def _compact(labels: NDArray[Any]) -> NDArray[Any]:
    if labels.dtype.kind not in "bui" or labels.min(initial=0) < 0:
        raise ValueError(f"expected label maps of whole numbers, 0 or above, found {labels.dtype}")
    return np.ascontiguousarray(labels, np.min_scalar_type(int(labels.max(initial=0))))


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
