"""Batches of fields with their image labels, in an order and with changes that seed and epoch decide."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hpa_kit.training.augment import Augmentation
from hpa_kit.training.store import FieldStore

Row = tuple[NDArray[np.uint8], NDArray[np.float32], int]


class Batch(NamedTuple):
    """Fields uint8 (B, 4, S, S), their labels float32 (B, 19), and their numbers in the store int64 (B,)."""

    fields: Tensor
    targets: Tensor
    numbers: Tensor

    def pin_memory(self) -> "Batch":
        return Batch(*(tensor.pin_memory() for tensor in self))

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Draw(NamedTuple):
    """One field of an epoch; the seed that decides how it is changed goes with it, whoever reads it."""

    number: int
    seed: tuple[int, ...]


class FieldDataset(Dataset[Row]):
    """Fields and labels by :class:`Draw`.

    Args:
        store: all fields.
        targets: float32 (fields of the store, 19).
        augmentation: how they are changed.
    """

    def __init__(self, store: FieldStore, targets: NDArray[np.float32], augmentation: Augmentation) -> None:
        self.store, self.targets, self.augmentation = store, targets, augmentation

    def __getitem__(self, draw: Draw) -> Row:
        image = self.augmentation(self.store[draw.number], draw.seed)
        return image, self.targets[draw.number], draw.number


class EpochBatches(Sampler[list[Draw]]):
    """The batches of an epoch: every field once, shuffled by seed and epoch, none left out.

    A last batch of a single field joins the one before: batch norm cannot learn from one value.

    Args:
        numbers: fields in the store.
        batch: fields per step.
        seed: of the run; None keeps the order, and every draw, the same in all epochs.
    """

    def __init__(self, numbers: NDArray[np.int64], batch: int, seed: int | None) -> None:
        self.numbers, self.seed = numbers, seed
        starts = list(range(0, len(numbers), batch))
        if batch > 1 and len(starts) > 1 and starts[-1] == len(numbers) - 1:
            starts.pop()
        self.starts = starts
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[list[Draw]]:
        order, seed = self.numbers, () if self.seed is None else (self.seed, self.epoch)
        if seed:
            order = np.random.default_rng(seed).permutation(order)
        for start, end in zip(self.starts, [*self.starts[1:], len(order)], strict=True):
            yield [Draw(int(number), (*seed, int(number))) for number in order[start:end]]


class Loader:
    """Gives the batches of any epoch, on the device.

    Args:
        dataset: where the fields come from.
        batches: which fields make up a batch.
        workers: processes that read; 0 reads in this one.
        device: where the batches go.
    """

    def __init__(
        self, dataset: FieldDataset, batches: EpochBatches, workers: int, device: torch.device
    ) -> None:
        self.batches, self.device = batches, device
        self._loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=_stack,
            num_workers=workers,
            worker_init_fn=_start_worker,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch; the same number gives the same batches."""
        self.batches.epoch = epoch
        for batch in self._loader:
            moved = batch.to(self.device)
            if self.device.type == "cuda":
                moved = moved._replace(fields=moved.fields.contiguous(memory_format=torch.channels_last))
            yield moved


def _stack(rows: list[Row]) -> Batch:
    images, targets, numbers = zip(*rows, strict=True)
    # Channels before pixels as CPUs like it; moving bytes here is cheap beside the network.
    fields = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Batch(fields, torch.from_numpy(np.stack(targets)), torch.tensor(numbers))


def _start_worker(_: int) -> None:
    # Each worker has a processor to itself at best; torch limits its own threads there.
    cv2.setNumThreads(0)
