"""Batches of fields with their image labels, in an order and with changes that seed and epoch decide."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hpa_kit.data import FieldStore
from hpa_kit.errors import InputError
from hpa_kit.training.augmentation import Augmentation

# Batches that each worker has ready: fields that are decoded anew take unequal times.
_READ_AHEAD = 4

Row = tuple[NDArray[np.uint8], NDArray[Any], int]


class Batch(NamedTuple):
    """Fields uint8 (B, 4, S, S), what they show, and their numbers in the store int64 (B,).

    What they show is image labels float32 (B, 19) or, for stage 2, maps uint8 (B, 20, S, S).
    """

    fields: Tensor
    targets: Tensor
    numbers: Tensor

    def pin_memory(self) -> "Batch":
        """A copy in memory that a GPU reads by itself; torch's loader calls this."""
        return Batch(*(tensor.pin_memory() for tensor in self))

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
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

    With weights an epoch is as long, but its fields are drawn with replacement, as often as the weights say.

    A last batch of a single field joins the one before: batch norm cannot learn from one value. So does one
    that would leave a process of several without a field.

    Args:
        numbers: fields in the store.
        batch: fields per step, of all processes together.
        seed: of the run; None keeps the order, and every draw, the same in all epochs.
        rank: of this process, which gets its share of every batch.
        world: processes that train together.
        weights: how often each field is drawn, float (fields,), sum 1; None draws each once.

    Attributes:
        epoch: which epoch comes next; ``first``: the batch that it begins with, others being done already.
    """

    def __init__(
        self,
        numbers: NDArray[np.int64],
        batch: int,
        seed: int | None,
        rank: int = 0,
        world: int = 1,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        if min(batch, len(numbers)) < world:
            raise InputError(
                f"train: {len(numbers)} fields in batches of {batch} cannot be shared by {world} processes; "
                "each needs one field a step or more"
            )
        self.numbers, self.seed, self.rank, self.world = numbers, seed, rank, world
        # Normed anew: NumPy wants a sum of 1 more exactly than a part of normed weights has it.
        self.weights = None if weights is None else weights / weights.sum()
        starts = list(range(0, len(numbers), batch))
        if batch > 1 and len(starts) > 1 and len(numbers) - starts[-1] < max(2, world):
            starts.pop()
        self.starts = starts
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> list[int]:
        """Fields of each batch, of all processes together."""
        return [end - start for start, end in self._bounds()]

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = self._draws()
        for start, end in self._bounds()[self.first :]:
            yield draws[start:end][self.rank :: self.world]

    def _draws(self) -> list[Draw]:
        """All draws of the epoch, of all processes together."""
        if self.seed is None:
            return [Draw(number, (number,)) for number in self.numbers.tolist()]
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            order = rng.permutation(self.numbers).tolist()
            return [Draw(number, (self.seed, self.epoch, number)) for number in order]
        order = rng.choice(self.numbers, len(self.numbers), p=self.weights).tolist()
        # A field that comes twice is to be changed in two ways, so its place in the epoch counts.
        return [Draw(number, (self.seed, self.epoch, number, place)) for place, number in enumerate(order)]

    def _bounds(self) -> list[tuple[int, int]]:
        return list(zip(self.starts, [*self.starts[1:], len(self.numbers)], strict=True))


class Loader:
    """Gives the batches of any epoch, on the device.

    Args:
        dataset: where the fields come from.
        batches: which fields make up a batch.
        workers: processes that read; 0 reads in this one.
        device: where the batches go.
    """

    def __init__(
        self, dataset: Dataset[Row], batches: EpochBatches, workers: int, device: torch.device
    ) -> None:
        self.batches, self.device = batches, device
        self._generator = torch.Generator()
        self._loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=_stack,
            num_workers=workers,
            worker_init_fn=_start_worker,
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0,
            prefetch_factor=_READ_AHEAD if workers else None,
            # Of its own: the loader draws from it at each start, which must not move the network's generator.
            generator=self._generator,
        )

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def sizes(self) -> list[int]:
        """Fields of each batch of an epoch, of all processes together."""
        return self.batches.sizes

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the ``first`` on; the same numbers give the same batches.

        Raises:
            InputError: a field cannot be read.
        """
        self.batches.epoch, self.batches.first = epoch, first
        self._generator.manual_seed(epoch)
        try:
            for batch in self._loader:
                moved = batch.to(self.device)
                if self.device.type == "cuda":
                    moved = moved._replace(fields=moved.fields.contiguous(memory_format=torch.channels_last))
                yield moved
        except InputError as error:
            # Out of a worker it comes as a traceback whose last line is what was wrong.
            message = str(error).strip().splitlines()[-1]
            raise InputError(message.removeprefix(f"{InputError.__module__}.InputError: ")) from None


def _stack(rows: list[Row]) -> Batch:
    images, targets, numbers = zip(*rows, strict=True)
    # Channels before pixels as CPUs like it; moving bytes here is cheap beside the network.
    fields = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Batch(fields, torch.from_numpy(np.stack(targets)), torch.tensor(numbers))


def _start_worker(_: int) -> None:
    # Each worker has a processor to itself at best; torch limits its own threads there.
    cv2.setNumThreads(0)
