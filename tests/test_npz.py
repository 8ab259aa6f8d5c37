"""Arrays in files: whole or not there, and known by what they hold."""

import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from hpa_kit.cells import LabelMaps, write_label_maps
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path
from hpa_kit.npz import foreign_arrays, read_npz, write_npz
from hpa_kit.training.features_file import Features, write_features

LARGE = np.random.default_rng(0).integers(0, 2**31, (200, 200), dtype=np.int32)


@contextmanager
def room_for(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _write_features(path):
    ids = [str(number) for number in range(len(LARGE))]
    write_features(path, Features(ids, LARGE.astype(np.float32), "of a network"))


def _write_packed(path):
    with atomic_path(path) as temporary:
        write_npz(temporary, {"numbers": LARGE}, 6)


WRITERS = [_write_features, _write_packed, lambda path: write_label_maps(path, LabelMaps(LARGE, LARGE))]


@pytest.mark.parametrize("write", WRITERS, ids=["features", "packed", "label maps"])
@pytest.mark.parametrize("room", [1, 5_000, 120_000])
def test_a_full_disk_is_told_once_and_python_has_nothing_to_add(tmp_path, monkeypatch, write, room):
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    with pytest.raises(InputError, match=r"arrays\.npz cannot be written: .*; make room"), room_for(room):
        write(tmp_path / "arrays.npz")
    gc.collect()
    assert not ignored and not list(tmp_path.iterdir())


@pytest.mark.parametrize("level", [0, 6])
def test_what_is_written_is_read_back_by_the_kit_and_by_numpy(tmp_path, level):
    arrays = {"numbers": LARGE[:, ::2], "text": np.array(["a", "é"]), "one": np.array("x")}
    write_npz(tmp_path / "a.npz", arrays, level)
    own = read_npz(tmp_path / "a.npz", tuple(arrays), 2**20)
    with np.load(tmp_path / "a.npz") as others:
        for name, array in arrays.items():
            assert np.array_equal(own[name], array) and np.array_equal(others[name], array)


def test_files_of_others_are_told_from_ones_own_and_from_damaged_ones(tmp_path):
    path = tmp_path / "a.npz"
    assert foreign_arrays(path, "numbers") == []
    np.savez(path, cells=LARGE, nuclei=LARGE)
    assert foreign_arrays(path, "numbers") == ["cells", "nuclei"]
    assert foreign_arrays(path, "cells") == []
    path.write_bytes(path.read_bytes()[:1000])
    assert foreign_arrays(path, "numbers") == []
    np.savez(path)
    assert foreign_arrays(path, "numbers") == ["nothing"]
