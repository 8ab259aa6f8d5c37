"""Fields at their training size: read once and kept in memory where they fit."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hpa_kit.data import CHANNELS, read_field, resize_field
from hpa_kit.data.fields import ENDINGS
from hpa_kit.errors import InputError
from hpa_kit.training.memory import available_bytes

# The rest is for the network, the workers and everybody else.
_SHARE_OF_MEMORY = 0.5


class FieldStore:
    """Resized fields by their number, uint8 (size, size, 4), channels last.

    Args:
        folder: holds the images.
        ids: the fields.
        size: side in pixels.
        cache: keep all fields in memory, where they fit; else each is decoded when it is asked for.

    Raises:
        InputError: a field cannot be read; the ID is named.
    """

    def __init__(self, folder: Path, ids: list[str], size: int, cache: bool = True) -> None:
        self.folder, self.ids, self.size = folder, ids, size
        self._kept = self._read_all() if cache and self._fits() else None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        return self._read(number) if self._kept is None else self._kept[number]

    @property
    def in_memory(self) -> bool:
        """Whether asking for a field costs no decoding."""
        return self._kept is not None

    def _fits(self) -> bool:
        needed, free = len(self) * self.size**2 * len(CHANNELS), available_bytes()
        if needed <= free * _SHARE_OF_MEMORY:
            return True
        warnings.warn(
            f"train: {len(self)} fields of {self.size}² need {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB of "
            "free memory; they are decoded anew in each epoch",
            stacklevel=3,
        )
        return False

    def _read_all(self) -> NDArray[np.uint8]:
        kept = np.empty((len(self), self.size, self.size, len(CHANNELS)), dtype=np.uint8)

        def keep(number: int) -> None:
            kept[number] = self._read(number)

        pool = ThreadPoolExecutor(os.cpu_count() or 1)
        try:
            done = pool.map(keep, range(len(self)))
            for _ in tqdm(done, total=len(self), desc="read fields", unit="field", leave=False):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        return kept

    def _read(self, number: int) -> NDArray[np.uint8]:
        field = resize_field(read_field(self.folder, self.ids[number]), self.size)
        return np.ascontiguousarray(field.transpose(1, 2, 0))


def require_images(folder: Path, ids: list[str]) -> None:
    """Look for every channel of every field, in one pass over the folder.

    Raises:
        InputError: channels are missing; how many fields lack some, and which the first does.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        raise InputError(f"train: {folder} cannot be read: {error.strerror}") from None
    stems = {name.rpartition(".")[0] for name in names if name.lower().endswith(ENDINGS)}
    lacking = [id for id in ids if any(f"{id}_{channel}" not in stems for channel in CHANNELS)]
    if lacking:
        first = lacking[0]
        channels = ", ".join(channel for channel in CHANNELS if f"{first}_{channel}" not in stems)
        raise InputError(
            f"train: {len(lacking)} of {len(ids)} labelled fields lack images in {folder}, such as "
            f"ID {first} ({channels}); add them, or take their rows out of train.csv"
        )
