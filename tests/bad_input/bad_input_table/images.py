"""Fields whose images cannot be used."""

import os
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from bad_input_table.case import INFER, SEGMENT, STORE, Case
from bad_input_table.world import SIDE, World

GROUP = "Images"
LOST = (
    "fields: 1 of 4 fields cannot be read: ID f0; put them right or take their rows out of train.csv; first: "
)
GREEN = "fields: …f0_green.png (green of ID f0) "
AGAIN = "; download or copy it again"


def png_header(width: int, height: int) -> bytes:
    """The start of a png that claims a size, and its end."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = [head, data, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def _image(content: bytes):
    return lambda world: world.image().write_bytes(content)


def _truncated(world: World) -> None:
    whole = world.image().read_bytes()
    world.image().write_bytes(whole[: len(whole) // 2])


def _gif(world: World) -> None:
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(world.image(), format="GIF")


def _other_size(world: World) -> None:
    cv2.imwrite(str(world.image()), np.zeros((SIDE, SIDE + 1), np.uint8))


def _middle_lost(world: World) -> None:
    whole = bytearray(world.image().read_bytes())
    whole[60:200] = bytes(140)
    world.image().write_bytes(whole)


def _as_tif(pixels: np.ndarray, pages: int = 1):
    def make(world: World) -> None:
        import tifffile

        world.image().unlink()
        path = world.image(ending=".tif")
        tifffile.imwrite(path, np.stack([pixels] * pages) if pages > 1 else pixels, photometric="minisblack")

    return make


def _cut_tif(world: World) -> None:
    _as_tif(np.zeros((SIDE, SIDE), np.uint8))(world)
    path = world.image(ending=".tif")
    path.write_bytes(path.read_bytes()[:-500])


def _packed_tif(compression: int):
    """A tif that says that it is packed in some way."""

    def make(world: World) -> None:
        import tifffile

        _as_tif(np.zeros((SIDE, SIDE), np.uint8))(world)
        path = world.image(ending=".tif")
        with tifffile.TiffFile(path) as tif:
            at = tif.pages[0].tags["Compression"].valueoffset
        content = bytearray(path.read_bytes())
        content[at : at + 2] = compression.to_bytes(2, "little")
        path.write_bytes(content)

    return make


def _cut_jpg(world: World) -> None:
    world.image().unlink()
    path = world.image(ending=".jpg")
    cv2.imwrite(str(path), np.zeros((SIDE, SIDE), np.uint8))
    path.write_bytes(path.read_bytes()[:-20])


def _huge_jpg(world: World) -> None:
    world.image().unlink()
    frame = struct.pack(">BBHBHHB", 0xFF, 0xC0, 11, 8, 65_535, 65_535, 1) + b"\1\x11\0"
    world.image(ending=".jpg").write_bytes(b"\xff\xd8" + frame + b"\xff\xda\xff\xd9")


def _folder(world: World) -> None:
    world.image().unlink()
    world.image().mkdir()


def _dangling(world: World) -> None:
    world.image().unlink()
    world.image().symlink_to(world.root / "nowhere.png")


def _no_images(world: World) -> None:
    for path in world["test"].iterdir():
        path.unlink()
    world["sample"].unlink()


CASES = (
    Case(
        GROUP,
        "a channel is missing",
        lambda world: world.image(channel="yellow").unlink(),
        SEGMENT,
        "segment: 1 of 4 fields could not be segmented, the others are in …: f0; first: fields: "
        "…f0_yellow.png "
        "is missing; ID f0 needs red, green, blue and yellow",
    ),
    Case(GROUP, "a file of 0 bytes", _image(b""), STORE, LOST + GREEN + "is empty (0 bytes)" + AGAIN),
    Case(
        GROUP,
        "a truncated png",
        _truncated,
        STORE,
        LOST + GREEN + "is truncated: its end is missing" + AGAIN,
    ),
    Case(
        GROUP,
        "a png damaged in the middle",
        _middle_lost,
        STORE,
        LOST + GREEN + "is damaged: a png that cannot be decoded" + AGAIN,
    ),
    Case(GROUP, "a GIF named png", _gif, STORE, LOST + GREEN + "is a GIF; expected a png, jpg or tif"),
    Case(
        GROUP,
        "a web page named png",
        _image(b"<!DOCTYPE html><html>Sign in</html>"),
        STORE,
        LOST + GREEN + "is a web page; expected a png, jpg or tif",
    ),
    Case(
        GROUP,
        "text named png",
        _image(b"not an image at all"),
        STORE,
        LOST + GREEN + "is no image (it starts with b'not an i'); expected a png, jpg or tif",
    ),
    Case(
        GROUP,
        "a png that claims 100,000 x 100,000 pixels",
        _image(png_header(100_000, 100_000)),
        STORE,
        LOST + GREEN + "claims 100000 x 100000 pixels; expected 1 to 67108864" + AGAIN,
    ),
    Case(
        GROUP,
        "a png of 0 x 0 pixels",
        _image(png_header(0, 0)),
        STORE,
        LOST + GREEN + "claims 0 x 0 pixels; expected 1 to 67108864" + AGAIN,
    ),
    Case(
        GROUP,
        "a jpg that claims 65,535 x 65,535 pixels",
        _huge_jpg,
        STORE,
        LOST + GREEN.replace("png", "jpg") + "claims 65535 x 65535 pixels; expected 1 to 67108864" + AGAIN,
    ),
    Case(
        GROUP,
        "a file of 10 GB, nearly all of it a hole",
        lambda world: os.truncate(world.image(), 10**10),
        STORE,
        LOST + GREEN + "has 10000000000 bytes; expected 536870912 at most" + AGAIN,
    ),
    Case(
        GROUP,
        "channels of two sizes",
        _other_size,
        STORE,
        LOST + "fields: the channels of ID f0 in … differ in size: red 48 x 48, green 49 x 48, blue 48 x 48, "
        "yellow 48 x 48; expected one size",
    ),
    Case(
        GROUP,
        "a tif of two pages",
        _as_tif(np.zeros((SIDE, SIDE), np.uint8), pages=2),
        STORE,
        LOST + "fields: …f0_green.tif (green of ID f0) holds 2 pages; expected one page per channel",
    ),
    Case(
        GROUP,
        "a tif of fractions",
        _as_tif(np.zeros((SIDE, SIDE), np.float32)),
        STORE,
        LOST
        + "fields: …f0_green.tif (green of ID f0) holds float32 values; expected whole numbers of 8 or 16 "
        "bits",
    ),
    Case(
        GROUP,
        "a tif whose strips end outside the file",
        _cut_tif,
        STORE,
        LOST + "fields: …f0_green.tif (green of ID f0) is truncated: its end is missing" + AGAIN,
    ),
    Case(
        GROUP,
        "a tif of a compression that nothing unpacks",
        _packed_tif(34712),
        STORE,
        LOST + GREEN.replace("png", "tif") + "is a tif with JPEG2000 compression, which neither OpenCV nor "
        "Pillow unpacks here; save it as png, or as tif without compression",
    ),
    Case(
        GROUP,
        "a jpg without its end",
        _cut_jpg,
        STORE,
        LOST + "fields: …f0_green.jpg (green of ID f0) is truncated: its end is missing" + AGAIN,
    ),
    Case(
        GROUP,
        "a folder in an image's place",
        _folder,
        STORE,
        LOST + "fields: …f0_green.png is missing; ID f0 needs red, green, blue and yellow",
    ),
    Case(
        GROUP,
        "a link that leads nowhere",
        _dangling,
        STORE,
        LOST + "fields: …f0_green.png cannot be read: No such file or directory",
    ),
    Case(
        GROUP,
        "a test field that cannot be read costs its row only",
        lambda world: world.image("t0").write_bytes(b""),
        INFER,
        "infer: ID t0 finds nothing: fields: …t0_green.png (green of ID t0) is empty (0 bytes)" + AGAIN,
        status=0,
    ),
    Case(
        GROUP,
        "a test field without any image costs its row only",
        lambda world: [world.image("t0", channel).unlink() for channel in ("red", "green", "blue", "yellow")],
        INFER,
        "infer: ID t0 finds nothing: fields: …test has no image of ID t0; expected t0_red.png, _green, _blue "
        "and _yellow",
        status=0,
    ),
    Case(
        GROUP,
        "no field at all",
        _no_images,
        INFER,
        "data: …test holds no field to work on; expected ID_red.png and so on, or tif, OME-TIFF or OME-Zarr "
        "of all channels",
    ),
)
