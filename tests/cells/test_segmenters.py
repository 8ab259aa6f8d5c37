"""Segmenters by name, and fields with label maps that are kept or made."""

import logging
import threading
from itertools import islice

import cv2
import numpy as np
import pytest

from hpa_kit.cells import LabelMaps, load_or_segment, segmenter, segmenters, write_label_maps
from hpa_kit.cells.segmenters import FieldCells
from hpa_kit.data import CHANNELS
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure

BAD = 77


class Windows:
    """Segments bright fields as one cell, four fields at a time; cannot stand the number 77."""

    name = "windows"
    settings = {"segmenter": "windows"}  # noqa: RUF012

    def __init__(self):
        self.alone = self.streamed = 0

    def __call__(self, field):
        self.alone += 1
        return self.find(field)

    def find(self, field):
        if (field == BAD).any():
            raise ZeroDivisionError("a number it cannot stand")
        return (np.full(field.shape[1:], int(field[0, 0, 0]), np.int32),) * 2

    def stream(self, fields):
        remaining = iter(fields)
        while window := list(islice(remaining, 4)):
            self.streamed += len(window)
            yield from [self.find(field) for field in window]


@pytest.fixture
def folders(tmp_path):
    """Makes fields of a number each; those named get label maps of 99."""

    def make(numbers, with_maps=()):
        images, masks = tmp_path / "images", tmp_path / "masks"
        images.mkdir()
        masks.mkdir()
        for id, number in numbers.items():
            for channel in CHANNELS:
                cv2.imwrite(str(images / f"{id}_{channel}.png"), np.full((6, 8), number, np.uint8))
        for id in with_maps:
            one = np.ones((6, 8), np.int32)
            write_label_maps(masks / f"{id}.npz", LabelMaps(one, one))
        return images, masks

    return make


def summary(results):
    return {
        id: "failed" if isinstance(found, Failure) else ("made" if found.made else "kept")
        for id, found in results
    }


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_fields_come_in_order_kept_made_or_failed(folders, workers):
    numbers = {f"f{k:02d}": k + 1 for k in range(30)} | {"f09": BAD}
    images, masks = folders(numbers, with_maps=[f"f{k:02d}" for k in range(0, 30, 3)])
    (images / "f04_blue.png").unlink()
    (masks / "f06.npz").write_bytes(b"")
    ids = [*sorted(numbers), "gone"]
    results = list(load_or_segment(ids, images, Windows(), masks, workers))
    assert [id for id, _ in results] == ids
    expected = {id: "kept" if k % 3 == 0 else "made" for k, id in enumerate(sorted(numbers))}
    assert summary(results) == expected | {"f04": "failed", "f06": "made", "gone": "failed"}
    for id, found in results:
        if isinstance(found, FieldCells):
            assert (found.field == numbers[id]).all()
            assert (found.maps.cells == (numbers[id] if found.made else 1)).all()


def test_a_field_on_which_the_segmenter_fails_costs_no_other_its_cells(folders):
    numbers = {f"f{k:02d}": BAD if k in (2, 3, 9) else 5 for k in range(14)}
    images, _ = folders(numbers)
    found = dict(load_or_segment(list(numbers), images, Windows()))
    assert {id for id, result in found.items() if isinstance(result, Failure)} == {"f02", "f03", "f09"}
    assert "a number it cannot stand" in found["f02"].reason
    assert all((found[id].maps.cells == 5).all() for id, number in numbers.items() if number == 5)


def test_what_is_kept_is_not_segmented_again(folders):
    numbers = {f"f{k}": 5 for k in range(9)}
    images, masks = folders(numbers, with_maps=numbers)
    finder = Windows()
    assert set(summary(load_or_segment(list(numbers), images, finder, masks)).values()) == {"kept"}
    assert finder.alone == finder.streamed == 0


def test_fields_go_through_the_stream_and_not_one_by_one(folders):
    numbers = {f"f{k}": 5 for k in range(9)}
    images, _ = folders(numbers)
    finder = Windows()
    assert len(list(load_or_segment(list(numbers), images, finder))) == 9
    assert (finder.streamed, finder.alone) == (9, 0)


@pytest.mark.parametrize("kind", ["kept", "made", "unreadable"])
def test_many_fields_do_not_pile_up(folders, monkeypatch, kind):
    images, masks = folders({"one": 5}, with_maps=["one"])
    read = []

    def count(folder, id, needed):
        read.append(id)
        if kind == "unreadable":
            raise InputError("no")
        return np.full((4, 6, 8), 5, np.uint8)

    monkeypatch.setattr(segmenters, "read_field", count)
    results = load_or_segment(["one"] * 200, images, Windows(), masks if kind == "kept" else None)
    first = next(results)
    assert len(read) <= 16
    expected = "failed" if kind == "unreadable" else kind
    assert set(summary([first, *results]).values()) == {expected}
    assert len(read) == 200


def test_a_field_that_needs_no_segmenter_waits_for_no_other(folders, monkeypatch, patience):
    numbers = {f"f{k}": 5 for k in range(6)}
    images, masks = folders(numbers, with_maps=numbers)
    taken, read = threading.Event(), segmenters.read_field

    def late(folder, id, needed):
        if id != "f0" and not taken.wait(patience):
            raise InputError("the first field waited for this one")
        return read(folder, id, needed=needed)

    monkeypatch.setattr(segmenters, "read_field", late)
    results = load_or_segment(list(numbers), images, Windows(), masks)
    assert next(results)[0] == "f0"
    taken.set()
    assert set(summary(results).values()) == {"kept"}


def test_a_field_without_cells_is_named(folders, caplog):
    images, _ = folders({"dark": 0, "bright": 9})
    with caplog.at_level(logging.WARNING):
        list(load_or_segment(["dark", "bright"], images, Windows()))
    assert [record.message for record in caplog.records] == ["cells: windows finds no cell in field dark"]


def test_a_masks_folder_that_is_none_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        load_or_segment([], tmp_path, Windows(), tmp_path / "gone")


def test_auto_without_weights_is_classical_and_says_so(caplog):
    with caplog.at_level(logging.INFO):
        assert segmenter().name == "classical"
    assert "classical (no weights given)" in caplog.text


def test_segmenters_that_need_weights_say_so_and_unknown_names_the_nearest(tmp_path):
    for name in ("published", "hpacellseg"):
        with pytest.raises(InputError, match=f"{name} needs the folder"):
            segmenter(name)
    with pytest.raises(InputError, match="did you mean 'classical'"):
        segmenter("clasical")
    with pytest.raises(InputError, match=str(tmp_path)):
        segmenter("auto", weights=tmp_path)


def test_a_device_that_is_not_there_is_refused_where_it_is_needed(tmp_path):
    assert segmenter("classical", device="cuda:7").name == "classical"
    with pytest.raises(InputError, match="device"):
        segmenter("published", tmp_path, device="abacus")


def test_classical_gives_the_same_pairs_with_any_number_of_threads(draw_field):
    fields = [draw_field((64, 96 + 8 * k), [(0.5, 0.5)], seed=k) for k in range(5)]
    one, three = (list(segmenter("classical", workers=n).stream(iter(fields))) for n in (1, 3))
    for left, right in zip(one, three, strict=True):
        np.testing.assert_array_equal(left[1], right[1])
