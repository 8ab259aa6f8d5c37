"""Fields: whatever holds a channel is read, whatever does not is one clear error."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from hpa_kit.data import CHANNELS, field_size, find_fields, read_field, resize_field
from hpa_kit.errors import InputError

HEIGHT, WIDTH = 24, 40


def ramp(peak=255, dtype=np.uint8):
    return np.linspace(0, peak, HEIGHT * WIDTH).round().astype(dtype).reshape(HEIGHT, WIDTH)


def encoded(image, ending=".png", *flags):
    done, data = cv2.imencode(ending, image, list(flags))
    assert done
    return data.tobytes()


def by_pillow(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_tifffile(image, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, image, **options)
    return stream.getvalue()


def write_field(folder, id="a", ending=".png", data=None, **channels):
    """Four channel files; ``data`` for all, or bytes for one channel by its name; None leaves it out."""
    folder.mkdir(parents=True, exist_ok=True)
    for channel in CHANNELS:
        content = channels.get(channel, data if data is not None else encoded(ramp()))
        if content is not None:
            (folder / f"{id}_{channel}{ending}").write_bytes(content)


@pytest.mark.parametrize("ending", [".png", ".TIF", ".Png"])
def test_yellow_may_be_missing_where_three_channels_are_needed_and_is_read_where_it_is_there(
    tmp_path, ending
):
    write_field(tmp_path, ending=ending)
    whole = read_field(tmp_path, "a")
    np.testing.assert_array_equal(read_field(tmp_path, "a", needed=3), whole)
    (tmp_path / f"a_yellow{ending}").unlink()
    field = read_field(tmp_path, "a", needed=3)
    np.testing.assert_array_equal(field[:3], whole[:3])
    assert field.shape == whole.shape and not field[3].any()
    with pytest.raises(InputError, match="a_yellow"):
        read_field(tmp_path, "a")
    (tmp_path / f"a_green{ending}").unlink()
    with pytest.raises(InputError, match="a_green"):
        read_field(tmp_path, "a", needed=3)


def test_channels_are_red_green_blue_yellow_whatever_the_size(tmp_path):
    planes = {channel: np.full((HEIGHT, WIDTH), 10 * n, np.uint8) for n, channel in enumerate(CHANNELS, 1)}
    write_field(tmp_path, **{channel: encoded(plane) for channel, plane in planes.items()})
    field = read_field(tmp_path, "a")
    assert field.dtype == np.uint8
    assert field.shape == (4, HEIGHT, WIDTH)
    assert field.flags.c_contiguous
    assert field[:, 0, 0].tolist() == [10, 20, 30, 40]
    assert field_size(tmp_path, "a") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("ending", [".png", ".PNG", ".Png", ".tif", ".TIFF", ".tiff"])
def test_a_lossless_channel_comes_back_to_the_last_bit_in_any_letter_case(tmp_path, ending):
    write_field(tmp_path, ending=ending, data=encoded(ramp(), ending.lower()))
    assert find_fields(tmp_path) == ["a"]
    assert (read_field(tmp_path, "a") == ramp()).all()
    assert field_size(tmp_path, "a") == (HEIGHT, WIDTH)


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


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_missing_channel_is_named(tmp_path, channel):
    write_field(tmp_path, "0a1b", **{channel: None})
    path = tmp_path / f"0a1b_{channel}.png"
    with pytest.raises(InputError) as caught:
        read_field(tmp_path, "0a1b")
    assert str(caught.value) == f"fields: {path} is missing; ID 0a1b needs red, green, blue and yellow"
    assert find_fields(tmp_path) == ["0a1b"]
    assert field_size(tmp_path, "0a1b") == (HEIGHT, WIDTH)


def test_all_missing_channels_are_named_with_the_ending_of_the_others(tmp_path):
    write_field(tmp_path, ending=".jpg", data=encoded(ramp(), ".jpg"), green=None, yellow=None)
    with pytest.raises(InputError, match=r"a_green\.jpg and .*a_yellow\.jpg are missing"):
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


NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
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


def test_channels_of_different_sizes_are_refused(tmp_path):
    write_field(tmp_path, blue=encoded(ramp().T.copy()))
    with pytest.raises(InputError, match=r"ID a .*red 40 x 24.*blue 24 x 40"):
        read_field(tmp_path, "a")


@pytest.mark.parametrize(
    "id", ["1.2.3", "x_red", "a[b]*?", "_", "né", "00123", "1e5", "a b", "x.png", "日本"]
)
def test_ids_are_text_of_any_kind(tmp_path, id):
    write_field(tmp_path / "Zürich 細胞", id)
    assert find_fields(tmp_path / "Zürich 細胞") == [id]
    assert read_field(str(tmp_path / "Zürich 細胞"), id).shape == (4, HEIGHT, WIDTH)


@pytest.mark.parametrize("id", [5, 1.5, None, "", "../a", "a" * 300])
def test_what_is_no_id_is_refused(tmp_path, id):
    write_field(tmp_path)
    with pytest.raises(InputError, match="ID"):
        read_field(tmp_path, id)
    with pytest.raises(InputError, match="ID"):
        field_size(tmp_path, id)


def test_a_channel_in_two_formats_is_read_from_the_lossless_one(tmp_path):
    write_field(tmp_path, ending=".jpg", data=encoded(ramp(), ".jpg"))
    write_field(tmp_path, data=encoded(ramp()))
    assert find_fields(tmp_path) == ["a"]
    assert (read_field(tmp_path, "a") == ramp()).all()


def test_only_channel_files_make_a_field(tmp_path):
    write_field(tmp_path, "b")
    write_field(tmp_path, "a", red=None, green=None)
    for name in (
        "._b_red.png",
        ".c_red.png",
        "d_red.png.tmp",
        "e.png",
        "f_purple.png",
        "_red.png",
        "g_red",
        "h_RED.png",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "i_red.png").mkdir()
    assert find_fields(tmp_path) == ["a", "b"]


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="is missing"):
        find_fields(tmp_path / "none")
    with pytest.raises(InputError, match="is a file"):
        find_fields(tmp_path / "file")
    with pytest.raises(InputError, match="none is missing"):
        read_field(tmp_path / "none", "a")


def test_the_size_is_had_without_decoding(tmp_path):
    write_field(tmp_path, red=b"", green=encoded(ramp())[:40], blue=None, yellow=None)
    assert field_size(tmp_path, "a") == (HEIGHT, WIDTH)
    with pytest.raises(InputError, match="no image of ID b"):
        field_size(tmp_path, "b")


def test_a_resized_field_is_bilinear_channel_by_channel():
    field = np.stack([ramp(), ramp(100), ramp(0), ramp(7)])
    resized = resize_field(field, 16)
    assert resized.shape == (4, 16, 16)
    assert resized.flags.c_contiguous
    assert (resized == cv2.resize(field.transpose(1, 2, 0), (16, 16)).transpose(2, 0, 1)).all()


def test_a_field_of_the_right_size_is_copied_not_shared():
    field = np.zeros((4, 8, 8), np.uint8)
    assert not np.shares_memory(resize_field(field, 8), field)


@pytest.mark.parametrize(
    "field", [np.zeros((4, 8, 8), np.float32), np.zeros((8, 8), np.uint8), np.zeros((4, 0, 8), np.uint8)]
)
def test_what_is_no_field_is_not_resized(field):
    with pytest.raises(InputError, match="expected uint8"):
        resize_field(field, 8)


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
