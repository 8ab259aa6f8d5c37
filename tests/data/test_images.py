"""Channels: whatever file holds one is read, whatever does not is one clear error."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from channel_files import HEIGHT, WIDTH, by_pillow, by_tifffile, encoded, ramp, write_field
from PIL import Image

from hpa_kit.data import CHANNELS, field_size, read_field
from hpa_kit.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


@pytest.mark.parametrize("ending", [".jpg", ".JPEG"])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_grey_jpg_comes_back_but_for_its_losses(tmp_path, ending, progressive):
    data = encoded(ramp(), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    write_field(tmp_path, ending=ending, data=data)
    assert abs(read_field(tmp_path, "a").astype(int) - ramp()).max() <= 4
    assert field_size(tmp_path, "a") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("planes", [(0,), (1,), (2,), (1, 2), (0, 1, 2)], ids=["B", "G", "R", "RG", "grey"])
@pytest.mark.parametrize("kind", ["png", "tif", "png16", "tif16", "jpg"])
def test_the_signal_is_found_in_whatever_plane_it_sits(tmp_path, planes, kind):
    deep = kind.endswith("16")
    colour = np.zeros((HEIGHT, WIDTH, 3), np.uint16 if deep else np.uint8)
    colour[..., planes] = (ramp().astype(colour.dtype) * (257 if deep else 1))[..., None]
    ending = "." + kind.removesuffix("16")
    write_field(tmp_path, ending=ending, data=encoded(colour, ending))
    assert abs(read_field(tmp_path, "a").astype(int) - ramp()).mean() <= (25 if kind == "jpg" else 0)


def test_grey_values_of_a_blue_jpg_are_not_weighted_away(tmp_path):
    colour = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colour[..., 0] = 200
    write_field(tmp_path, ending=".jpg", data=encoded(colour, ".jpg"))
    assert read_field(tmp_path, "a").min() >= 196


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_every_colour_mode_is_read(tmp_path, kind, mode):
    plane = np.where(ramp() > 100, 255, 0).astype(np.uint8) if mode == "1" else ramp()
    image = Image.fromarray(plane).convert(mode)
    write_field(tmp_path, ending="." + kind, data=by_pillow(image, kind))
    assert (read_field(tmp_path, "a") == plane).all()


@pytest.mark.parametrize("alpha", [0, 128, 255])
@pytest.mark.parametrize("kind", ["png", "tif", "tiff by Pillow", "png16", "tif16", "LA png", "LA tif"])
def test_alpha_is_no_signal(tmp_path, kind, alpha):
    plane, transparency = ramp(200), np.full((HEIGHT, WIDTH), alpha, np.uint8)
    colour = np.dstack([plane * 0, plane, plane * 0, transparency])
    data = {
        "png": lambda: encoded(colour),
        "tif": lambda: encoded(colour, ".tif"),
        "tiff by Pillow": lambda: by_pillow(Image.fromarray(colour), "tiff", compression="tiff_lzw"),
        "png16": lambda: encoded(colour.astype(np.uint16) * 257),
        "tif16": lambda: encoded(colour.astype(np.uint16) * 257, ".tif"),
        "LA png": lambda: by_pillow(Image.fromarray(np.dstack([plane, transparency])), "png"),
        "LA tif": lambda: by_pillow(Image.fromarray(np.dstack([plane, transparency])), "tiff"),
    }[kind]()
    write_field(tmp_path, ending=".tif" if "tif" in kind else ".png", data=data)
    assert (read_field(tmp_path, "a") == plane).all()


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "miniswhite"},
        {"bigtiff": True},
        {"tile": (16, 16)},
        {"compression": "zlib", "predictor": True},
        {"byteorder": ">"},
        {"imagej": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tifs_of_every_layout_are_read(tmp_path, options, dtype):
    stored = ramp().astype(dtype) * (257 if dtype == np.uint16 else 1)
    if "photometric" in options:
        stored = ~stored
    if "byteorder" in options:
        stored = stored.astype(stored.dtype.newbyteorder(">"))
    write_field(tmp_path, ending=".tif", data=by_tifffile(stored, **options))
    assert (read_field(tmp_path, "a") == ramp()).all()


def test_separate_planes_of_a_tif_are_read_or_refused_never_mixed_up(tmp_path):
    planes = np.stack([ramp(0), ramp(), ramp(0)])
    options = {"photometric": "rgb", "planarconfig": "separate"}
    write_field(tmp_path, ending=".tif", data=by_tifffile(planes, **options))
    assert (read_field(tmp_path, "a") == ramp()).all()
    write_field(tmp_path, ending=".tif", data=by_tifffile(planes.astype(np.uint16) * 257, **options))
    with pytest.raises(InputError, match="separate planes"):
        read_field(tmp_path, "a")


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize(
    ("peak", "divisor"),
    [(65535, 256), (40000, 256), (4096, 256), (4095, 16), (3000, 16), (1000, 4), (300, 2)],
)
def test_sixteen_bit_files_are_scaled_by_the_bits_they_hold(tmp_path, ending, peak, divisor):
    plane = ramp(peak, np.uint16)
    write_field(tmp_path, ending=ending, data=encoded(plane, ending))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        field = read_field(tmp_path, "a")
    assert (field == plane // divisor).all()
    assert [str(w.message) for w in said if "bits" in str(w.message)] == (
        []
        if divisor == 256
        else [f"fields: 16-bit files in {tmp_path} hold {peak.bit_length()} bits; scaled by what each holds"]
    )


def test_eight_and_sixteen_bits_of_one_picture_read_the_same(tmp_path):
    write_field(tmp_path, "eight", data=encoded(ramp(120)))
    write_field(tmp_path, "sixteen", data=encoded(ramp(120).astype(np.uint16) * 256))
    assert (read_field(tmp_path, "eight") == read_field(tmp_path, "sixteen")).all()


def test_a_black_sixteen_bit_channel_is_black_and_nothing_is_said(tmp_path):
    write_field(tmp_path, data=encoded(np.zeros((HEIGHT, WIDTH), np.uint16)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_field(tmp_path, "a").max() == 0


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma"])
@pytest.mark.parametrize("factor", [1, 257])
def test_tifs_of_every_compression_that_a_library_here_unpacks_are_read(tmp_path, compression, factor):
    plane = ramp().astype(np.uint16) * 257 if factor == 257 else ramp()
    write_field(
        tmp_path, ending=".tif", data=by_pillow(Image.fromarray(plane), "tiff", compression=compression)
    )
    assert (read_field(tmp_path, "a") == ramp()).all()


def packed_as(code, dtype=np.uint8):
    """A tif whose directory says that it is packed in some way."""
    data = bytearray(by_tifffile(NOISE.astype(dtype)))
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        at = tif.pages[0].tags["Compression"].valueoffset
    data[at : at + 2] = code.to_bytes(2, "little")
    return bytes(data)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("code", "name"),
    [(34712, "JPEG2000"), (50002, "JPEGXL"), (34887, "LERC"), (50001, "WEBP"), (12345, "12345")],
)
def test_a_compression_that_nothing_unpacks_is_named_and_not_called_damage(tmp_path, code, name, dtype):
    write_field(tmp_path, ending=".tif", data=packed_as(code, dtype))
    with pytest.raises(InputError, match=f"a tif with {name} compression, which neither") as caught:
        read_field(tmp_path, "a")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("code", [5, 8, 4, 7])
def test_a_tif_of_a_common_compression_that_does_not_unpack_is_damaged(tmp_path, code):
    write_field(tmp_path, ending=".tif", data=packed_as(code))
    with pytest.raises(InputError, match="damaged"):
        read_field(tmp_path, "a")


def test_a_jpg_of_a_rare_kind_is_not_called_damaged(tmp_path):
    data = bytearray(encoded(ramp(), ".jpg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 1] = 0xC7  # lossless, differential, which no library here knows
    write_field(tmp_path, ending=".jpg", data=bytes(data))
    with pytest.raises(InputError, match="a jpg with frame 0xc7 of 8 bits, which neither"):
        read_field(tmp_path, "a")


def claims(width, height):
    """A png of a few bytes whose header claims a size."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


BAD = {
    "nothing": (b"", "empty"),
    "half a png": (encoded(NOISE)[:500], "truncated"),
    "a png without its last chunk": (encoded(NOISE)[:-12], "truncated"),
    "a png header": (encoded(NOISE)[:20], "truncated"),
    "a png followed by zeros": (encoded(NOISE)[:500].ljust(1500, b"\0"), "truncated"),
    "a png with a wrong bit": (encoded(NOISE)[:500] + b"?" + encoded(NOISE)[501:], "damaged"),
    "half a jpg": (encoded(NOISE, ".jpg")[:600], "truncated"),
    "a jpg followed by zeros": (encoded(NOISE, ".jpg")[:600].ljust(1500, b"\0"), "truncated"),
    "a jpg header": (encoded(NOISE, ".jpg")[:30], "truncated"),
    "half a tif": (by_tifffile(NOISE)[:-200], "truncated"),
    "a tif without its directory": (encoded(NOISE, ".tif")[:300], "damaged|truncated"),
    "a tif of two pages": (by_tifffile(np.stack([NOISE, NOISE]), photometric="minisblack"), "2 pages"),
    "a tif of floats": (by_tifffile(NOISE.astype(np.float32)), "float32"),
    "a tif of signed numbers": (by_tifffile(NOISE.astype(np.int16)), "int16"),
    "a tif of five samples": (
        by_tifffile(np.dstack([NOISE] * 5), photometric="minisblack", planarconfig="contig"),
        "5 samples",
    ),
    "a gif": (by_pillow(Image.fromarray(NOISE), "gif"), "a GIF"),
    "a bmp": (by_pillow(Image.fromarray(NOISE), "bmp"), "a BMP"),
    "a web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
    "text": (b"not an image at all", "no image"),
    "a png that claims too much": (claims(100_000, 100_000), "100000 x 100000"),
    "a png that claims nothing": (claims(0, 10), "0 x 10"),
    "a png that claims more than it holds": (claims(300, 300), "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_line_with_id_channel_and_path(tmp_path, name):
    data, why = BAD[name]
    write_field(tmp_path, "0a1b", blue=data)
    with pytest.raises(InputError, match=why) as caught:
        read_field(tmp_path, "0a1b")
    message = str(caught.value)
    assert f"{tmp_path / '0a1b_blue.png'} (blue of ID 0a1b)" in message
    assert "\n" not in message


def test_real_coloured_jpgs_keep_the_signal_of_their_colour(real):
    folder = real / "external"
    colours = {"red": (2,), "green": (1,), "blue": (0,), "yellow": (1, 2)}
    for id in ("1610_C1_1", "50_A1_1"):
        field = read_field(folder, id)
        assert field.shape[1:] == field_size(folder, id)
        for plane, channel in zip(field, CHANNELS, strict=True):
            image = cv2.imread(str(folder / f"{id}_{channel}.jpg"), cv2.IMREAD_UNCHANGED)
            signal = image[..., colours[channel]].max(axis=2)
            assert (plane >= signal).all()
            assert plane.mean() <= 1.05 * signal.mean()
    with pytest.raises(InputError, match=r"51_A1_1_green\.jpg and .*51_A1_1_yellow\.jpg are missing"):
        read_field(folder, "51_A1_1")


def test_a_real_sixteen_bit_channel_keeps_its_signal(real, tmp_path):
    data = (real / "images" / "1000_A12_2_green.png").read_bytes()
    write_field(tmp_path, data=data)
    raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert (read_field(tmp_path, "a")[1] == raw // 256).all()
