"""Segmenters by name, and fields with their label maps: loaded, or found by one."""

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.label_maps import LabelMaps
from hpa_kit.cells.regions import LabelMap
from hpa_kit.config import nearest
from hpa_kit.config.kinds import SEGMENTER_NAMES
from hpa_kit.data import CHANNELS, Images, lab_scale, read_field
from hpa_kit.devices import pick_device
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, attempt, run_ahead
from hpa_kit.timing import Stopwatch

if TYPE_CHECKING:
    from hpa_kit.cells.mask_folder import MaskFolder

log = logging.getLogger(__name__)

Field = NDArray[np.uint8]
Pair = tuple[LabelMap, LabelMap]

BUILT_IN = frozenset(SEGMENTER_NAMES)
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
            given and classical elsewhere, and the log says which; or one of your own, see
            :func:`~hpa_kit.cells.add_segmenter`.
        weights: folder of HPA-Cell-Segmentation's weights; ``published`` takes a run of ``train --network
            cells`` too.
        device: of the networks: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        batch: fields of one size that go through the networks together.
        workers: threads of what is not the networks' work.

    Raises:
        InputError: the name is unknown, or weights or device are needed and missing or unusable.
    """
    if name not in SEGMENTER_NAMES:
        raise InputError(f"segmenter: unknown name {name!r}{nearest(name, SEGMENTER_NAMES)}")
    if name not in BUILT_IN:
        from hpa_kit.cells.own_segmenters import own_segmenter

        return own_segmenter(name)
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
            f"segmenter: {chosen} needs the folder of HPA-Cell-Segmentation's weights, or a run of train "
            "--network cells; give it as weights, or use the segmenter classical"
        )
    if chosen == "published":
        from hpa_kit.cells.published import PublishedSegmenter

        return PublishedSegmenter(weights, pick_device(device), batch, workers)
    from hpa_kit.cells.original import OriginalSegmenter

    return OriginalSegmenter(weights, pick_device(device))


def code_of_segmenter(name: str) -> list[dict[str, Any]]:
    """What results depend on beside a segmenter's name: of one of your own, its settings and its code."""
    return [] if name in BUILT_IN else [segmenter(name).settings]


class FieldCells(NamedTuple):
    """A field, uint8 (4, H, W), its label maps, and whether the segmenter had to find them."""

    field: Field
    maps: LabelMaps
    made: bool


class _Read(NamedTuple):
    field: Field
    maps: LabelMaps | None  # None: the segmenter has to find them
    scale: float = 1.0  # pixels of 0.08 µm that one of its pixels is wide


_Item = tuple[str, _Read | Failure]


def load_or_segment(
    ids: Iterable[str],
    images: "str | Images",
    segmenter: Segmenter,
    masks: "str | Path | MaskFolder | None" = None,
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
        masks: folder of label maps, see :class:`~hpa_kit.cells.MaskFolder`, or one that was looked through;
            what cannot be read is warned of and found again. None: all are found.
        workers: threads that read.
        needed: channels that a field must have, or how many of them; others are 0 where they lack.
        watch: takes the time of ``reading`` and of ``cells``, the segmenter's own.

    Returns:
        an iterator of ID and field with label maps, or why there are none.

    Raises:
        InputError: ``masks`` is no folder, or one of other files.
    """
    folder = mask_folder(masks) if isinstance(masks, str | Path) else masks
    timed = Stopwatch() if watch is None else watch
    where = Path(images) if isinstance(images, str) else images
    return timed.watch(
        "reading", _load_or_segment(ids, where, segmenter, folder, max(1, workers), needed, timed)
    )


def mask_folder(masks: str | Path) -> "MaskFolder":
    """Open a folder of label maps, looked through.

    Raises:
        InputError: it is no folder, or one of other files.
    """
    from hpa_kit.cells.mask_folder import MaskFolder

    folder = MaskFolder(masks)
    folder.check()
    return folder


def _load_or_segment(
    ids: Iterable[str],
    images: "Images",
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


def _read(images: "Images", masks: "MaskFolder | None", id: str, needed: int | Collection[str]) -> _Read:
    field = read_field(images, id, needed=needed)
    try:
        if masks is not None and masks.find(id) is not None:
            return _Read(field, masks.read(id, field))
    except InputError as error:
        log.warning(f"{error}; its cells are found again")
    scale = lab_scale(images, id)[0]
    if scale != 1:
        from hpa_kit.cells.scale import refuse_too_large

        refuse_too_large(field.shape[1:], scale)
    return _Read(field, None, scale)


def _at_known_scale(read: _Read) -> Field:
    """A field as segmenters know it."""
    if read.scale == 1:
        return read.field
    from hpa_kit.cells.scale import at_known_scale

    return at_known_scale(read.field, read.scale)


def _found(read: _Read, pair: Pair) -> FieldCells:
    """A field with the label maps that were found in it as segmenters know it."""
    if read.scale != 1:
        from hpa_kit.cells.scale import as_stored

        pair = as_stored(pair, read.field.shape[1:], read.scale)
    return FieldCells(read.field, LabelMaps(*pair), made=True)


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
            read = _lacks_maps(item[1])
            passing += read is None
            if read is not None:
                yield _at_known_scale(read)
            item = next(source, None) if passing < MAX_PASSING else None

    pairs = watch.watch("cells", segmenter.stream(watch.watch("reading", to_segment())))
    while not isinstance(pair := attempt(next, pairs, None), Failure) and pair is not None:
        while waiting:
            id, read = waiting.popleft()
            if isinstance(read, _Read) and read.maps is None:
                yield id, _found(read, pair)
                break
            yield id, _one_by_one(read, segmenter)
    # Those behind the last field of the stream and, where it broke, those that were under way.
    while waiting:
        id, read = waiting.popleft()
        yield id, _one_by_one(read, segmenter)


def _lacks_maps(read: _Read | Failure) -> _Read | None:
    """A field that was read and has no label maps."""
    return read if isinstance(read, _Read) and read.maps is None else None


def _one_by_one(read: _Read | Failure, segmenter: Segmenter) -> FieldCells | Failure:
    """Give a field its label maps without the stream."""
    if isinstance(read, Failure):
        return read
    if read.maps is not None:
        return FieldCells(read.field, read.maps, made=False)
    return attempt(lambda: _found(read, segmenter(_at_known_scale(read))))
