"""Segmenters by name, and fields with their label maps: loaded, or found by one."""

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, get_args, overload

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.label_maps import LabelMaps
from hpa_kit.cells.regions import LabelMap
from hpa_kit.config import SegmenterName, nearest
from hpa_kit.data import CHANNELS, read_field
from hpa_kit.devices import pick_device
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, attempt, run_ahead
from hpa_kit.timing import Stopwatch

if TYPE_CHECKING:
    from hpa_kit.cells.mask_folder import MaskFolder

log = logging.getLogger(__name__)

Field = NDArray[np.uint8]
Pair = tuple[LabelMap, LabelMap]

NAMES: tuple[str, ...] = get_args(SegmenterName)
# Fields that need no segmenter and wait behind one that does: memory against full batches.
MAX_PASSING = 8
# Fields that are read while the segmenter's networks work on as many: with fewer, the networks wait for them.
READ_AHEAD = 8


class Segmenter(Protocol):
    """A field, uint8 (4, H, W) -> nuclei and cells, int32 (H, W); a list of fields -> a list of pairs."""

    @property
    def name(self) -> str:
        """The name by which :func:`segmenter` knows it."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its label maps, to be kept with them; neither paths nor how fast it works."""

    @overload
    def __call__(self, fields: Field) -> Pair: ...
    @overload
    def __call__(self, fields: Sequence[Field]) -> list[Pair]: ...
    def stream(self, fields: Iterable[Field]) -> Iterator[Pair]:
        """Label any number of fields of any sizes, in their order, a few in memory at a time."""


class OneOrMany(ABC):
    """A segmenter that is called with a field or a list of fields and works through its own ``stream``."""

    @abstractmethod
    def stream(self, fields: Iterable[Field]) -> Iterator[Pair]:
        """Label any number of fields of any sizes, in their order, a few at a time."""

    @overload
    def __call__(self, fields: Field) -> Pair: ...
    @overload
    def __call__(self, fields: Sequence[Field]) -> list[Pair]: ...
    def __call__(self, fields: Field | Sequence[Field]) -> Pair | list[Pair]:
        """Label one field, uint8 (4, H, W) -> nuclei and cells, int32 (H, W); several -> a list of pairs."""
        if isinstance(fields, np.ndarray) and fields.ndim == 3:
            (pair,) = self.stream([fields])
            return pair
        return list(self.stream(fields))


def check_field(field: Field) -> None:
    """Raise InputError unless ``field`` is uint8 (4, H, W)."""
    if not isinstance(field, np.ndarray) or field.ndim != 3 or field.shape[0] != 4 or field.dtype != np.uint8:
        found = f"{field.dtype} {field.shape}" if isinstance(field, np.ndarray) else type(field).__name__
        raise InputError(
            f"segmenter: expected a field, uint8 (4, H, W), red green blue yellow; found {found}"
        )


def segmenter_for(name: str, weights: str | Path | None) -> str:
    """Name the segmenter that a name stands for: ``auto`` is published with weights, classical without."""
    return name if name != "auto" else "classical" if weights is None else "published"


def segmenter(
    name: str = "auto",
    weights: str | Path | None = None,
    device: str = "cpu",
    batch: int = 4,
    workers: int = 2,
) -> Segmenter:
    """Make the segmenter of a name.

    Args:
        name: ``classical`` needs no weights; ``published`` runs HPA-Cell-Segmentation's networks and
            ``hpacellseg`` its own package, both with its weights; ``auto`` is published where weights are
            given and classical elsewhere, and the log says which.
        weights: folder of HPA-Cell-Segmentation's weights.
        device: of the networks: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        batch: fields of one size that go through the networks together.
        workers: threads of what is not the networks' work.

    Raises:
        InputError: the name is unknown, or weights or device are needed and missing or unusable.
    """
    if name not in NAMES:
        raise InputError(f"segmenter: unknown name {name!r}{nearest(name, NAMES)}")
    chosen = segmenter_for(name, weights)
    if name == "auto":
        log.info(
            "segmenter: %s (%s)", chosen, "no weights given" if weights is None else f"weights in {weights}"
        )
    if chosen == "classical":
        from hpa_kit.cells.classical import ClassicalSegmenter

        return ClassicalSegmenter(workers=workers)
    if weights is None:
        raise InputError(
            f"segmenter: {chosen} needs the folder of HPA-Cell-Segmentation's weights; give it as weights, "
            "or use the segmenter classical"
        )
    if chosen == "published":
        from hpa_kit.cells.published import PublishedSegmenter

        return PublishedSegmenter(weights, pick_device(device), batch, workers)
    from hpa_kit.cells.original import OriginalSegmenter

    return OriginalSegmenter(weights, pick_device(device))


class FieldCells(NamedTuple):
    """A field, uint8 (4, H, W), its label maps, and whether the segmenter had to find them."""

    field: Field
    maps: LabelMaps
    made: bool


class _Read(NamedTuple):
    field: Field
    maps: LabelMaps | None  # None: the segmenter has to find them


_Item = tuple[str, _Read | Failure]


def load_or_segment(
    ids: Iterable[str],
    images: str | Path,
    segmenter: Segmenter,
    masks: str | Path | None = None,
    workers: int = 2,
    needed: int | Collection[str] = len(CHANNELS),
    watch: Stopwatch | None = None,
) -> Generator[tuple[str, FieldCells | Failure], None, None]:
    """Read fields and their label maps, and find the cells of those that have none.

    Fields are read ahead in threads and go through the segmenter's stream, so that its networks see batches.
    A field that cannot be read, or on which the segmenter fails, gives a :class:`~hpa_kit.flow.Failure` and
    costs no other field its label maps: those that were under way with it are segmented one by one. Nothing
    is written. A few fields are in memory at a time.

    Args:
        ids: the fields, in the order wanted.
        images: folder of their images.
        segmenter: finds the cells.
        masks: folder of label maps, see :class:`~hpa_kit.cells.MaskFolder`; what cannot be read is warned of
            and found again. None: all are found.
        workers: threads that read.
        needed: channels that a field must have, or how many of them; others are 0 where they lack.
        watch: takes the time of ``reading`` and of ``cells``, the segmenter's own.

    Returns:
        an iterator of ID and field with label maps, or why there are none.

    Raises:
        InputError: ``masks`` is no folder, or one of other files.
    """
    folder = None
    if masks is not None:
        from hpa_kit.cells.mask_folder import MaskFolder

        folder = MaskFolder(masks)
        folder.check()
    timed = Stopwatch() if watch is None else watch
    return timed.watch(
        "reading", _load_or_segment(ids, Path(images), segmenter, folder, max(1, workers), needed, timed)
    )


def _load_or_segment(
    ids: Iterable[str],
    images: Path,
    segmenter: Segmenter,
    masks: "MaskFolder | None",
    workers: int,
    needed: int | Collection[str],
    watch: Stopwatch,
) -> Generator[tuple[str, FieldCells | Failure], None, None]:
    def read(id: str) -> tuple[str, _Read | Failure]:
        return id, attempt(_read, images, masks, id, needed)

    try:
        with (
            ThreadPoolExecutor(workers, "read") as pool,
            closing(run_ahead(pool, read, ids, max(workers + 1, READ_AHEAD))) as fields,
        ):
            for id, result in _through(fields, segmenter, watch):
                if isinstance(result, FieldCells) and result.made and not result.maps.cells.any():
                    log.warning(f"cells: {segmenter.name} finds no cell in field {id}")
                yield id, result
    finally:
        if masks is not None:
            masks.report()


def _read(images: Path, masks: "MaskFolder | None", id: str, needed: int | Collection[str]) -> _Read:
    field = read_field(images, id, needed=needed)
    if masks is None:
        return _Read(field, None)
    try:
        return _Read(field, masks.read(id, field) if masks.find(id) is not None else None)
    except InputError as error:
        log.warning(f"{error}; its cells are found again")
        return _Read(field, None)


def _through(
    source: Iterator[_Item], segmenter: Segmenter, watch: Stopwatch
) -> Iterator[tuple[str, FieldCells | Failure]]:
    """Everything in its order, what lacks label maps through the segmenter's stream."""
    for item in source:
        id, read = item
        if _lacks_maps(read) is None:  # none before it is at the segmenter, so it waits for none
            yield id, _one_by_one(read, segmenter)
        else:
            yield from _segmented(item, source, segmenter, watch)


def _segmented(
    first: _Item, source: Iterator[_Item], segmenter: Segmenter, watch: Stopwatch
) -> Iterator[tuple[str, FieldCells | Failure]]:
    """One stream of the segmenter, and what comes between the fields that it takes."""
    waiting: deque[_Item] = deque()

    def to_segment() -> Iterator[Field]:
        """Give fields that lack label maps; end early where many others wait behind them."""
        passing = 0
        item: _Item | None = first
        while item is not None:
            waiting.append(item)
            field = _lacks_maps(item[1])
            passing += field is None
            if field is not None:
                yield field
            item = next(source, None) if passing < MAX_PASSING else None

    pairs = watch.watch("cells", segmenter.stream(watch.watch("reading", to_segment())))
    while not isinstance(pair := attempt(next, pairs, None), Failure) and pair is not None:
        while waiting:
            id, read = waiting.popleft()
            if isinstance(read, _Read) and read.maps is None:
                yield id, FieldCells(read.field, LabelMaps(*pair), made=True)
                break
            yield id, _one_by_one(read, segmenter)
    # Those behind the last field of the stream and, where it broke, those that were under way.
    while waiting:
        id, read = waiting.popleft()
        yield id, _one_by_one(read, segmenter)


def _lacks_maps(read: _Read | Failure) -> Field | None:
    """A field that was read and has no label maps."""
    return read.field if isinstance(read, _Read) and read.maps is None else None


def _one_by_one(read: _Read | Failure, segmenter: Segmenter) -> FieldCells | Failure:
    """Give a field its label maps without the stream."""
    if isinstance(read, Failure):
        return read
    if read.maps is not None:
        return FieldCells(read.field, read.maps, made=False)
    pair = attempt(segmenter, read.field)
    return pair if isinstance(pair, Failure) else FieldCells(read.field, LabelMaps(*pair), made=True)
