"""One channel's file -> one plane: png, jpg and tif of any depth and colour, checked before it is decoded.

Pixels come as they are stored. A file may ask to be turned or mirrored when it is shown (EXIF in png and jpg,
a tag in tif), each channel of a field for itself: whoever did it would lay one channel askew on the others.

OpenCV decodes: of what Kaggle's image has it is the fastest for grey png, and it lets other threads run
meanwhile (``tests/benchmarks/test_bench_decode.py`` measures it). It is not asked about files that it would
answer with a wrong picture: half a jpg, the first page of many, separate planes of a 16-bit tif.
"""

import io
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from hpa_kit.errors import InputError, one_line

# Four times the largest field of the competition (4096 x 4096). A header that claims more is not believed.
MAX_PIXELS = 2**26
AGAIN = "download or copy it again"
KINDS = "expected a png, jpg or tif"
# Values that a channel's tif may hold, as numpy calls them.
CHANNEL_VALUES = ("uint8", "uint16", "bool")
# Frames of a jpg that every reader knows: baseline, extended, progressive.
_COMMON_FRAMES = (0xC0, 0xC1, 0xC2)
# Compressions of a tif that every libtiff knows: none, CCITT, LZW, jpg, deflate, PackBits.
_COMMON_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
# The tag by which a tif asks to be turned or mirrored when it is shown.
_ORIENTATION = 274
# The most pixels, in four planes of 16 bits, nothing of them packed: no file that can be used is larger.
MAX_BYTES = 8 * MAX_PIXELS
# Photometric interpretations of tif: white is 0, black is 0, RGB, palette, YCbCr.
TIF_COLOURS = (0, 1, 2, 3, 6)


Plane = NDArray[np.uint8] | NDArray[np.uint16]


class Header(NamedTuple):
    """What a file says of itself before anything is decoded."""

    kind: Literal["png", "jpg", "tif"]
    height: int
    width: int
    rare: str = ""  # how its pixels are packed, where not every reader can unpack that


def read_header(stream: BinaryIO, where: str, values: Collection[str] = CHANNEL_VALUES) -> Header:
    """Read kind and size of an image from its first bytes; what it is called plays no part.

    Args:
        stream: the file, open for reading bytes, or its bytes in memory.
        where: what to call the file in an error.
        values: that a tif may hold.

    Raises:
        InputError: neither png, jpg nor tif, a damaged header, more than one page, or a size beyond belief.
    """
    start = stream.read(32)
    if not start:
        raise InputError(f"{where} is empty (0 bytes); {AGAIN}")
    try:
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            header = _png_header(start)
        elif start.startswith(b"\xff\xd8\xff"):
            header = _jpg_header(stream)
        elif start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            page = tif_page(stream, where, values)
            header = Header("tif", page.height, page.width, page.rare)
        else:
            raise InputError(f"{where} is {looks_like(start)}; {KINDS}")
    except struct.error:
        raise InputError(f"{where} is truncated or damaged inside its header; {AGAIN}") from None
    if header.height < 1 or header.width < 1 or header.height * header.width > MAX_PIXELS:
        raise InputError(
            f"{where} claims {header.width} x {header.height} pixels; expected 1 to {MAX_PIXELS}; {AGAIN}"
        )
    return header


def _png_header(start: bytes) -> Header:
    if start[12:16] != b"IHDR":
        raise struct.error
    width, height = struct.unpack(">II", start[16:24])
    return Header("png", height, width)


def _jpg_header(stream: BinaryIO) -> Header:
    """Walk the markers to the frame header; there alone a jpg says its size."""
    at = 2
    while True:
        stream.seek(at)
        mark, kind, length = struct.unpack(">BBH", stream.read(4))
        if mark != 0xFF:
            raise struct.error
        if kind == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack(">BHH", stream.read(5))
            common = kind in _COMMON_FRAMES and bits == 8
            return Header("jpg", height, width, "" if common else f"frame {kind:#x} of {bits} bits")
        else:
            at += 2 + length


class TifPage(NamedTuple):
    """What the directory of a tif says of its only page."""

    height: int
    width: int
    dtype: str
    samples: int
    photometric: int
    separate: bool  # each sample a plane of its own
    packed: str  # "NONE", or the name of a compression
    rare: str  # as in a header
    turned: tuple[tuple[int, bytes], ...]  # where it asks to be turned, and what asks for nothing there


def tif_page(stream: BinaryIO, where: str, values: Collection[str] = CHANNEL_VALUES) -> TifPage:
    """Read the only page of a tif: its strips inside the file, its values of a kind that a channel has.

    Args:
        stream: the file, open for reading bytes, or its bytes in memory.
        where: what to call the file in an error.
        values: that it may hold.

    Raises:
        InputError: it is damaged or truncated, holds several pages, or values of another kind.
    """
    import tifffile  # here: a tenth of a second that only readers of tif should pay

    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    try:
        with tifffile.TiffFile(stream) as tif:
            pages = len(tif.pages)
            first: Any = tif.pages[0]
            packed = getattr(first.compression, "name", str(first.compression))
            strips = [(int(n), int(m)) for n, m in zip(first.dataoffsets, first.databytecounts, strict=True)]
            page = TifPage(
                height=int(first.imagelength),
                width=int(first.imagewidth),
                dtype=str(first.dtype),
                samples=int(first.samplesperpixel),
                photometric=int(first.photometric),
                separate=int(first.planarconfig) == 2,
                packed=packed,
                rare=f"{packed} compression" if _is_rare(first) else "",
                turned=tuple(_turns(first, "little" if tif.byteorder == "<" else "big")),
            )
    except Exception as error:  # tifffile lets through whatever a damaged directory trips over
        raise InputError(f"{where} is damaged: no readable tif ({one_line(error)}); {AGAIN}") from None
    if pages != 1:
        raise InputError(f"{where} holds {pages} pages; expected one page per channel")
    if page.dtype not in values:
        expected = "whole numbers of 8 or 16 bits" if values == CHANNEL_VALUES else "numbers"
        raise InputError(f"{where} holds {page.dtype} values; expected {expected}")
    if not strips or any(count < 1 or offset + count > size for offset, count in strips):
        raise InputError(f"{where} is truncated: its end is missing; {AGAIN}")
    return page


def as_stored(data: bytes, page: TifPage) -> bytes:
    """The bytes of a tif that asks to be shown as it is stored: its readers turn it otherwise."""
    if not page.turned:
        return data
    straight = bytearray(data)
    for offset, one in page.turned:
        straight[offset : offset + len(one)] = one
    return bytes(straight)


def _is_rare(page: Any) -> bool:
    # libtiff reads jpg inside a tif with 8 bits only.
    compression = int(page.compression)
    return compression not in _COMMON_COMPRESSIONS or (compression == 7 and page.dtype == "uint16")


def _turns(page: Any, order: Literal["little", "big"]) -> Iterator[tuple[int, bytes]]:
    """Where a page's directory holds its orientation, and the bytes of 1, which is: as stored."""
    for tag in page.tags.getall(_ORIENTATION, default=[]):
        if tag.count == 1 and tag.value != 1:
            yield tag.valueoffset, (1).to_bytes(tag.valuebytecount, order)


def looks_like(start: bytes) -> str:
    """What a file of another kind looks like, for the error."""
    head = start.lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page"
    for magic, name in (
        (b"GIF8", "a GIF"),
        (b"BM", "a BMP"),
        (b"RIFF", "a WebP"),
        (b"PK", "a zip"),
        (b"\x1f\x8b", "a gzip"),
    ):
        if start.startswith(magic):
            return name
    return f"no image (it starts with {start[:8]!r})"


def read_image(path: Path, where: str) -> bytes:
    """Read an image file's bytes.

    Args:
        path: the file.
        where: what to call the file in an error.

    Raises:
        InputError: it cannot be read, or is larger than any image that can be used.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{where} has {size} bytes; expected {MAX_BYTES} at most; {AGAIN}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from None


def decode_plane(data: bytes, where: str) -> Plane:
    """Decode the signal of one channel's file, whatever plane of it carries the signal.

    Colour files of HPA show a channel in its own colour (yellow in red and green), so the value of a pixel is
    the maximum over its colour planes. A weighted grey would keep 11 % of a blue one. Alpha is no signal.

    Args:
        data: the file's bytes.
        where: what to call the file in an error.

    Returns:
        (H, W), uint8, or uint16 where the file has 16 bits.

    Raises:
        InputError: the file is no whole png, jpg or single-page tif of 8 or 16 bits.
    """
    pixels = decode_planes(data, where)
    if pixels.ndim == 2:
        return pixels
    colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    largest = cv2.extractChannel(np.ascontiguousarray(pixels), 0)
    for index in range(1, colours):
        largest = cv2.max(largest, cv2.extractChannel(np.ascontiguousarray(pixels), index))
    return largest


def decode_planes(data: bytes, where: str) -> Plane:
    """Decode all planes of an image's file, as they are stored.

    Args:
        data: the file's bytes.
        where: what to call the file in an error.

    Returns:
        (H, W), or (H, W, 2 or 4) with alpha last, or (H, W, 3); uint8, or uint16 where the file has 16 bits.

    Raises:
        InputError: as :func:`decode_plane`.
    """
    header = read_header(io.BytesIO(data), where)
    if not _is_whole(data, header.kind):
        raise InputError(f"{where} is truncated: its end is missing; {AGAIN}")
    pixels = _decode_tif(data, where) if header.kind == "tif" else _decode_cv2(data)
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        if header.rare:
            raise InputError(
                f"{where} is a {header.kind} with {header.rare}, which neither OpenCV nor Pillow unpacks "
                "here; save it as png, or as tif without compression"
            )
        raise InputError(f"{where} is damaged: a {header.kind} that cannot be decoded; {AGAIN}")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{where} holds {pixels.dtype} values; expected whole numbers of 8 or 16 bits")
    return pixels


def to_8_bits(plane: Plane) -> tuple[NDArray[np.uint8], int]:
    """Scale a plane to uint8, and tell the depth in bits that it had.

    16 bits become 8 by / 256. Cameras of fewer bits are stored in 16-bit files too: a plane that holds at
    most 4095 is scaled by the bits that its maximum needs (12 bits by / 16, 9 bits by / 2), because / 256
    would leave at most 16 grey levels of it. The file alone decides, so a field reads the same everywhere.
    """
    if plane.dtype == np.uint8:
        return plane.astype(np.uint8, copy=False), 8
    peak = int(plane.max())
    bits = 16 if peak > 4095 else max(peak.bit_length(), 8)
    return (plane >> (bits - 8)).astype(np.uint8), bits


def _is_whole(data: bytes, kind: str) -> bool:
    """Whether the end mark is there. OpenCV fills up what is missing of a jpg; old ones do it for a png."""
    if kind == "png":
        return data.rfind(b"IEND") > 0
    if kind == "jpg":
        # An end mark cannot occur inside the scan, but thumbnails before it have one of their own.
        return data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) > 0
    return True


def _decode_cv2(data: bytes) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


def _decode_tif(data: bytes, where: str) -> NDArray[Any] | None:
    """OpenCV for 16 bits (it multiplies 8 bits by alpha), Pillow for 8 (it knows no RGB of 16)."""
    page = tif_page(io.BytesIO(data), where)
    if page.photometric not in TIF_COLOURS or page.samples > 4:
        found = f"{page.samples} samples of photometric kind {page.photometric}"
        raise InputError(f"{where} has {found}; expected grey, palette or RGB, with or without alpha")
    data = as_stored(data, page)
    if page.dtype != "uint16":
        return _decode_pillow(data)
    if page.samples == 2 or (page.samples > 1 and page.separate):  # OpenCV mixes these up
        raise InputError(
            f"{where} is a 16-bit tif with separate planes or grey alpha; save it as grey tif or png"
        )
    pixels = _decode_cv2(data)
    if pixels is None and page.samples == 1:  # some compressions only Pillow unpacks
        pixels = _decode_pillow(data)
    return ~pixels if pixels is not None and page.photometric == 0 else pixels


def _decode_pillow(data: bytes) -> NDArray[Any] | None:
    modes = {"1": "L", "P": "RGB", "PA": "RGB", "YCbCr": "RGB"}
    try:
        with Image.open(io.BytesIO(data)) as image:
            # Before it is loaded: Pillow turns what asks for it, in its directory or in its XMP.
            image.getexif()[ExifTags.Base.Orientation] = 1
            pixels = np.asarray(image.convert(modes.get(image.mode, image.mode)))
            return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    except Exception:  # Pillow raises many kinds on damaged files; all mean the same here
        return None
