"""Fields in memory, augmentation and the order of an epoch."""

import sys
import warnings

import numpy as np
import pytest
import torch

from hpa_kit.data import FieldStore, read_field, resize_field, store
from hpa_kit.data.labelled import require_images
from hpa_kit.devices import available_bytes
from hpa_kit.errors import InputError
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.data import EpochBatches, FieldDataset, Loader, batch_size

CPU = torch.device("cpu")


def image(side=8):
    return np.random.default_rng(0).integers(0, 256, (side, side, 4), dtype=np.uint8)


def orientations(field):
    """The eight ways in which a square can lie."""
    turned = [np.rot90(field, k) for k in range(4)]
    return turned + [np.swapaxes(way, 0, 1) for way in turned]


def test_policy_1_shows_every_orientation_about_equally_often():
    augmentation, field = Augmentation(1), image()
    ways = [way.tobytes() for way in map(np.ascontiguousarray, orientations(field))]
    counts = dict.fromkeys(ways, 0)
    for seed in range(400):
        counts[augmentation(field, (7, seed)).tobytes()] += 1
    assert min(counts.values()) > 25


def test_the_same_seed_changes_a_field_in_the_same_way():
    field = image()
    first, second = Augmentation(1), Augmentation(1)
    first(field, (1,))
    for seed in range(20):
        assert np.array_equal(first(field, (3, seed)), second(field, (3, seed)))


def test_policy_0_changes_nothing_and_unknown_policies_are_refused():
    assert np.array_equal(Augmentation(0)(image(), (1, 2)), image())
    with pytest.raises(InputError, match="no policy 9"):
        Augmentation(9)


def test_four_channels_pass_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        changed = Augmentation(1)(image(), (1,))
    assert changed.shape == (8, 8, 4) and changed.dtype == np.uint8


def test_a_batch_has_each_field_with_its_channels_first():
    fields = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 4), dtype=np.uint8)
    dataset = FieldDataset(fields, np.zeros((3, 19), np.float32), Augmentation(0))
    (batch,) = Loader(dataset, EpochBatches(np.array([2, 0, 1]), 3, None), 0, CPU).epoch(1)
    assert batch.fields.is_contiguous() and batch.numbers.tolist() == [2, 0, 1]
    assert np.array_equal(batch.fields.numpy(), fields[[2, 0, 1]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("cache", [True, False])
def test_a_store_gives_resized_fields_channels_last(competition, cache):
    ids = ["000e1", "0012e1"]
    fields = FieldStore(competition / "train", ids, 32, cache)
    assert (len(fields), fields.in_memory) == (2, cache)
    for number, id in enumerate(ids):
        expected = resize_field(read_field(competition / "train", id), 32)
        assert np.array_equal(fields[number].transpose(2, 0, 1), expected)


def test_fields_that_do_not_fit_are_decoded_anew_and_it_is_said(competition, monkeypatch):
    monkeypatch.setattr(store, "available_bytes", lambda: 4096)
    with pytest.warns(UserWarning, match="decoded anew"):
        fields = FieldStore(competition / "train", ["000e1"], 32)
    assert not fields.in_memory


def test_free_memory_is_known():
    assert 10**6 < available_bytes() < 10**14


def test_missing_channels_are_found_before_anything_is_read(competition):
    ids = ["000e1", "gone", "999"]
    with pytest.raises(InputError, match=r"2 of 3 labelled fields.*ID gone \(red, green, blue, yellow\)"):
        require_images(competition / "train", ids)
    require_images(competition / "train", ids[:1])


def test_a_damaged_field_names_its_id(tmp_path):
    for channel in ("red", "green", "blue", "yellow"):
        (tmp_path / f"bad_{channel}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 of 1 fields cannot be read: ID bad;.*red of ID bad.*0 bytes"):
        FieldStore(tmp_path, ["bad"], 32)


@pytest.mark.parametrize(
    ("n", "batch", "sizes"), [(7, 3, [3, 4]), (8, 3, [3, 3, 2]), (2, 1, [1, 1]), (1, 4, [1])]
)
def test_every_field_comes_once_and_no_batch_of_one_is_left_over(n, batch, sizes):
    batches = EpochBatches(np.arange(10, 10 + n), batch, seed=1)
    drawn = list(batches)
    assert len(batches) == len(sizes)
    assert [len(draws) for draws in drawn] == sizes
    assert sorted(draw.number for draws in drawn for draw in draws) == list(range(10, 10 + n))


def test_order_and_seeds_hang_on_run_and_epoch_alone():
    def epoch(seed, number):
        batches = EpochBatches(np.arange(20), 4, seed)
        batches.epoch = number
        return list(batches)

    assert epoch(1, 5) == epoch(1, 5)
    assert epoch(1, 5) != epoch(1, 6) and epoch(1, 5) != epoch(2, 5)
    assert epoch(None, 1) == epoch(None, 2)
    assert len({draw.seed for number in (1, 2) for draws in epoch(1, number) for draw in draws}) == 40


def test_workers_give_the_same_batches_as_none(competition):
    ids = [f"00{number}e1" for number in range(5)]
    fields = FieldStore(competition / "train", ids, 32)
    targets = np.eye(5, 19, dtype=np.float32)

    def read(workers):
        dataset = FieldDataset(fields, targets, Augmentation(1))
        loader = Loader(dataset, EpochBatches(np.arange(5), 2, seed=3), workers, CPU)
        return [batch for epoch in (1, 2) for batch in loader.epoch(epoch)]

    here, there = read(0), read(2)
    assert [tuple(batch.fields.shape) for batch in here[:2]] == [(2, 4, 32, 32), (3, 4, 32, 32)]
    for one, other in zip(here, there, strict=True):
        assert all(map(torch.equal, one[:3], other[:3]))
        assert torch.equal(one.targets, torch.from_numpy(targets)[one.numbers])


def test_albumentations_is_told_not_to_ask_for_updates():
    import os

    assert "albumentations" in sys.modules
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


@pytest.mark.parametrize(
    ("fields", "epochs", "batch"),
    [(30, 25, 8), (320, 10, 8), (1000, 10, 12), (1000, 25, 31), (17445, 25, 40)],
)
def test_a_small_set_gets_small_batches_and_so_enough_steps(settings, fields, epochs, batch):
    assert batch_size(settings(batch=None, epochs=epochs), fields) == batch
