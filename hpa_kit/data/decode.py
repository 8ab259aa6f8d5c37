"""One channel's file -> one plane: png, jpg and tif of any depth and colour, checked before it is decoded.

Pixels come as they are stored. A file may ask to be turned or mirrored when it is shown (EXIF in png and jpg,
a tag in tif), each channel of a field for itself: whoever did it would lay one channel askew on the others.

OpenCV decodes: of what Kaggle's image has it is the fastest for grey png, and it lets other threads run
meanwhile (``tests/benchmarks/test_bench_decode.py`` measures it). It is not asked about files that it would
answer with a wrong picture: half a jpg, the first page of many, separate planes of a 16-bit tif.
"""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from hpa_kit.data.headers import AGAIN, MAX_PIXELS, as_stored, read_header, tif_page
from hpa_kit.errors import InputError

# The most pixels, in four planes of 16 bits, nothing of them packed: no file that can be used is larger.
MAX_BYTES = 8 * MAX_PIXELS
# Photometric interpretations of tif: white is 0, black is 0, RGB, palette, YCbCr.
TIF_COLOURS = (0, 1, 2, 3, 6)

Plane = NDArray[np.uint8] | NDArray[np.uint16]


def read_image(path: Path, where: str) -> bytes:
    """An image file's bytes.

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
    """The signal of one channel's file, whatever plane of it carries the signal.

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
    return _largest_plane(decode_planes(data, where))


def decode_planes(data: bytes, where: str) -> Plane:
    """All planes of an image's file, as they are stored.

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
    """A plane as uint8 and the depth in bits from which it was scaled.

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


def _largest_plane(pixels: NDArray[Any]) -> Plane:
    """Maximum over colour planes: (H, W), or (H, W, 2 or 4) with alpha last, or (H, W, 3)."""
    if pixels.ndim == 2:
        return pixels
    colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    largest = cv2.extractChannel(np.ascontiguousarray(pixels), 0)
    for index in range(1, colours):
        largest = cv2.max(largest, cv2.extractChannel(np.ascontiguousarray(pixels), index))
    return largest
