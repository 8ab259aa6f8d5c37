"""From a data folder to the batches of a run: labels, folds, fields, and which of them make up a batch.

The order of batches and the changes of fields hang on seed and epoch alone, whoever reads them.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hpa_kit.classes import multi_hot, parse_label
from hpa_kit.config import TrainSettings
from hpa_kit.data import FieldStore, find_folds, labelled_fields, write_folds
from hpa_kit.errors import InputError
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.processes import Processes
from hpa_kit.training.run_folder import FOLDS, find_start

if TYPE_CHECKING:
    from hpa_kit.training.cell_maps import CellMaps

_WANTED_STEPS, _SMALLEST_BATCH, _LARGEST_BATCH = 800, 8, 40
# Batches that each worker has ready: fields that are decoded anew take unequal times.
_READ_AHEAD = 4

# A field, what it shows, its number, and, for those that learn from cells, its label map; of a crop of a cell
# the mask, and the statistics of its field.
Row = tuple[Any, ...]


class TrainingData(NamedTuple):
    """What a run learns from.

    Attributes:
        train, validation: batches to learn from, and to validate on.
        folds: the table ID, Label, fold of all fields.
        contents: by setting, a text that changes where files do that the table does not tell of.
    """

    train: "Loader"
    validation: "Loader"
    folds: pd.DataFrame
    contents: Mapping[str, str] = MappingProxyType({})


def fingerprint_of(folds: pd.DataFrame) -> str:
    """A text that changes where a field, its label or its fold does, or what a table of them has besides."""
    return hashlib.sha256(folds.to_csv(index=False).encode()).hexdigest()


class RunFields(NamedTuple):
    """A run's fields: the table ID, Label, fold; resized; the numbers to learn from and to validate on."""

    folds: pd.DataFrame
    store: FieldStore
    train: NDArray[np.int64]
    validation: NDArray[np.int64]

    @property
    def targets(self) -> NDArray[np.float32]:
        """Image labels, float32 (fields, 19)."""
        return multi_hot(parse_label(label) for label in self.folds["Label"])


def run_folds(settings: TrainSettings) -> pd.DataFrame:
    """Tell the folds that a run has, or will have once it is started; nothing is written.

    They are those in its folder or, where it goes on from another, in that; else those of ``folds_of``; else
    they are made. External fields are among them, those that are always learnt from with fold -1.

    Returns:
        Columns ``ID``, ``Label`` and ``fold``.

    Raises:
        InputError: as :func:`~hpa_kit.training.run_folder.find_start`,
            :func:`~hpa_kit.data.labelled_fields` and :func:`~hpa_kit.data.find_folds`.
    """
    found, table = find_start(settings).folds, labelled_fields(settings).table
    return find_folds(found, table, settings.folds, settings.seed, settings.folds_of)


def read_run_fields(settings: TrainSettings, stored: Callable[..., Any] = FieldStore) -> RunFields:
    """Read labels, find all images, divide the fields into folds, which are stored, resize them (``stored``).

    Raises:
        InputError: a table or a field is missing or damaged, or too few fields are left for either part.
    """
    # Before anything is written or read: a field that is missing must not show after an hour.
    fields = labelled_fields(settings)
    kept, found = settings.out / FOLDS, find_start(settings).folds
    folds = find_folds(found, fields.table, settings.folds, settings.seed, settings.folds_of)
    if found != kept:
        write_folds(kept, folds)
    chosen = folds["fold"].to_numpy() == settings.fold
    train, validation = np.flatnonzero(~chosen | settings.all_fields), np.flatnonzero(chosen)
    if len(validation) < 1 or len(train) < 2:
        raise InputError(
            f"train: {settings.data} leaves {len(train)} fields to learn from and {len(validation)} in fold "
            f"{settings.fold} of {folds['fold'].max() + 1}; expected 2 and 1 at least"
        )
    ids, size = folds["ID"].tolist(), settings.size
    store = stored(fields.folders, ids, size, settings.cache, settings.store, settings.in_channels)
    return RunFields(folds, store, train, validation)


def load_training_data(
    settings: TrainSettings, device: torch.device, processes: Processes | None = None
) -> TrainingData:
    """The batches of a run that learns from image labels.

    Args:
        settings: of the run.
        device: where batches go.
        processes: that train together; each learns from its share of every batch and may validate on all.

    Raises:
        InputError: as :func:`read_run_fields`.
    """
    fields, cells = read_run_fields(settings), None
    if settings.pools_cells:
        from hpa_kit.training.cell_maps import cells_of_fields

        cells = cells_of_fields(settings, fields)

    def dataset(augmentation: Augmentation) -> "FieldDataset":
        return FieldDataset(fields.store, fields.targets, augmentation, cells)

    data = load_batches(settings, fields, dataset, device, processes or Processes())
    return data if cells is None else data._replace(contents={"masks": cells.checksum})


def load_batches(
    settings: TrainSettings,
    fields: RunFields,
    dataset: Callable[[Augmentation], Dataset[Row]],
    device: torch.device,
    processes: Processes,
) -> TrainingData:
    """The batches of a run.

    Args:
        settings: of the run.
        fields: of the run.
        dataset: makes all fields with their targets, for the run's augmentation, or none to validate.
        device: where batches go.
        processes: that train together.
    """
    weights = None
    if settings.sampling == "balanced":
        weights = balanced_weights(fields.targets, settings.sampling_clip)[fields.train]
    # Where the CPU trains on fields in memory, processes that read would only take its time.
    idle = fields.store.in_memory and device.type == "cpu"
    workers = processes.workers(0 if idle else settings.workers)
    batch = batch_size(settings, len(fields.train))
    train = EpochBatches(fields.train, batch, settings.seed, processes.rank, processes.world, weights)
    validation = EpochBatches(fields.validation, batch, None)
    return TrainingData(
        Loader(dataset(Augmentation(settings.augmentation)), train, workers, device),
        Loader(dataset(Augmentation(0)), validation, workers, device),
        fields.folds,
    )


def batch_size(settings: TrainSettings, n: int, largest: int = _LARGEST_BATCH) -> int:
    """Fields, or cells, per step: as set, else as many as give a run the wanted steps, within bounds."""
    wanted = n * settings.epochs // _WANTED_STEPS
    return settings.batch or min(max(wanted, _SMALLEST_BATCH), largest)


def balanced_weights(targets: NDArray[np.float32], clip: int) -> NDArray[np.float64]:
    """How often each field is drawn, in proportion: one over the count of its rarest class.

    A count below ``clip`` is taken for ``clip``: without that, 34 fields of the rarest class would be drawn
    as often as 8,797 of the most frequent. The competition's 3rd place clipped at the count of class 8.

    Args:
        targets: float32 (fields, classes), 1 where a field shows a class; each shows one or more.
        clip: fields below which a class gets no further weight.

    Returns:
        float64 (fields,), above 0, sum 1.
    """
    shown = targets > 0
    counts = np.maximum(shown.sum(axis=0), clip)
    rarest = np.where(shown, counts, np.inf).min(axis=1)
    weights = 1 / np.minimum(rarest, len(targets))
    return np.asarray(weights / weights.sum())


class Batch(NamedTuple):
    """Fields uint8 (B, 4, S, S), what they show, and their numbers in the store int64 (B,).

    What they show is image labels float32 (B, 19) or, for stage 2, maps uint8 (B, 20, S, S). Classifiers that
    learn from cells get their label maps too, integers (B, S, S). Of single cells these are crops, the cells'
    numbers and masks, and beside them mean and spread of their fields' channels, float32 (B, 2, 4).
    """

    fields: Tensor
    targets: Tensor
    numbers: Tensor
    cells: Tensor | None = None
    statistics: Tensor | None = None

    def pin_memory(self) -> "Batch":
        """A copy in memory that a GPU reads by itself; torch's loader calls this."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        first = (function(tensor) for tensor in self[:3])
        return Batch(*first, *(None if tensor is None else function(tensor) for tensor in self[3:]))


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
        cells: their label maps, which are changed alike; None gives none.
    """

    def __init__(
        self,
        store: FieldStore,
        targets: NDArray[np.float32],
        augmentation: Augmentation,
        cells: "CellMaps | None" = None,
    ) -> None:
        self.store, self.targets, self.augmentation, self.cells = store, targets, augmentation, cells

    def __getitem__(self, draw: Draw) -> Row:
        number = draw.number
        if self.cells is None:
            return self.augmentation(self.store[number], draw.seed), self.targets[number], number
        image, cells = self.augmentation(self.store[number], draw.seed, mask=self.cells[number])
        return image, self.targets[number], number, cells


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
    images, targets, numbers, *further = zip(*rows, strict=True)
    height, width, channels = images[0].shape
    # Channels before pixels as CPUs like it, by OpenCV: torch takes five times as long for bytes.
    fields = np.empty((len(images), channels, height, width), np.uint8)
    for planes, image in zip(fields, images, strict=True):
        cv2.split(image, list(planes))
    maps = [torch.from_numpy(np.stack(values)) for values in further]
    return Batch(torch.from_numpy(fields), torch.from_numpy(np.stack(targets)), torch.tensor(numbers), *maps)


def _start_worker(_: int) -> None:
    # Each worker has a processor to itself at best; torch limits its own threads there.
    cv2.setNumThreads(0)
