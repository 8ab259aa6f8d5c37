"""Label maps of other tools: read as what they are, or an error that says what lies there."""

import logging
import pickle
import warnings
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from hpa_kit.cells import (
    ClassicalSegmenter,
    LabelMaps,
    MaskFolder,
    load_or_segment,
    read_label_maps,
    write_label_maps,
)
from hpa_kit.cells.label_maps import NAMES
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure

SHAPE = (24, 40)
FIELD = np.zeros((4, *SHAPE), np.uint8)


def three_cells(values=(2, 7, 200)):
    """Three cells apart, the second in two pieces."""
    cells = np.zeros(SHAPE, np.int64)
    for value, columns in zip(values, (slice(2, 8), slice(12, 18), slice(30, 39)), strict=True):
        cells[4:20, columns] = value
    cells[10, 12:18] = 0
    return cells


EXPECTED = three_cells((1, 2, 3))


def png(path, array):
    path.write_bytes(cv2.imencode(".png", array)[1].tobytes())


def tif(**options):
    return lambda path, array: tifffile.imwrite(path, array, **options)


def by_pillow(**options):
    return lambda path, array: Image.fromarray(array).save(path, "tiff", **options)


def exif_png(path, array):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(array).save(path, "png", exif=exif.tobytes())


WRITERS = {
    ".png": png,
    ".PNG": png,
    ".npy": np.save,
    ".npz": np.savez_compressed,
    ".tif": tif(),
    ".TIFF": tif(compression="zlib"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", WRITERS)
def test_every_name_and_format_is_read(tmp_path, ending, name):
    for id in ("a", "a_b.c", "é"):
        path = tmp_path / f"{id}{name}{ending}"
        with path.open("wb") as file:
            WRITERS[ending](
                path if ending.lower() in (".png", ".tif", ".tiff") else file, np.uint8(three_cells())
            )
    folder = MaskFolder(tmp_path)
    folder.check()
    for id in ("a", "a_b.c", "é"):
        assert folder.has(id)
        np.testing.assert_array_equal(folder.read_cells(id), EXPECTED)
        np.testing.assert_array_equal(folder.read(id, FIELD).cells, EXPECTED)
    assert not folder.has("b")


@pytest.mark.parametrize("name", ["f.npz", "f.TIF", "f_cp_masks.png"])
def test_ids_with_folders_in_them_have_their_files_there(tmp_path, name):
    (tmp_path / "p1" / "A01").mkdir(parents=True)
    path = tmp_path / "p1" / "A01" / name
    if name.endswith("npz"):
        np.savez(path, cells=np.uint8(three_cells()))
    elif name.endswith("png"):
        png(path, np.uint8(three_cells()))
    else:
        tifffile.imwrite(path, np.uint8(three_cells()))
    folder = MaskFolder(tmp_path)
    assert folder.find("p1/A01/f") == path
    assert folder.read_cells("p1/A01/f").max() == 3
    assert folder.find("p1/A01/g") is folder.find("p1/A02/f") is folder.find("f") is None
    assert pickle.loads(pickle.dumps(folder)).has("p1/A01/f")


def packed(folder, name="some.zip", method=zipfile.ZIP_STORED):
    """Put all files of a folder into an archive there."""
    with zipfile.ZipFile(folder / name, "w", method) as archive:
        for path in sorted(path for path in folder.iterdir() if path.suffix != ".zip"):
            archive.write(path, path.name)
            path.unlink()
    return folder / name


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("ending", WRITERS)
def test_every_name_and_format_is_read_in_an_archive_too(tmp_path, ending, method):
    for name in NAMES:
        with (tmp_path / f"é{len(name)}{name}{ending}").open("wb") as file:
            WRITERS[ending](
                Path(file.name) if ending.lower() in (".png", ".tif", ".tiff") else file,
                np.uint8(three_cells()),
            )
    archive = packed(tmp_path, method=method)
    for folder in (
        MaskFolder(tmp_path),
        MaskFolder(archive),
        pickle.loads(pickle.dumps(MaskFolder(archive))),
    ):
        folder.check()
        for name in NAMES:
            np.testing.assert_array_equal(folder.read(f"é{len(name)}", FIELD).cells, EXPECTED)
        assert not folder.has("é") and folder.find("é") is None


def test_a_loose_label_map_counts_before_any_of_its_field_in_an_archive(tmp_path, caplog):
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, cells=EXPECTED)
    packed(tmp_path)
    folder = MaskFolder(tmp_path)
    folder.check()
    assert not caplog.messages
    png(tmp_path / "a_mask.PNG", np.uint8(EXPECTED == 1))
    np.savez(tmp_path / "b.npz", cells=EXPECTED * 0)
    folder = MaskFolder(tmp_path)
    folder.check()
    assert [int(folder.read_cells(id).max()) for id in "ab"] == [1, 0]
    assert caplog.messages[0].endswith("such as a.npz, a_mask.PNG, of which a_mask.PNG counts")


def test_a_label_map_that_is_packed_between_finding_and_reading_is_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", cells=EXPECTED)
    folder, find = MaskFolder(tmp_path), MaskFolder.find
    folder.check()
    changes = [lambda: packed(tmp_path), lambda: (tmp_path / "some.zip").rename(tmp_path / "other.zip")]
    for change in changes:  # packed, and then into another archive
        todo = [change]

        def then_changed(self, id):
            found = find(self, id)
            if todo:  # noqa: B023 - called in this turn
                todo.pop()()  # noqa: B023
            return found

        monkeypatch.setattr(MaskFolder, "find", then_changed)
        np.testing.assert_array_equal(folder.read_cells("a"), EXPECTED)
        assert not todo


DTYPES = [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ending", [".npy", ".npz", ".tif", ".TIFF"])
def test_every_dtype_that_holds_whole_numbers_is_read(tmp_path, ending, dtype):
    path = tmp_path / f"a{ending}"
    WRITERS[ending](path, three_cells().astype(dtype))
    found = MaskFolder(tmp_path).read_cells("a")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, EXPECTED)


@pytest.mark.parametrize("shape", [(1, *SHAPE), (*SHAPE, 1), (1, 1, *SHAPE), (1, *SHAPE, 1)])
def test_axes_of_length_one_do_no_harm(tmp_path, shape):
    np.save(tmp_path / "a.npy", three_cells().reshape(shape))
    np.testing.assert_array_equal(read_label_maps(tmp_path, "a", FIELD).cells, EXPECTED)


def palette_tif(path, array):
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)
    tifffile.imwrite(path, array, photometric="palette", colormap=colours)


MADE = {
    "three equal planes": (".png", lambda path, array: png(path, np.dstack([array] * 3))),
    "planes and alpha": (".png", lambda path, array: png(path, np.dstack([array] * 3 + [array * 0 + 255]))),
    "a png that asks to be turned": (".png", exif_png),
    "a tif that asks to be turned": (".tif", tif(extratags=[(274, "H", 1, 8, True)])),
    "a packed tif that asks to be turned": (".tif", by_pillow(compression="tiff_lzw", tiffinfo={274: 3})),
    "a tif with white as 0": (".tif", tif(photometric="miniswhite")),
    "a packed tif with white as 0": (".tif", tif(photometric="miniswhite", compression="lzma")),
    "a tif of colours": (".tif", lambda path, array: tifffile.imwrite(path, np.dstack([array] * 3))),
    "a tif with a table of colours, as ImageJ saves one": (".tif", palette_tif),
    "an ImageJ tif": (
        ".tif",
        lambda path, array: tifffile.imwrite(path, array.astype(np.uint16), imagej=True),
    ),
    "a tif named png": (".png", tif()),
}


@pytest.mark.parametrize("name", MADE)
def test_numbers_are_those_stored_whatever_is_shown(tmp_path, name):
    ending, write = MADE[name]
    write(tmp_path / f"a{ending}", np.uint8(three_cells()))
    np.testing.assert_array_equal(read_label_maps(tmp_path, "a", FIELD).cells, EXPECTED)


BINARY = np.uint8(three_cells((1, 1, 1)))


@pytest.mark.parametrize(
    ("ending", "mask"),
    [
        (".png", BINARY * 255),
        (".png", BINARY),
        (".png", np.dstack([BINARY * 255] * 3)),
        (".tif", BINARY * 255),
        (".tif", BINARY > 0),
        (".npy", BINARY > 0),
        (".npy", BINARY.astype(np.float32)),
        (".npz", BINARY > 0),
    ],
)
def test_the_pieces_of_a_mask_of_one_value_are_cells(tmp_path, ending, mask):
    WRITERS[ending](tmp_path / f"a{ending}", mask)
    found = MaskFolder(tmp_path).read_cells("a")
    assert found.max() == 4  # three cells, of which one is cut in two
    np.testing.assert_array_equal(found > 0, BINARY > 0)
    assert [len(np.unique(found[4:20, columns])) for columns in (slice(2, 8), slice(12, 18))] == [1, 3]


def test_one_cell_in_one_piece_is_one_cell_though_its_outline_crosses_a_corner(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:9, 3:9] = mask[9:12, 9:12] = 255
    png(tmp_path / "a.png", mask)
    np.testing.assert_array_equal(MaskFolder(tmp_path).read_cells("a"), mask > 0)
    png(tmp_path / "b.png", mask * 0)
    assert not MaskFolder(tmp_path).read_cells("b").any()


def test_pieces_of_a_cell_stay_together_where_there_are_several_cells_or_the_kit_wrote_them(tmp_path):
    cells = np.zeros(SHAPE, np.int32)
    cells[2:5, 2:5] = cells[2:5, 20:25] = 1
    write_label_maps(tmp_path / "own.npz", LabelMaps(cells, cells))
    np.testing.assert_array_equal(MaskFolder(tmp_path).read_cells("own"), cells)
    cells[15:20, 20:25] = 2
    png(tmp_path / "other.png", np.uint8(cells))
    np.testing.assert_array_equal(MaskFolder(tmp_path).read_cells("other"), cells)


class Malice:
    def __reduce__(self):
        return warnings.warn, ("code of the file was run",)


def packed_bomb(path):
    """A tif of deflate whose strip unpacks to 100 MB."""
    strip = zlib.compress(bytes(100_000_000), 9)
    tifffile.imwrite(path, np.zeros(SHAPE, np.int32), compression="zlib")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        for name, value in (("StripOffsets", len(data)), ("StripByteCounts", len(strip))):
            at, size = tags[name].valueoffset, tags[name].valuebytecount
            data[at : at + size] = value.to_bytes(size, "little")
    path.write_bytes(bytes(data) + strip)


def saved(array):
    return lambda path: np.save(path, array, allow_pickle=True)


def drawn(kind, mode="L"):
    return lambda path: Image.fromarray(np.uint8(EXPECTED)).convert(mode).save(path, kind)


def put(content):
    return lambda path: path.write_bytes(content)


REFUSED = {
    "colours": ("a.png", lambda p: png(p, np.dstack([BINARY * 2, BINARY, BINARY])), r"8 \(24, 40, 3\)"),
    "a palette": ("a.png", drawn("png", "P"), "a palette; save it as a grey png"),
    "a jpg": ("a.png", drawn("jpeg"), "is a jpg, which changes the numbers"),
    "a gif": ("a.png", drawn("gif"), "is a GIF"),
    "a jpg by name": ("a.jpg", put(b""), r"none of ID a, but a\.jpg; expected ID\.npz"),
    "outlines": ("a_outlines.png", put(b""), r"but a_outlines\.png"),
    "fractions": ("a.npy", saved(EXPECTED * 0.5), r"holds 0\.5; expected whole numbers \(H, W\)"),
    "no numbers": ("a.npy", saved(np.full(SHAPE, np.nan)), "holds nan; expected whole numbers"),
    "negative numbers": ("a.tif", lambda p: tif()(p, -EXPECTED.astype(np.int16)), "holds -3; expected 0"),
    "a stack": ("a.npy", saved(np.zeros((5, *SHAPE), bool)), r"bool \(5, 24, 40\); expected whole"),
    "a large stack": ("a.npy", saved(np.zeros((99, *SHAPE), bool)), r"bool \(99, 24, 40\); expected"),
    "two planes": ("a.npy", saved(np.zeros((*SHAPE, 2), np.uint8)), r"\(24, 40, 2\); expected whole"),
    "complex numbers": ("a.npy", saved(np.complex64(EXPECTED)), "complex64"),
    "another size": ("a.tif", lambda p: tif()(p, EXPECTED.T), "is 40 x 24 pixels, its field 24 x 40"),
    "another size in an npy": ("a.npy", saved(EXPECTED.T), "is 40 x 24 pixels, its field 24 x 40"),
    "two pages": ("a.tif", lambda p: tif(photometric="minisblack")(p, np.zeros((2, *SHAPE), int)), "2 pages"),
    "wide numbers packed": ("a.tif", lambda p: tif(compression="lzma")(p, EXPECTED), "int64 with LZMA comp"),
    "a bomb": ("a.tif", packed_bomb, "unpacks to more than its pixels"),
    "a cut npy": ("a.npy", put(b"\x93NUMPY\1\0"), "cannot be read"),
    "objects": ("a.npy", saved({"masks": EXPECTED}), "save the masks alone"),
    "cellpose's settings": ("a_seg.npy", saved(Malice()), r"but a_seg\.npy; expected .*pickled"),
    "a pickle": ("a.npy", put(pickle.dumps(Malice())), "cannot be read"),
    "two unnamed": ("a.npz", lambda p: np.savez(p, EXPECTED, EXPECTED), "no cells, but arr_0, arr_1;"),
    "another name": ("a.npz", lambda p: np.savez(p, masks=EXPECTED), "no cells, but masks; expected"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_label_map_is_one_line_that_says_what_it_is(tmp_path, name):
    file, write, why = REFUSED[name]
    write(tmp_path / file)
    with pytest.raises(InputError, match=why) as caught:
        read_label_maps(tmp_path, "a", FIELD)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["another size", "a cut npy", "objects", "two unnamed", "a palette", "a bomb"]
)
def test_what_is_no_label_map_in_an_archive_is_said_with_both_names(tmp_path, name):
    file, write, why = REFUSED[name]
    write(tmp_path / file)
    packed(tmp_path)
    with pytest.raises(InputError, match=why) as caught:
        read_label_maps(tmp_path, "a", FIELD)
    assert f"{tmp_path / 'some.zip'}/{file}" in str(caught.value) and "\n" not in str(caught.value)


def test_archives_that_hold_no_label_map_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "a_red.jpg").write_text("")
    packed(tmp_path)
    with pytest.raises(InputError, match=r"holds no label map, but a_red\.jpg, notes\.txt; expected ID\.npz"):
        MaskFolder(tmp_path).check()


def test_files_of_other_fields_are_not_taken_for_ones_own(tmp_path):
    for name in ("a1.npz", "a_b.npz", "a_red.png", "b_a.npz", "aa_seg.npy"):
        (tmp_path / name).write_bytes(b"")
    folder = MaskFolder(tmp_path)
    assert not folder.has("a") and folder.find("a") is None
    assert folder.has("a_b")


@pytest.fixture
def fields(tmp_path, draw_field):
    """Two fields on disk, of two cells each."""
    (tmp_path / "images").mkdir()
    for id in ("f", "g"):
        field = draw_field((96, 160), [(0.5, 0.25), (0.5, 0.75)])
        for channel, plane in zip(("red", "green", "blue", "yellow"), field, strict=True):
            png(tmp_path / "images" / f"{id}_{channel}.png", plane)
    (tmp_path / "masks").mkdir()
    return tmp_path


def found(fields, ids=("f", "g")):
    made = {}
    for id, result in load_or_segment(ids, fields / "images", ClassicalSegmenter(), fields / "masks"):
        assert not isinstance(result, Failure)
        made[id] = (int(result.maps.cells.max()), result.made)
    return made


def test_how_many_pieces_became_cells_is_said_once_for_the_folder(fields, caplog):
    mask = np.zeros((96, 160), np.uint8)
    mask[10:20, 10:20] = mask[30:40, 30:40] = mask[50:60, 100:120] = 255
    for id in ("f", "g"):
        png(fields / "masks" / f"{id}.png", mask)
    with caplog.at_level(logging.WARNING):
        assert found(fields) == {"f": (3, False), "g": (3, False)}
    assert caplog.messages == [
        f"masks: 2 files of {fields / 'masks'} hold one value alone, in 6 pieces: each piece became a cell; "
        "expected whole numbers (H, W), that of its cell in each pixel, 0 where there is none"
    ]
    caplog.clear()
    mask[50:60, 100:120] = 2
    for id in ("f", "g"):
        png(fields / "masks" / f"{id}.png", mask)
    assert found(fields) == {"f": (2, False), "g": (2, False)} and not caplog.messages


def test_what_lies_in_a_label_maps_place_is_said_and_the_cells_are_found(fields, caplog):
    png(fields / "masks" / "g.png", np.zeros((96, 160), np.uint8))
    (fields / "masks" / "f_seg.npy").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert found(fields)["f"][1]
    assert f"{fields / 'masks'} has none of ID f, but f_seg.npy" in caplog.messages[0]
    assert caplog.messages[0].endswith("its cells are found again")


def test_a_folder_without_any_label_map_is_refused_and_an_empty_one_is_not(fields):
    assert found(fields) == {"f": (2, True), "g": (2, True)}
    for name in ("f_seg.npy", "f.jpg", "notes.txt", ".hidden.npz"):
        (fields / "masks" / name).write_bytes(b"")
    with pytest.raises(
        InputError, match=r"holds no label map, but f\.jpg, f_seg\.npy and 1 more; expected ID\.npz"
    ):
        found(fields)


def test_several_files_of_a_field_are_said_and_npz_counts(fields, caplog):
    cells = np.zeros((96, 160), np.uint8)
    cells[10:20, 10:20], cells[30:40, 30:40] = 1, 2
    for name, array in (("f.png", cells * 0), ("f_cp_masks.png", cells * 0)):
        png(fields / "masks" / name, array)
    np.savez(fields / "masks" / "f.npz", cells=cells)
    with caplog.at_level(logging.WARNING):
        assert found(fields, ["f"]) == {"f": (2, False)}
    several = "several label maps of 1 fields, such as f.npz, f.png and 1 more, of which f.npz counts"
    assert caplog.messages == [f"masks: {fields / 'masks'} holds {several}"]


def test_masks_of_other_tools_have_their_three_cells(shared, tmp_path):
    field = np.zeros((4, 64, 64), np.uint8)
    for path in (shared / "inputs" / "masks").iterdir():
        if not path.name.startswith("tiny"):
            name = "f_cp_masks" if "cp_masks" in path.name else "f"
            folder = tmp_path / path.name
            folder.mkdir()
            (folder / f"{name}{path.suffix}").write_bytes(path.read_bytes())
            assert read_label_maps(folder, "f", field).cells.max() == 3, path.name


def test_real_label_maps_by_the_name_of_their_tool(real):
    cells = MaskFolder(real / "masks").read_cells("383_D2_1")
    assert 8 <= cells.max() <= 46 and cells.shape == (2048, 2048)
