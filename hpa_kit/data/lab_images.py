"""An image as microscopes leave it, TIFF, OME-TIFF or OME-Zarr: its planes, and what it says of itself.

Which plane is which channel of a field is not known here, see :mod:`hpa_kit.data.lab_folder`.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.images import AGAIN, MAX_PIXELS, looks_like, to_8_bits
from hpa_kit.errors import InputError, one_line

if TYPE_CHECKING:
    from tifffile import TiffFile

TIF_ENDINGS = (".ome.tiff", ".ome.tif", ".tiff", ".tif")
LAB = "pip install 'hpa-kit[lab]'"

# Micrometres of the units in which OME gives sizes; "pixel" and "reference frame" say nothing.
UNITS = {
    "m": 1e6, "meter": 1e6, "metre": 1e6, "cm": 1e4, "centimeter": 1e4, "mm": 1e3, "millimeter": 1e3,
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "Å": 1e-4, "angstrom": 1e-4, "pm": 1e-6,
}  # fmt: skip
_INCH, _CM = 2, 3  # units of a tif's resolution
# Micrometres that a camera's pixel can show. Programs write 72 or 96 dots per inch where they know nothing.
_BELIEVED = (0.01, 5.0)
_MINISWHITE = 0
_WHOLE, _FRACTIONS = "bui", "f"


class LabInfo(NamedTuple):
    """What an image says of itself.

    Attributes:
        height, width: of a plane in pixels.
        dtype: of its values.
        channels: how many.
        names: of the channels, as many or none.
        pixel_size: micrometres of a pixel, or None.
        depth, times: planes in depth, and points of time.
    """

    height: int
    width: int
    dtype: str
    channels: int
    names: tuple[str, ...]
    pixel_size: float | None
    depth: int
    times: int


class LabImage(NamedTuple):
    """An open image: what it says, and what gives the plane (H, W) of a channel at a depth."""

    info: LabInfo
    plane: Callable[[int, int], NDArray[Any]]


@contextmanager
def open_lab_image(path: Path, where: str) -> Iterator[LabImage]:
    """Open an image; nothing of its planes is read until they are asked for.

    Args:
        path: a tif, or the folder of an OME-Zarr image, see :mod:`hpa_kit.data.lab_zarr`.
        where: what to call it in an error.

    Raises:
        InputError: it is damaged or of another kind, holds several images, or values that are no numbers; or
            what reads it is not installed.
    """
    from hpa_kit.data.lab_zarr import zarr_image

    with nullcontext(zarr_image(path, where)) if path.is_dir() else _tif(path, where) as image:
        info = image.info
        if min(info.height, info.width) < 1 or info.height * info.width > MAX_PIXELS:
            raise InputError(
                f"{where} claims {info.width} x {info.height} pixels; expected 1 to {MAX_PIXELS}; {AGAIN}"
            )
        if np.dtype(info.dtype).kind not in _WHOLE + _FRACTIONS:
            raise InputError(f"{where} holds {info.dtype} values; expected numbers")
        yield image


def plane_of(image: LabImage, channel: int, where: str) -> NDArray[np.uint8]:
    """Read a channel, of several planes in depth the maximum, scaled to uint8.

    8 and 16 bits are scaled as those of the competition, see :func:`~hpa_kit.data.images.to_8_bits`. Values
    of other kinds are cut off at 0. Fractions up to 1 are parts of white; larger ones are taken for what
    whole numbers of 8 or 16 bits would be.

    Raises:
        InputError: a plane cannot be read, or holds what is no number or beyond 16 bits.
    """
    plane = image.plane(channel, 0)
    for depth in range(1, image.info.depth):
        plane = np.maximum(plane, image.plane(channel, depth))
    return _to_8_bits(np.ascontiguousarray(plane), where)


def _to_8_bits(plane: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if plane.dtype == np.bool_:
        return np.asarray(plane, np.uint8) * np.uint8(255)
    native = plane.astype(plane.dtype.newbyteorder("="), copy=False)
    if native.dtype in (np.uint8, np.uint16):
        return to_8_bits(native)[0]
    if not np.isfinite(native).all():
        raise InputError(f"{where} holds values that are no numbers; save it without them")
    peak = native.max()
    if peak > 65_535:
        raise InputError(f"{where} holds values up to {peak:g}; expected 65535 at most, or fractions of 1")
    values = np.maximum(native, 0)
    if native.dtype.kind in _FRACTIONS and peak <= 1:
        return np.rint(values * 255).astype(np.uint8)
    if peak <= 255:
        return np.rint(values).astype(np.uint8)
    return to_8_bits(np.rint(values).astype(np.uint16))[0]


@contextmanager
def _tif(path: Path, where: str) -> Iterator[LabImage]:
    import tifffile

    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(32)
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from None
    if not start:
        raise InputError(f"{where} is empty (0 bytes); {AGAIN}")
    if start[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        raise InputError(f"{where} is {looks_like(start)}; expected a tif or OME-TIFF")
    try:
        tif = tifffile.TiffFile(path, _multifile=False)
    except Exception as error:  # tifffile lets through whatever a damaged directory trips over
        raise InputError(f"{where} is damaged: no readable tif ({one_line(error)}); {AGAIN}") from None
    with tif:
        try:
            image = _tif_image(tif, path, size, where)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{where} is damaged: no readable tif ({one_line(error)}); {AGAIN}") from None
        yield image


def _tif_image(tif: "TiffFile", path: Path, size: int, where: str) -> LabImage:
    if not tif.series:
        raise ValueError("it holds no image")
    if _breaks_off(tif):
        raise InputError(f"{where} is truncated: its end is missing; {AGAIN}")
    if len(tif.series) != 1:
        raise InputError(
            f"{where} holds {len(tif.series)} images; expected one, of one field; save each alone"
        )
    series: Any = tif.series[0]
    axes, shape, first = str(series.axes), tuple(series.shape), series.keyframe
    lengths = lengths_of(axes, shape, where)
    names, pixel_size = _ome_says(tif.ome_metadata) if tif.is_ome else ((), None)
    if pixel_size is None and not tif.is_ome:
        pixel_size = _resolution(tif, first)
    n_channels = lengths.get("C", 1)
    info = LabInfo(
        *(lengths["Y"], lengths["X"], str(series.dtype), n_channels),
        names if len(names) == n_channels else (),
        *(pixel_size, lengths.get("Z", 1), lengths.get("T", 1)),
    )
    inverted = int(first.photometric) == _MINISWHITE and np.dtype(series.dtype).kind == "u"
    named = as_channels(axes, shape)
    if series.dataoffset is not None:  # one after the other, unpacked: what is not asked for is not read
        if int(series.dataoffset) + int(series.nbytes) > size:
            raise InputError(f"{where} is truncated: its end is missing; {AGAIN}")
        dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
        stored = np.memmap(path, dtype, "r", int(series.dataoffset), shape)
        read = partial(_mapped, stored, named, inverted)
    else:
        leading = named[: len(named) - 2 - ("S" in axes)]
        if len(series.pages) != prod(shape[: len(leading)]) or any(page is None for page in series.pages):
            raise InputError(f"{where} is one file of an image in several; expected all of it in one file")
        read = partial(_paged, series, (named, shape), inverted, (path, size, where))
    return LabImage(info, read)


def _breaks_off(tif: "TiffFile") -> bool:
    """Whether the last page of a tif that could be read says that another one follows."""
    last: Any = tif.pages[len(tif.pages) - 1]
    form, file = tif.tiff, tif.filehandle
    file.seek(last.offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(last.offset + form.tagnosize + tags * form.tagsize)
    return bool(struct.unpack(form.offsetformat, file.read(form.offsetsize))[0])


def lengths_of(axes: str, shape: Sequence[int], where: str) -> dict[str, int]:
    """Name the lengths of axes: {axis: length} of Y, X, channels C, depth Z and time T.

    Raises:
        InputError: there are others.
    """
    named = dict(zip(as_channels(axes, shape), shape, strict=True))
    others = {axis: length for axis, length in named.items() if axis not in "TCZYX" and length > 1}
    if others or not {"Y", "X"} <= named.keys():
        found = " x ".join(f"{length} {axis}" for axis, length in zip(axes, shape, strict=True))
        raise InputError(f"{where} has the axes {found}; expected channels, depth, height and width")
    return named


def as_channels(axes: str, shape: Sequence[int]) -> str:
    """Call the channels' axis C, where it is the only one of planes without a name, or of colours."""
    if "C" in axes and shape[axes.index("C")] > 1:
        return axes
    others = [axis for axis, length in zip(axes, shape, strict=True) if axis not in "TCZYX" and length > 1]
    return axes.replace("C", "_").replace(others[0], "C") if len(others) == 1 else axes


def index_of(axes: str, channel: int, depth: int) -> tuple[Any, ...]:
    """Make the index of a plane: what is chosen along each axis, height and width whole."""
    chosen: dict[str, Any] = {"C": channel, "Z": depth, "Y": slice(None), "X": slice(None)}
    return tuple(chosen.get(axis, 0) for axis in axes)


def _mapped(stored: NDArray[Any], axes: str, inverted: bool, channel: int, depth: int) -> NDArray[Any]:
    plane = np.array(stored[index_of(axes, channel, depth)])
    return ~plane if inverted else plane


def _paged(
    series: Any,
    layout: tuple[str, tuple[int, ...]],
    inverted: bool,
    source: tuple[Path, int, str],
    channel: int,
    depth: int,
) -> NDArray[Any]:
    """A plane of a tif that is packed, or not stored in one piece."""
    (axes, shape), (path, size, where) = layout, source
    index = index_of(axes, channel, depth)
    colours = len(shape) - len(series.keyframe.shape)
    place = int(np.ravel_multi_index(index[:colours], shape[:colours])) if colours else 0
    page = series.pages[place]
    strips = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(offset + count > size for offset, count in strips):
        raise InputError(f"{where} is truncated: its end is missing; {AGAIN}")
    try:
        plane = np.asarray(page.asarray())
    except Exception as error:
        plane = _by_pillow(path, page, where, error)
    plane = plane[index[colours:]] if plane.ndim == len(shape) - colours else plane
    if plane.shape != tuple(shape[axes.index(axis)] for axis in "YX"):
        raise InputError(f"{where} is damaged: a plane is {plane.shape}; {AGAIN}")
    return ~plane if inverted else plane


def _by_pillow(path: Path, page: Any, where: str, error: Exception) -> NDArray[Any]:
    """A page of a packing that tifffile unpacks only with a further package; Pillow knows LZW and others."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.seek(page.index)
            image.getexif().clear()
            return np.asarray(image).astype(page.keyframe.dtype, copy=False)
    except Exception:  # Pillow raises many kinds on damaged files; all mean the same here
        compression = page.keyframe.compression
        packed = getattr(compression, "name", str(compression))
        if "imagecodecs" in str(error):
            raise InputError(
                f"{where} is packed by {packed}, which needs imagecodecs: pip install imagecodecs, or save "
                "it without compression"
            ) from None
        raise InputError(f"{where} is damaged: {packed} that cannot be unpacked; {AGAIN}") from None


def _ome_says(text: str | None) -> tuple[tuple[str, ...], float | None]:
    """Names of the channels and micrometres of a pixel, of OME's XML."""
    pixels = ElementTree.fromstring(text or "<OME/>").find(".//{*}Pixels")
    if pixels is None:
        return (), None
    names = tuple(one.get("Name") or one.get("Fluor") or "" for one in pixels.findall("{*}Channel"))
    sizes = [
        float(pixels.get(f"PhysicalSize{axis}") or 0)
        * UNITS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"), 0)
        for axis in "XY"
    ]
    return names if any(names) else (), square(sizes)


def _resolution(tif: "TiffFile", page: Any) -> float | None:
    """Micrometres of a pixel by a tif's tags, where ImageJ or a resolution that can be believed says it."""
    unit = int(page.tags.valueof("ResolutionUnit", default=0))
    per_unit = {_INCH: 25_400.0, _CM: 10_000.0}.get(unit, 0.0)
    if tif.is_imagej:
        named = str((tif.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ")
        per_unit = UNITS.get(named, per_unit)
    sizes = []
    for name in ("XResolution", "YResolution"):
        pixels, units = page.tags.valueof(name, default=(0, 1))
        sizes.append(per_unit * units / pixels if pixels else 0.0)
    found = square(sizes)
    return found if found is not None and _BELIEVED[0] <= found <= _BELIEVED[1] else None


def square(sizes: Sequence[float]) -> float | None:
    """Take the size of a pixel that is as high as wide, but for a hundredth; None where it is not known."""
    width, height = sizes[0], sizes[-1] or sizes[0]
    if not (np.isfinite(width) and np.isfinite(height) and width > 0 and height > 0):
        return None
    return float(width) if abs(width - height) <= 0.01 * width else None
