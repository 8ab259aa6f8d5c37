"""What an image's file says of itself, looked at before anything of it is decoded."""

import io
import struct
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO, Literal, NamedTuple

from hpa_kit.errors import InputError

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


class Header(NamedTuple):
    """What a file says of itself before anything is decoded."""

    kind: Literal["png", "jpg", "tif"]
    height: int
    width: int
    rare: str = ""  # how its pixels are packed, where not every reader can unpack that


def read_header(stream: BinaryIO, where: str, values: Collection[str] = CHANNEL_VALUES) -> Header:
    """Kind and size of an image from its first bytes; what it is called plays no part.

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
            raise InputError(f"{where} is {_guess(start)}; {KINDS}")
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
    """The only page of a tif, its strips all inside the file, its values of a kind that a channel has.

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
        raise InputError(
            f"{where} is damaged: no readable tif ({' '.join(str(error).split())}); {AGAIN}"
        ) from None
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


def _guess(start: bytes) -> str:
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
