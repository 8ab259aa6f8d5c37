"""Fields at their training size: resized once, kept on disk and, where they fit, in memory."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.fields import CHANNELS, Images, lab_scale, read_field, resize_field
from hpa_kit.data.kept_fields import Origin, kept_fault, kept_path, origins, read_kept, write_kept
from hpa_kit.data.labelled import fields_to_keep
from hpa_kit.devices import available_bytes, cpus
from hpa_kit.errors import InputError
from hpa_kit.files import remove_stale
from hpa_kit.flow import Failure, attempt, share
from hpa_kit.progress import track
from hpa_kit.timing import Forecast

if TYPE_CHECKING:
    from hpa_kit.config import StoreSettings

log = logging.getLogger(__name__)

# The rest is for the network, the workers and everybody else.
_SHARE_OF_MEMORY = 0.5
_NAMED = 20

T = TypeVar("T")
Field = NDArray[np.uint8]  # (S, S, 4)
Planes = NDArray[np.uint8]  # (4, S, S)


def store_fields(settings: "StoreSettings") -> Path:
    """Resize the fields of a data folder, or of a shard of it, and keep them for training.

    Goes on where it was stopped: fields that are kept whole, from the same images, stay. Several processes,
    each with its own shard, may write to one folder.

    Args:
        settings: see :class:`~hpa_kit.config.StoreSettings`. Shards are contiguous shares of the sorted IDs.

    Returns:
        The folder.

    Raises:
        InputError: data or settings cannot be used, or some fields cannot be read; the others are kept then.
    """
    folders = fields_to_keep(settings)
    ids = share(sorted(folders), settings.shard, settings.shards)
    fields = FieldStore(folders, ids, settings.size, False, None, settings.in_channels)
    fields.keep_in(settings.out, settings.workers, whole=True)
    total = sum(kept_path(settings.out, id, settings.size).stat().st_size for id in ids)
    mean = total / max(len(ids), 1) / 1e6
    log.info(f"store: {len(ids)} fields of {settings.size}², {mean:.2f} MB each, {total / 1e9:.2f} GB")
    return settings.out


class FieldStore:
    """Resized fields by their number, uint8 (size, size, 4), channels last.

    Args:
        images: folder of the images, or the folder of each field.
        ids: the fields.
        size: side in pixels.
        cache: keep all fields in memory, where they fit.
        kept: folder that keeps resized fields on disk; those that it lacks are made and written first.
            Without it, fields that do not fit into memory are decoded when they are asked for.
        n_channels: 3 needs no yellow, which is 0 then.

    Raises:
        InputError: fields cannot be read: how many, and which; or the folder cannot be written.
    """

    def __init__(
        self,
        images: "Images | Mapping[str, Images]",
        ids: Sequence[str],
        size: int,
        cache: bool = True,
        kept: Path | None = None,
        n_channels: int = len(CHANNELS),
    ) -> None:
        self.ids, self.size, self.n_channels = list(ids), size, n_channels
        self._folders = [images[id] if isinstance(images, Mapping) else images for id in self.ids]
        self._say_scale()
        self._kept: Path | None = None
        if kept is not None:
            self.keep_in(kept, cpus())
        self._memory = self._read_all() if cache and self._fits() else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> Field:
        return self._read(number) if self._memory is None else self._memory[number]

    @property
    def in_memory(self) -> bool:
        """Whether asking for a field costs no decoding."""
        return self._memory is not None

    def keep_in(self, folder: Path, workers: int, whole: bool = False) -> None:
        """Write the fields that a folder lacks, and read from there from now on.

        Args:
            folder: keeps fields of any size.
            workers: threads.
            whole: read all that is there to its end too; else damage behind a file's first lines shows when
                it is read, and the field is made again then.

        Raises:
            InputError: fields cannot be read, or the folder cannot be written.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"store: {folder} is a file; expected a folder for resized fields")
        self._kept = folder
        remove_stale(folder / str(self.size))
        looked = self._each(
            lambda number: attempt(self._fault, number, whole), range(len(self)), "look", workers
        )
        spoilt = [fault for fault in looked if fault]
        if spoilt:
            others = f", as are {len(spoilt) - 1} more" if len(spoilt) > 1 else ""
            warnings.warn(f"{spoilt[0]}; made again{others}", stacklevel=2)
        todo = [number for number, fault in enumerate(looked) if fault is not None]
        log.info(
            f"store: {len(todo)} fields of {self.size}² to resize, {len(self) - len(todo)} kept from before"
        )
        # Processes that fill one folder at a time seldom meet, as each takes an order of its own.
        order = np.random.default_rng().permutation(np.array(todo, dtype=np.int64)).tolist()
        self._each(self._keep, order, "resize fields", workers, Forecast("resize fields", len(todo), workers))

    def _path(self, number: int) -> Path:
        assert self._kept is not None
        return kept_path(self._kept, self.ids[number], self.size)

    def _fault(self, number: int, whole: bool = False) -> str | None:
        """What is wrong with a field's file; empty where there is none, None where it is good."""
        path, id = self._path(number), self.ids[number]
        fault = kept_fault(path, self.size, self._folders[number], id, self.n_channels)
        if fault is None and whole:
            try:
                read_kept(path, self.size, self.n_channels)
            except InputError as error:
                return str(error)
        return fault

    def _keep(self, number: int) -> Failure | None:
        """Make and write a field, unless another process just did. What cannot be written ends everything."""
        if self._fault(number, whole=True) is None:
            return None
        made = attempt(self._make, number)
        if isinstance(made, Failure):
            return made
        write_kept(self._path(number), *made)
        return None

    def _make(self, number: int) -> tuple[Planes, list[Origin]]:
        folder, id = self._folders[number], self.ids[number]
        made_from = origins(folder, id, self.n_channels)
        return resize_field(read_field(folder, id, self.n_channels, threads=1), self.size), made_from

    def _read(self, number: int) -> Field:
        if self._kept is None:
            folder, id = self._folders[number], self.ids[number]
            return _channels_last(resize_field(read_field(folder, id, self.n_channels, threads=1), self.size))
        try:
            return _channels_last(read_kept(self._path(number), self.size, self.n_channels))
        except InputError as error:
            warnings.warn(f"{error}; made again", stacklevel=3)
        planes, made_from = self._make(number)
        try:
            write_kept(self._path(number), planes, made_from)
        except InputError as error:
            warnings.warn(str(error), stacklevel=3)
        return _channels_last(planes)

    def _say_scale(self) -> None:
        """Say where fields are looked at at another scale than learnt from, by the first of each folder."""
        first = dict(zip(reversed(self._folders), reversed(self.ids), strict=True))
        for folder, id in first.items():
            found = attempt(lab_scale, folder, id)
            if not isinstance(found, Failure) and found[1] != 1:  # what cannot be read is said by its reader
                log.warning(
                    f"fields: ID {id} is {found[1]:.3g} times as wide as 2048² pixels of 0.08 µm, and is "
                    f"resized to {self.size}² all the same; infer and predict look at it at so many times "
                    "that side: networks that learn from such fields need pixel_size 0 in all commands"
                )

    def _read_all(self) -> NDArray[np.uint8]:
        memory = np.empty((len(self), self.size, self.size, len(CHANNELS)), dtype=np.uint8)

        def keep(number: int) -> Failure | None:
            field = attempt(self._read, number)
            if isinstance(field, Failure):
                return field
            memory[number] = field
            return None

        held = f"; the fields hold {memory.nbytes / 2**30:.1f} GiB"
        forecast = Forecast("read fields", len(self), cpus(), note=held)
        self._each(keep, range(len(self)), "read fields", cpus(), forecast)
        return memory

    def _fits(self) -> bool:
        needed, free = len(self) * self.size**2 * len(CHANNELS), available_bytes()
        if needed <= free * _SHARE_OF_MEMORY:
            return True
        if self._kept is None:
            warnings.warn(
                f"fields: {len(self)} of {self.size}² need {needed / 1e9:.1f} of {free / 1e9:.1f} GB "
                "of free memory; they are decoded anew in each epoch; with --store they are decoded once",
                stacklevel=3,
            )
        return False

    def _each(
        self,
        function: Callable[[int], T | Failure],
        numbers: Sequence[int],
        doing: str,
        workers: int,
        forecast: Forecast | None = None,
    ) -> list[T]:
        """Results of all fields, from threads.

        Raises:
            InputError: some failed, after all others are done: how many, and which.
        """
        if not len(numbers):
            return []
        pool = ThreadPoolExecutor(workers, "store")
        try:
            done = track(pool.map(function, numbers), doing, len(numbers), leave=False)
            results = {}
            for number, result in zip(numbers, done, strict=True):
                results[number] = result
                if forecast is not None:
                    forecast.add(1)
        finally:
            pool.shutdown(cancel_futures=True)
        failed = {self.ids[n]: result.reason for n, result in results.items() if isinstance(result, Failure)}
        if failed:
            named = ", ".join(sorted(failed)[:_NAMED]) + (" and more" if len(failed) > _NAMED else "")
            raise InputError(
                f"fields: {len(failed)} of {len(self)} fields cannot be read: ID {named}; put them right or "
                f"take their rows out of train.csv; first: {failed[min(failed)]}"
            )
        return [result for result in results.values() if not isinstance(result, Failure)]


def _channels_last(planes: Planes) -> Field:
    return np.asarray(cv2.merge(list(planes)))
