"""Fields with their label maps at the scale of the networks that find cells, and windows of them."""

import hashlib
import logging
import warnings
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from hpa_kit.cells import MaskFolder, resized
from hpa_kit.cells.label_step import FULL_SIDE
from hpa_kit.cells.published import at_network_scale
from hpa_kit.cells.scale import at_known_scale
from hpa_kit.data import Images, lab_scale, read_field
from hpa_kit.devices import available_bytes, cpus
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, attempt, run_ahead
from hpa_kit.progress import track
from hpa_kit.training.augmentation import Augmentation
from hpa_kit.training.cell_targets import border_width, network_target
from hpa_kit.training.data import Draw, Row

log = logging.getLogger(__name__)

_SHARE_OF_MEMORY = 0.5
# Fields differ in brightness more than those that are learnt from: each channel is made brighter or darker by
# up to this factor.
_BRIGHTNESS = 1.6


class Labelled(NamedTuple):
    """A field at the networks' scale, uint8 (h, w, 4), its cells and their nuclei, whole numbers (h, w)."""

    field: NDArray[np.uint8]
    cells: NDArray[np.integer]
    nuclei: NDArray[np.integer]


class LabelledFields:
    """Fields that have label maps, by the number of the field, at the networks' scale.

    Nuclei that a label map lacks are those that the classical segmenter finds in the field, inside its cells.

    Args:
        folders: where the images of each field lie.
        ids: all fields by their number; those without a label map are left out.
        masks: their label maps.
        side: of a field of 2048 px at the networks' scale, in pixels.
        cache: keep them in memory, as far as they fit; others are read anew.
        n_channels: 3 needs no yellow, which is 0 then.

    Attributes:
        there: bool (fields,), which have a label map; has_cell: in which there is any cell.
        checksum: a text that changes where a label map does.

    Raises:
        InputError: fields or label maps cannot be read: of how many fields, and why.
    """

    def __init__(
        self,
        folders: Mapping[str, "Images"],
        ids: Sequence[str],
        masks: MaskFolder,
        side: int,
        cache: bool = True,
        n_channels: int = 4,
    ) -> None:
        self.ids, self.side, self.n_channels = list(ids), side, n_channels
        self._folders, self._masks = folders, masks
        self.there = np.array([masks.has(id) for id in self.ids], np.bool_)
        self.has_cell = np.zeros(len(self.ids), np.bool_)
        self._memory: dict[int, Labelled] = {}
        numbers, free = np.flatnonzero(self.there).tolist(), available_bytes() * _SHARE_OF_MEMORY
        sums, failed = [], []
        threads = cpus()
        with ThreadPoolExecutor(threads, "label maps") as pool:
            read = run_ahead(pool, lambda number: attempt(self._read, number), numbers, 2 * threads)
            for number, found in zip(
                numbers, track(read, "read fields", len(numbers), leave=False), strict=True
            ):
                if isinstance(found, Failure):
                    failed.append(found.reason)
                    continue
                self.has_cell[number] = found.cells.any()
                sums.append([zlib.crc32(np.ascontiguousarray(part)) for part in (found.cells, found.nuclei)])
                free -= sum(part.nbytes for part in found)
                if cache and free > 0:
                    self._memory[number] = found
        masks.report()
        if failed:
            raise InputError(
                f"train: {len(failed)} of {len(numbers)} fields cannot be learnt from: {failed[0]}"
            )
        if cache and not self.in_memory:
            warnings.warn(
                f"train: {len(self._memory)} of {len(numbers)} fields fit into memory; others are read anew "
                "in each epoch",
                stacklevel=2,
            )
        self.checksum = hashlib.sha256(repr(sums).encode()).hexdigest()

    @property
    def in_memory(self) -> bool:
        """Whether asking for a field costs no decoding."""
        return len(self._memory) == self.there.sum()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> Labelled:
        kept = self._memory.get(number)
        return self._read(number) if kept is None else kept

    def _read(self, number: int) -> Labelled:
        id = self.ids[number]
        field = read_field(self._folders[id], id, self.n_channels, threads=1)
        maps = self._masks.read(id, field)
        scale = lab_scale(self._folders[id], id)[0]
        small = at_network_scale(field if scale == 1 else at_known_scale(field, scale), self.side)
        if scale != 1:  # a lab's small field is continued by its mirror image, in which nothing is labelled
            unit = self.side / FULL_SIDE
            rows, columns = (max(1, round(length * scale * unit)) for length in field.shape[1:])
            small = small[:, :rows, :columns]
        shape = small.shape[1:]
        kind = np.min_scalar_type(int(maps.cells.max(initial=0)))
        return Labelled(
            np.ascontiguousarray((small * 255).round().astype(np.uint8).transpose(1, 2, 0)),
            resized(maps.cells, shape).astype(kind),
            resized(maps.nuclei, shape).astype(kind),
        )


class WindowDataset(Dataset[Row]):
    """Windows of fields, what both networks learn of them, and their cells, by :class:`Draw`.

    A window is as large as a field of 2048 px at the networks' scale. Where a field is larger it is a part of
    it, another one each time; where a field is smaller, what is beyond it is black and costs nothing. Windows
    have numbers: those of the fields, then further ones of the fields in the same order.

    Args:
        fields: all fields.
        augmentation: how a window and its label maps are changed, before targets are drawn. With policy 0,
            which changes nothing, windows are in the middle of fields, and as bright as these.
    """

    def __init__(self, fields: LabelledFields, augmentation: Augmentation) -> None:
        self.fields, self.augmentation = fields, augmentation
        self.width = border_width(fields.side)

    def __getitem__(self, draw: Draw) -> Row:
        whole, side = self.fields[draw.number % len(self.fields)], self.fields.side
        generator = np.random.default_rng((*draw.seed, 1)) if self.augmentation.policy else None
        corner = [_start(length, side, generator) for length in whole.cells.shape]
        image = _window(whole.field, corner, side)
        # Numbers of cells and nuclei, and what is of the field at all: they go through the same changes.
        known = np.ones(whole.cells.shape, np.float32)
        planes = np.stack([whole.cells, whole.nuclei, known], axis=-1).astype(np.float32)
        image, masks = self.augmentation(image, draw.seed, mask=_window(planes, corner, side))
        if generator is not None:
            image = brightened(image, generator)
        cells, nuclei, inside = masks[..., 0], masks[..., 1], masks[..., 2] > 0
        targets = np.stack([network_target(part, self.width, inside) for part in (nuclei, cells)])
        return image, targets, draw.number, cells.astype(np.int32)


def _start(length: int, side: int, generator: np.random.Generator | None) -> int:
    """Where a window begins on an axis: below 0 where the field is the smaller."""
    if length <= side:
        return (length - side) // 2
    return (length - side) // 2 if generator is None else int(generator.integers(length - side + 1))


def _window(array: NDArray[Any], corner: Sequence[int], side: int) -> NDArray[Any]:
    """A square part of an array (H, W, C), 0 beyond it."""
    window = np.zeros((side, side, array.shape[2]), array.dtype)
    inner = [
        slice(max(start, 0), min(start + side, length))
        for start, length in zip(corner, array.shape[:2], strict=True)
    ]
    own = [slice(part.start - start, part.stop - start) for part, start in zip(inner, corner, strict=True)]
    window[own[0], own[1]] = array[inner[0], inner[1]]
    return window


def brightened(image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Make each channel of an image (H, W, C) brighter or darker, by a factor of its own."""
    factors = _BRIGHTNESS ** generator.uniform(-1, 1, image.shape[2])
    table = np.clip(np.arange(256)[:, None] * factors, 0, 255).round().astype(np.uint8)
    return np.stack([table[image[..., channel], channel] for channel in range(image.shape[2])], axis=-1)
