"""Runs that end early, and whether two runs came to the same."""

import csv
import shutil
from tempfile import TemporaryDirectory

import torch

from hpa_kit.training import read_checkpoint


class CutOffError(Exception):
    """Stands for a process that ends."""


def metrics(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_run(one, other):
    assert metrics(one) == metrics(other)
    for name in ("best.safetensors", "last.safetensors"):
        left, right = read_checkpoint(one / name).state, read_checkpoint(other / name).state
        assert left.keys() == right.keys()
        assert left["metrics"] == right["metrics"] and left["epoch"] == right["epoch"]
        for part in {"model", "ema", "swa"} & left.keys():
            assert all(torch.equal(left[part][key], right[part][key]) for key in left[part])


def events_of(run):
    """What TensorBoard shows of a run, its files in the order in which they were written.

    Their names end in a number, which it sorts as text: sessions of one second, which are none but in tests.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TemporaryDirectory() as folder:
        files = sorted(
            (run / "tensorboard").iterdir(), key=lambda path: [*map(int, path.name.split(".")[-2:])]
        )
        for place, path in enumerate(files):
            shutil.copy(path, f"{folder}/events.out.tfevents.{place:04}")
        events = EventAccumulator(folder)
        events.Reload()
        return events
