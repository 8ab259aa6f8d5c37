"""Orientation: a file that asks to be turned or mirrored is read as it is stored, whatever its format."""

import numpy as np
import pytest
from channel_files import HEIGHT, WIDTH, by_pillow, by_tifffile, ramp, write_field
from PIL import Image

from hpa_kit.config import StoreSettings
from hpa_kit.data import field_size, kept_fields, read_field, store_fields
from hpa_kit.data.images import decode_plane

DEEP = ramp().astype(np.uint16) * 257


def coloured(plane):
    return np.dstack([plane // 3, plane, plane // 2])


def exif_file(image, kind, orientation, **options):
    exif = Image.Exif()
    exif[274] = orientation
    return by_pillow(Image.fromarray(image), kind, exif=exif.tobytes(), **options)


def tif_file(image, orientation, dtype="H", **options):
    return by_tifffile(image, extratags=[(274, dtype, 1, orientation, True)], **options)


def xmp_file(image, orientation):
    xmp = f'<rdf:Description tiff:Orientation="{orientation}"/>'.encode()
    return by_tifffile(image, extratags=[(700, "B", len(xmp), xmp, True)])


FILES = {
    "png": lambda o: (exif_file(ramp(), "png", o), ramp()),
    "png of 16 bits": lambda o: (exif_file(DEEP, "png", o), DEEP),
    "coloured png": lambda o: (exif_file(coloured(ramp()), "png", o), ramp()),
    "jpg": lambda o: (exif_file(ramp(), "jpeg", o, quality=100), ramp()),
    "coloured jpg": lambda o: (exif_file(coloured(ramp()), "jpeg", o, quality=100, subsampling=0), ramp()),
    "tif": lambda o: (tif_file(ramp(), o), ramp()),
    "tif of 16 bits": lambda o: (tif_file(DEEP, o), DEEP),
    "big-endian tif": lambda o: (tif_file(ramp(), o, byteorder=">"), ramp()),
    "big-endian tif of 16 bits": lambda o: (tif_file(DEEP.astype(">u2"), o, byteorder=">"), DEEP),
    "BigTIFF": lambda o: (tif_file(DEEP, o, bigtiff=True), DEEP),
    "coloured tif": lambda o: (tif_file(coloured(ramp()), o), ramp()),
    "coloured tif of 16 bits": lambda o: (tif_file(coloured(DEEP), o), DEEP),
    "packed tif": lambda o: (tif_file(ramp(), o, compression="zlib"), ramp()),
    "packed tif of 16 bits": lambda o: (tif_file(DEEP, o, compression="zlib", predictor=True), DEEP),
    "tif that only Pillow unpacks": lambda o: (tif_file(DEEP, o, compression="lzma"), DEEP),
    "tif in tiles": lambda o: (tif_file(ramp(), o, tile=(16, 16)), ramp()),
    "tif with white as 0": lambda o: (tif_file(~DEEP, o, photometric="miniswhite"), DEEP),
    "tif whose tag is of 4 bytes": lambda o: (tif_file(ramp(), o, dtype="I"), ramp()),
    "tif that asks in XMP": lambda o: (xmp_file(ramp(), o), ramp()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", FILES)
def test_pixels_are_as_stored(name, orientation):
    data, stored = FILES[name](orientation)
    read = decode_plane(data, name)
    assert read.dtype == stored.dtype and read.shape == (HEIGHT, WIDTH)
    assert abs(read.astype(int) - stored).max() <= (4 if "jpg" in name else 0)


@pytest.mark.parametrize("orientation", [4, 6])
def test_channels_that_ask_for_different_turns_lie_on_each_other(tmp_path, orientation):
    write_field(tmp_path, data=exif_file(ramp(), "png", 3), green=None)
    (tmp_path / "a_green.tif").write_bytes(tif_file(ramp(), orientation))
    assert (read_field(tmp_path, "a") == ramp()).all()
    assert field_size(tmp_path, "a") == (HEIGHT, WIDTH)


def test_four_equal_channels_of_which_a_tif_asks_to_be_mirrored_stay_equal(shared):
    field = read_field(shared / "inputs" / "orientation", "f")
    assert (field == field[0]).all()


def test_fields_kept_when_tifs_were_still_turned_are_made_again_and_those_of_png_stay(tmp_path, monkeypatch):
    write_field(tmp_path / "images", "p")
    write_field(tmp_path / "images", "t", ".tif", tif_file(ramp(), 4))
    settings = StoreSettings(data=tmp_path / "images", out=tmp_path / "kept", size=32)
    with monkeypatch.context() as before:
        before.setattr(kept_fields, "VERSION", 1)
        store_fields(settings)
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kept" / "32").iterdir()}
    with pytest.warns(UserWarning, match=r"t\.field was not written by this version"):
        store_fields(settings)
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kept" / "32").iterdir()}
    assert again["p.field"] == first["p.field"] and again["t.field"] > first["t.field"]
