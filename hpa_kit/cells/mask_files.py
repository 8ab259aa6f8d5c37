"""Label maps as other tools write them: one file -> the cells of a field.

A label map has a number per cell. What cellpose, StarDist, ImageJ, QuPath or numpy make of it differs in
format, dtype and shape, and is read here where it says the same. A mask of one value in many pieces says
which pixels are of cells, not of which: its pieces are the cells then.
"""

import io
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.archives import Packed, Place
from hpa_kit.cells.label_maps import content_of, is_label_maps
from hpa_kit.cells.regions import LabelMap, components, relabel
from hpa_kit.data.images import (
    CHANNEL_VALUES,
    MAX_PIXELS,
    TifPage,
    decode_planes,
    read_header,
    read_image,
    tif_page,
)
from hpa_kit.errors import InputError, one_line
from hpa_kit.npz import npz_names, read_npy, read_npz

# What numbers of cells may be in, as numpy calls it.
NUMBERS = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
EXPECTED = "expected whole numbers (H, W), that of its cell in each pixel, 0 where there is none"
_HEADER = 2**12  # bytes before an array's numbers
# What tifffile unpacks by itself.
_PACKED = ("NONE", "ADOBE_DEFLATE", "DEFLATE")
_PALETTE = 3  # colour type of a png


class MaskFile(NamedTuple):
    """What a file says of a field.

    Attributes:
        cells: int32 (H, W), 0 background, 1…n in the order of the file's numbers, gaps closed.
        nuclei: (H, W), not 0 in nuclei, or None where the file has none.
        pieces: how many cells the pieces of a mask of one value became; 0 for a label map.
    """

    cells: LabelMap
    nuclei: NDArray[Any] | None
    pieces: int


def read_mask_file(path: Place, shape: tuple[int, int] | None = None) -> MaskFile:
    """Read the cells of a field.

    Args:
        path: an npz file with ``cells`` and, if it has them, ``nuclei``, or with one unnamed array
            (``arr_0``); an npy file; a png or tif. Any dtype that holds whole numbers, axes of length 1, and
            equal colour planes are fine. A file in an archive is read there.
        shape: (H, W) of the field, where it is known.

    Raises:
        InputError: the file is damaged, of another size, or holds something else; what is said, and what is
            expected.
    """
    where = f"label maps: {path}"
    most = 8 * (MAX_PIXELS if shape is None else shape[0] * shape[1]) + _HEADER  # 64 bits per pixel
    nuclei, ending = None, Path(path.name).suffix.lower()
    if ending == ".npz":
        arrays = _read_npz(path, most)
        cells = _numbers(arrays["cells"], f"{where}: cells")
        nuclei = _numbers(arrays["nuclei"], f"{where}: nuclei") if "nuclei" in arrays else None
    elif ending == ".npy":
        cells = _numbers(_read_npy(path, most), where)
    else:
        cells = _numbers(_read_image(path, where, shape), where)
    for array in (cells, nuclei):
        if array is not None and shape is not None:
            _check_size(array.shape, shape, where)
    numbered = relabel(cells)
    if numbered.max(initial=0) == 1:
        # Corners join: a cell whose outline crosses a pixel's corner is still one.
        pieces = components(numbered, connectivity=8)
        n = int(pieces.max())
        if n > 1 and not is_label_maps(path):
            return MaskFile(pieces, nuclei, n)
    return MaskFile(numbered, nuclei, 0)


def _read_npz(path: Place, most: int) -> dict[str, NDArray[Any]]:
    """``cells`` and, where they are there, ``nuclei``."""
    content = content_of(path)
    try:
        arrays = read_npz(content, ("cells", "nuclei"), most)
        if "cells" in arrays:
            return arrays
        names = npz_names(content)
        if names == ["arr_0"]:
            return {"cells": read_npz(content, names, most)["arr_0"]}
    except ValueError as error:
        raise InputError(f"label maps: {path} cannot be read: {one_line(error)}; make it again") from None
    raise InputError(
        f"label maps: {path} cannot be read: it has no cells, but {', '.join(names) or 'nothing'}; expected "
        "cells and, where there are any, nuclei"
    )


def _read_npy(path: Place, most: int) -> NDArray[Any]:
    content = content_of(path)
    try:
        return read_npy(content, most)
    except ValueError as error:
        raise InputError(
            f"label maps: {path} cannot be read: {one_line(error)}; save the masks alone, as numbers (H, W)"
        ) from None


def _read_image(path: Place, where: str, shape: tuple[int, int] | None) -> NDArray[Any]:
    """The numbers in a png or tif, as they are stored, without alpha."""
    content = path.read() if isinstance(path, Packed) else read_image(path, where)
    header = read_header(io.BytesIO(content), where, NUMBERS)
    if header.kind == "jpg":
        raise InputError(f"{where} is a jpg, which changes the numbers of cells; save it as png or tif")
    if shape is not None:  # before anything larger than a field is unpacked
        _check_size((header.height, header.width), shape, where)
    if header.kind == "png" and content[25] == _PALETTE:
        raise InputError(f"{where} is a png with a palette; save it as a grey png, of 8 or 16 bits")
    planes = _read_tif(content, where) if header.kind == "tif" else decode_planes(content, where)
    has_alpha = planes.ndim == 3 and planes.shape[2] in (2, 4)
    return planes[..., :-1] if has_alpha else planes


def _read_tif(content: bytes, where: str) -> NDArray[Any]:
    page = tif_page(io.BytesIO(content), where, NUMBERS)
    if page.packed in _PACKED:
        return _stored_numbers(content, page, where)
    if page.dtype not in CHANNEL_VALUES or page.photometric == _PALETTE:
        raise InputError(
            f"{where} is a tif of {page.dtype} with {page.packed} compression; save it without compression"
        )
    planes = decode_planes(content, where)
    # Where 0 is white they come as what is seen.
    return ~planes if page.photometric == 0 else planes


def _stored_numbers(content: bytes, page: TifPage, where: str) -> NDArray[Any]:
    """The numbers of a tif of any dtype, as they are stored."""
    import tifffile  # here: a tenth of a second that only readers of tif should pay

    try:
        with tifffile.TiffFile(io.BytesIO(content)) as tif:
            first: Any = tif.pages[0]
            most = int(np.prod(first.chunks)) * first.dtype.itemsize
            for offset, count in zip(first.dataoffsets, first.databytecounts, strict=True):
                # tifffile unpacks whatever there is, though it were gigabytes.
                strip = content[offset : offset + count] if page.packed != "NONE" else b""
                if strip and len(zlib.decompressobj().decompress(strip, most + 1)) > most:
                    raise ValueError("a strip unpacks to more than its pixels")
            return np.asarray(first.asarray())
    except Exception as error:  # tifffile lets through whatever damaged data trips over
        raise InputError(f"{where} cannot be read: {one_line(error)}; save it without compression") from None


def _numbers(array: NDArray[Any], what: str) -> NDArray[Any]:
    """An array as whole numbers (H, W), 0 and above."""
    plane = _one_plane(array)
    if plane is None or plane.dtype.kind not in "buif":
        raise InputError(f"{what} is {array.dtype} {array.shape}; {EXPECTED}")
    if plane.dtype.kind == "f":
        whole = np.isfinite(plane) & (plane == np.rint(plane)) & (abs(plane) < 2**53)
        if not whole.all():
            raise InputError(f"{what} holds {plane[~whole][0]}; {EXPECTED}")
        plane = plane.astype(np.int64)
    if plane.min(initial=0) < 0:
        raise InputError(f"{what} holds {plane.min()}; expected 0 and above")
    return plane


def _one_plane(array: NDArray[Any]) -> NDArray[Any] | None:
    """An array without axes of length 1, and of three equal colour planes one; None where more is left."""
    if array.ndim == 3 and array.shape[2] == 3 and (array == array[..., :1]).all():
        return np.ascontiguousarray(array[..., 0])
    while array.ndim > 2 and 1 in array.shape:
        array = np.squeeze(array, axis=array.shape.index(1))
    return array if array.ndim == 2 else None


def _check_size(found: tuple[int, ...], expected: tuple[int, int], where: str) -> None:
    if found != expected:
        sizes = [" x ".join(map(str, shape)) for shape in (found, expected)]
        raise InputError(f"{where} is {sizes[0]} pixels, its field {sizes[1]}; make it again")
