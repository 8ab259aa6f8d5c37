import json
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hpa_kit.cells import LabelMaps, MaskFolder, read_label_maps, write_label_maps
from hpa_kit.cells.label_maps import label_map_info
from hpa_kit.errors import InputError

FIELD = np.zeros((4, 30, 50), np.uint8)


def maps(n=3):
    cells = np.zeros((30, 50), np.int32)
    cells.flat[: 5 * n] = np.repeat(np.arange(1, n + 1), 5)
    nuclei = np.where(np.arange(1500).reshape(30, 50) % 5 == 2, cells, 0)
    return LabelMaps(nuclei, cells)


@pytest.mark.parametrize("n", [0, 3, 255, 256, 300])
def test_label_maps_come_back_as_they_were(tmp_path, n):
    write_label_maps(tmp_path / "a.npz", maps(n), {"segmenter": "classical"})
    found = read_label_maps(tmp_path, "a", FIELD)
    for one, two in zip(found, maps(n), strict=True):
        assert one.dtype == np.int32
        np.testing.assert_array_equal(one, two)
    assert label_map_info(tmp_path / "a.npz") == (1, n, (30, 50), {"segmenter": "classical"}, None)


def test_more_than_65535_cells_come_back(tmp_path):
    cells = np.arange(1, 300 * 300 + 1, dtype=np.int32).reshape(300, 300)
    write_label_maps(tmp_path / "a.npz", LabelMaps(cells, cells))
    np.testing.assert_array_equal(
        read_label_maps(tmp_path, "a", np.zeros((4, 300, 300), np.uint8)).cells, cells
    )


def test_the_file_is_plain_numpy_in_the_smallest_type(tmp_path):
    write_label_maps(tmp_path / "a.npz", maps(3))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["cells"].dtype == arrays["nuclei"].dtype == np.uint8
        assert json.loads(str(arrays["info"][()]))["n_cells"] == 3


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64, np.uint64])
def test_files_of_others_are_read_and_their_gaps_closed(tmp_path, dtype):
    cells = maps(1).cells if dtype is bool else maps(3).cells * 40
    np.savez(tmp_path / "a.npz", cells=np.asfortranarray(cells.astype(dtype)), nuclei=cells.astype(dtype))
    np.testing.assert_array_equal(
        read_label_maps(tmp_path, "a", FIELD).cells, maps(1 if dtype is bool else 3).cells
    )


def test_nuclei_take_the_number_of_the_cell_they_lie_in(tmp_path):
    cells = np.array([[2, 2, 0, 7, 7, 9]], np.uint8)
    nuclei = np.array([[5, 0, 5, 5, 1, 0]], np.uint8)
    np.savez(tmp_path / "a.npz", cells=cells, nuclei=nuclei)
    found = read_label_maps(tmp_path, "a", np.zeros((4, 1, 6), np.uint8))
    assert found.cells.tolist() == [[1, 1, 0, 2, 2, 3]]
    assert found.nuclei.tolist() == [[1, 0, 0, 2, 2, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_holds_cells_and_the_blue_channel_gives_their_nuclei(tmp_path, draw_field, dtype):
    field = draw_field((200, 300), [(0.3, 0.3), (0.6, 0.75)])
    cells = np.zeros((200, 300), dtype)
    cells[20:100, 50:130], cells[80:160, 190:270], cells[180:190, 10:20] = 3, 250, 7
    cv2.imwrite(str(tmp_path / "a.png"), cells)
    found = read_label_maps(tmp_path, "a", field)
    assert (found.cells[60, 90], found.cells[185, 15]) == (1, 2)
    assert found.nuclei[60, 90] == 1
    assert found.nuclei[120, 225] == found.cells[120, 225] == 3
    assert (found.nuclei[found.nuclei > 0] == found.cells[found.nuclei > 0]).all()
    assert 2 not in found.nuclei  # a cell without nucleus keeps none
    assert (found.nuclei > 0).sum() < (found.cells > 0).sum() / 2


def test_npz_is_looked_for_first_and_ids_with_dots_are_whole(tmp_path):
    assert not MaskFolder(tmp_path).has("a.b")
    cv2.imwrite(str(tmp_path / "a.b.png"), np.zeros((30, 50), np.uint8))
    assert MaskFolder(tmp_path).has("a.b")
    write_label_maps(tmp_path / "a.b.npz", maps(3))
    assert read_label_maps(tmp_path, "a.b", FIELD).cells.max() == 3


def write_bad(kind, path):
    whole = path.with_name("whole.npz")
    write_label_maps(whole, maps(3))
    content = whole.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "damaged":
        middle = len(content) // 3
        path.write_bytes(content[:middle] + bytes(40) + content[middle + 40 :])
    elif kind == "text":
        path.write_bytes(b"not a label map")
    elif kind == "no cells":
        np.savez(path, masks=maps(3).cells)
    elif kind == "floats":
        np.savez(path, cells=maps(3).cells * 0.5)
    elif kind == "stack":
        np.savez(path, cells=np.zeros((3, 30, 50), np.uint8))
    elif kind == "negative":
        np.savez(path, cells=-maps(3).cells)
    elif kind == "pickle":
        np.savez(path, cells=np.array([{}], dtype=object))
    elif kind == "other size":
        np.savez(path, cells=np.zeros((50, 30), np.uint8))
    elif kind == "nuclei of another size":
        np.savez(path, cells=maps(3).cells, nuclei=np.zeros((15, 25), np.uint8))


@pytest.mark.parametrize(
    "kind",
    [
        *("empty", "truncated", "damaged", "text", "no cells", "floats", "stack", "negative", "pickle"),
        *("other size", "nuclei of another size"),
    ],
)
def test_a_bad_npz_is_one_error_that_names_the_file(tmp_path, kind):
    write_bad(kind, tmp_path / "bad.npz")
    with pytest.raises(InputError, match=r"bad\.npz") as error:
        read_label_maps(tmp_path, "bad", FIELD)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "colour", "jpg", "other size"])
def test_a_bad_png_is_one_error_that_names_the_file(tmp_path, kind):
    shape = {"colour": (30, 50, 3), "other size": (50, 30)}.get(kind, (30, 50))
    image = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint8)
    content = cv2.imencode(".jpg" if kind == "jpg" else ".png", image)[1].tobytes()
    content = {"empty": b"", "truncated": content[:200], "text": b"no image at all, only words"}.get(
        kind, content
    )
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.png"):
        read_label_maps(tmp_path, "bad", FIELD)


def test_cells_alone_bear_the_numbers_that_they_bear_with_their_nuclei(tmp_path):
    gaps = maps(3).cells * 40
    np.savez(tmp_path / "a.npz", cells=gaps)
    cv2.imwrite(str(tmp_path / "b.png"), gaps.astype(np.uint8))
    for id in ("a", "b"):
        found = MaskFolder(tmp_path).read_cells(id)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, read_label_maps(tmp_path, id, FIELD).cells)
    with pytest.raises(InputError, match=r"c\.npz is missing"):
        MaskFolder(tmp_path).read_cells("c")


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="hpa-kit segment"):
        read_label_maps(tmp_path, "a", FIELD)


def test_what_is_no_pair_of_label_maps_is_not_written(tmp_path):
    good = maps(3).cells
    for bad in (LabelMaps(good, good.T), LabelMaps(good, -good), LabelMaps(good.astype(float), good)):
        with pytest.raises(ValueError, match="label maps"):
            write_label_maps(tmp_path / "a.npz", bad)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 300)))
def test_any_cells_come_back_numbered_by_rank(tmp_path, cells):
    write_label_maps(tmp_path / "f.npz", LabelMaps(cells, cells))
    ranks = {number: rank for rank, number in enumerate(sorted({0, *cells.ravel().tolist()}))}
    field = np.zeros((4, *cells.shape), np.uint8)
    nuclei, found = read_label_maps(tmp_path, "f", field)
    assert found.tolist() == nuclei.tolist() == [[ranks[number] for number in row] for row in cells.tolist()]
    assert MaskFolder(tmp_path).read_cells("f").tolist() == found.tolist()
    assert label_map_info(tmp_path / "f.npz").shape == cells.shape


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.integers(0, 400))
def test_a_file_with_any_bytes_changed_is_read_or_refused(tmp_path, noise, at):
    write_label_maps(tmp_path / "f.npz", LabelMaps(*[np.eye(4, dtype=np.int32)] * 2))
    whole = (tmp_path / "f.npz").read_bytes()
    (tmp_path / "f.npz").write_bytes(whole[:at] + noise + whole[at + len(noise) :])
    with suppress(InputError):
        assert MaskFolder(tmp_path).read_cells("f").ndim == 2
