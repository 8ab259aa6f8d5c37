"""What one image of a lab says of itself, and its planes."""

import numpy as np
import pytest
import tifffile
from lab_images import NAMES, made_up, write_ome, write_zarr

from hpa_kit.data import read_field
from hpa_kit.data.lab_folder import LabFolder
from hpa_kit.data.lab_images import open_lab_image, plane_of
from hpa_kit.errors import InputError

FIELD = made_up()


def read(path, **how) -> np.ndarray:
    """The only field of the folder of an image."""
    folder = LabFolder(path.parent, **how)
    (id,) = folder.ids
    return read_field(folder, id)


def info(path):
    with open_lab_image(path, "image") as image:
        return image.info


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"byteorder": ">"}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_ome_tiff_gives_its_channels_by_their_names(tmp_path, options, dtype):
    order = [2, 0, 3, 1]
    planes = FIELD[order].astype(dtype) * (256 if dtype is np.uint16 else 1)
    write_ome(tmp_path / "a" / "f.ome.tif", planes, tuple(NAMES[k] for k in order), 0.16, **options)
    assert (read(tmp_path / "a" / "f.ome.tif") == FIELD).all()
    assert info(tmp_path / "a" / "f.ome.tif").pixel_size == pytest.approx(0.16)


@pytest.mark.parametrize("layout", [2, 3])
def test_an_ome_zarr_of_either_layout_gives_its_largest_level(tmp_path, layout):
    write_zarr(tmp_path / "f.ome.zarr", FIELD.astype(np.uint16) * 256, layout, pixel_size=0.2)
    assert (read(tmp_path / "f.ome.zarr") == FIELD).all()
    assert info(tmp_path / "f.ome.zarr").pixel_size == pytest.approx(0.2)
    assert info(tmp_path / "f.ome.zarr").names == NAMES


def test_channels_of_a_plain_tif_are_what_the_user_says(tmp_path):
    tifffile.imwrite(tmp_path / "f.tif", FIELD, photometric="minisblack")
    assert (read(tmp_path / "f.tif", channels="green=0,r=3,b=1,y=2") == FIELD[[3, 0, 1, 2]]).all()
    with pytest.raises(
        InputError, match=r"has no red, green, .*found 4 without names; say which.*--channels"
    ):
        read(tmp_path / "f.tif")


def test_colours_behind_each_pixel_are_channels_too(tmp_path):
    tifffile.imwrite(tmp_path / "f.tif", FIELD.transpose(1, 2, 0), photometric="rgb", extrasamples=[0])
    assert (read(tmp_path / "f.tif", channels="r=0,g=1,b=2,y=3") == FIELD).all()


def test_an_imagej_stack_of_fractions_and_its_scale_are_read(tmp_path):
    fractions = FIELD.astype(np.float32) / 255
    about = {"axes": "CYX", "unit": "um"}
    tifffile.imwrite(
        tmp_path / "f.tif", fractions, imagej=True, metadata=about, resolution=(1 / 0.325, 1 / 0.325)
    )
    assert (read(tmp_path / "f.tif", channels="r=0,g=1,b=2,y=3") == FIELD).all()
    assert info(tmp_path / "f.tif").pixel_size == pytest.approx(0.325, rel=1e-3)


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        (FIELD.astype(np.float32), FIELD),  # as large as 8 bits
        (FIELD.astype(np.float64) * 256, FIELD),  # as large as 16
        (FIELD.astype(np.int16) - 20, np.maximum(FIELD.astype(np.int16) - 20, 0)),
        (FIELD.astype(np.uint16) * 16, FIELD),  # a camera of 12 bits
        (FIELD > 99, (FIELD > 99) * np.uint8(255)),
    ],
    ids=["fractions to 255", "fractions to 65535", "signed", "12 bits", "bool"],
)
def test_values_of_other_kinds_are_scaled_to_8_bits(tmp_path, planes, expected):
    from hpa_kit.data.lab_images import LabImage, LabInfo

    about = LabInfo(*planes.shape[1:], str(planes.dtype), 4, (), None, 1, 1)
    image = LabImage(about, lambda channel, depth: planes[channel])
    assert all((plane_of(image, k, "image") == expected[k]).all() for k in range(4))


def test_lzw_needs_no_further_package(tmp_path):
    from PIL import Image

    pages = [Image.fromarray(plane) for plane in FIELD]
    pages[0].save(tmp_path / "f.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    assert (read(tmp_path / "f.tif", channels="r=0,g=1,b=2,y=3") == FIELD).all()


@pytest.mark.parametrize(
    ("unit", "resolution", "expected"),
    [
        ("CENTIMETER", 1e4 / 0.08, 0.08),
        ("INCH", 25_400 / 0.325, 0.325),
        ("INCH", 300, None),
        ("NONE", 5, None),
    ],
)
def test_a_resolution_counts_where_it_can_be_a_camera_s(tmp_path, unit, resolution, expected):
    tifffile.imwrite(
        tmp_path / "f.tif", FIELD, photometric="minisblack", resolution=(resolution,) * 2, resolutionunit=unit
    )
    assert info(tmp_path / "f.tif").pixel_size == (expected and pytest.approx(expected, rel=1e-3))


def test_planes_in_depth_are_refused_or_their_maximum_is_taken(tmp_path):
    stack = np.stack([FIELD, FIELD[:, ::-1]], axis=1)
    write_ome(tmp_path / "f.ome.tif", stack, axes="CZYX")
    assert (read(tmp_path / "f.ome.tif", stack="max") == stack.max(axis=1)).all()
    with pytest.raises(InputError, match=r"holds 2 planes in depth; expected one; --stack max takes the max"):
        read(tmp_path / "f.ome.tif")


def test_points_of_time_are_refused(tmp_path):
    write_ome(tmp_path / "f.ome.tif", np.stack([FIELD, FIELD]), axes="TCYX")
    with pytest.raises(InputError, match=r"holds 2 points of time; expected one"):
        read(tmp_path / "f.ome.tif", stack="max")


def test_without_zarr_one_line_says_what_installs_it(tmp_path, monkeypatch):
    (tmp_path / "f.zarr").mkdir()
    (tmp_path / "f.zarr" / ".zattrs").write_text('{"multiscales": [{"datasets": [{"path": "0"}]}]}')
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(
        InputError, match=r"f\.zarr .*is OME-Zarr, which zarr reads; .*pip install 'hpa-kit\[lab\]'"
    ):
        read(tmp_path / "f.zarr")
