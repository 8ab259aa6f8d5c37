import base64
import json
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from hpa_kit.errors import InputError
from hpa_kit.submission import decode_mask, encode_label_map, encode_mask
from hpa_kit.submission.rle import mask_runs
from hpa_kit.submission.runs import overlaps


def usual(mask):
    """The competition's own way."""
    counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return base64.b64encode(zlib.compress(counts, 9)).decode()


def test_strings_are_those_of_the_reference(reference):
    expected = json.loads((reference / "rle" / "expected.json").read_text())
    with np.load(reference / "rle" / "label_maps.npz") as label_maps:
        for name, strings in expected.items():
            assert {str(k): v for k, v in encode_label_map(label_maps[name]).items()} == strings


LABEL_MAPS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 4))


@settings(deadline=None)
@given(LABEL_MAPS)
def test_each_cell_is_encoded_as_pycocotools_would(labels):
    found = encode_label_map(labels)
    assert list(found) == [k for k in np.unique(labels).tolist() if k]
    for cell, string in found.items():
        assert string == usual(labels == cell)
        assert (decode_mask(string, *labels.shape) == (labels == cell)).all()


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
)
def test_dtype_and_memory_order_do_not_matter(dtype):
    labels = (np.random.default_rng(0).random((30, 50)) > 0.6).astype(dtype)
    expected = {1: usual(labels.astype(bool))}
    big = np.zeros((60, 100), dtype)
    big[::2, ::2] = labels
    for view in (labels, np.asfortranarray(labels), labels.T.copy().T, big[::2, ::2], labels[::-1][::-1]):
        assert encode_label_map(view) == expected
        assert encode_mask(view) == expected[1]
    assert encode_label_map(labels.astype(labels.dtype.newbyteorder(">"))) == expected


def test_more_than_65535_cells_keep_their_numbers():
    labels = np.zeros((600, 240), np.int32)
    labels[::2] = np.arange(1, 300 * 240 + 1).reshape(300, 240)
    found = encode_label_map(labels)
    assert len(found) == 72000
    for cell in (1, 255, 256, 257, 65535, 65536, 72000):
        assert found[cell] == usual(labels == cell)


def test_gaps_and_huge_numbers_are_fine():
    labels = np.zeros((5, 7), np.int64)
    labels[1, 2], labels[4, 6] = 3, 2**62
    assert list(encode_label_map(labels)) == [3, 2**62]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (4, 6)])
def test_a_field_without_cells_has_no_strings(shape):
    assert encode_label_map(np.zeros(shape, np.int32)) == {}


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 2, 2), int), np.zeros(4, int), np.zeros((2, 2)), np.full((2, 2), -1), np.array(3)]
)
def test_what_is_no_label_map_is_refused(labels):
    with pytest.raises(InputError, match="label map"):
        encode_label_map(labels)


def test_the_samples_mask_is_an_empty_one():
    assert encode_mask(np.zeros((2048, 2048), bool)) == "eNoLCAgIMAEABJkBdQ=="
    assert not decode_mask("eNoLCAgIMAEABJkBdQ==", 2048, 2048).any()


def test_bytes_are_read_as_text_is():
    mask = np.eye(9, dtype=bool)
    assert (decode_mask(usual(mask).encode(), 9, 9) == mask).all()


def packed(counts):
    return base64.b64encode(zlib.compress(counts)).decode()


@pytest.mark.parametrize(
    ("string", "fault"),
    [
        ("????", "not base64"),
        ("é", "not base64"),
        ("eNo", "not base64"),
        ("aGVsbG8=", "not zlib"),
        (base64.b64encode(zlib.compress(b"T3")[:-4]).decode(), "break off"),
        (packed(b"\x00\x01"), "no run code"),
        (packed(b"o"), "middle of a number"),
        (packed(b"ooooooooooooooo0"), "absurd"),
        (packed(b"N2"), "negative"),
        (packed(b"T3T3"), "longer"),
        (packed(b"1"), "shorter"),
        (packed(b""), "shorter"),
        (packed(b"\x30" * 10**6), "longer"),
        (None, "NoneType"),
        (7, "int"),
    ],
)  # fmt: skip
def test_a_damaged_string_is_one_clear_error(string, fault):
    with pytest.raises(InputError, match=fault):
        decode_mask(string, 10, 10)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (2.0, 2), (True, 5), (10**6, 10**6)])
def test_a_size_that_no_field_has_is_refused(size):
    with pytest.raises(InputError, match="mask"):
        decode_mask(usual(np.ones((2, 2))), *size)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_never_crash(data):
    with suppress(InputError):
        assert decode_mask(packed(data), 6, 7).shape == (6, 7)


@settings(deadline=None)
@given(arrays(bool, (5, 6, 7)))
def test_overlaps_from_runs_are_those_of_pixels(masks):
    runs = [mask_runs([encode_mask(mask) for mask in side], 6, 7)[0] for side in (masks[:2], masks[2:])]
    for row, left in zip(overlaps(*runs), masks[:2], strict=True):
        for found, right in zip(row, masks[2:], strict=True):
            assert found == (left & right).sum() / max((left | right).sum(), 1)


def test_runs_of_no_length_are_read_as_pycocotools_reads_them():
    # 2 background, 3 foreground, 0 background, 4 foreground, 3 background: two runs that touch.
    counts = [2, 3, 0, 4, 3]
    written = "".join(chr(48 + (c & 31)) for c in [2, 3, 0, 4 - 3, 3 - 0]).encode()
    runs, faults = mask_runs([packed(written)], 3, 4)
    assert faults == [""]
    assert (runs.starts.tolist(), runs.ends.tolist()) == ([2], [9])
    expected = coco.decode({"size": [3, 4], "counts": written})
    assert (decode_mask(packed(written), 3, 4) == expected).all()
    assert sum(counts) == 12
