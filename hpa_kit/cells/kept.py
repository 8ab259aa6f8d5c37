"""Fields with their label maps: kept ones where there are good ones, else found by a segmenter."""

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from hpa_kit.cells.label_maps import LabelMaps
from hpa_kit.cells.mask_folder import MaskFolder
from hpa_kit.cells.one_or_many import Field
from hpa_kit.cells.segmenters import Segmenter
from hpa_kit.data import CHANNELS, read_field
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure, attempt, run_ahead

log = logging.getLogger(__name__)

# Fields that need no segmenter and wait behind one that does: memory against full batches.
MOST_PASSING = 8
# Fields that are read while the segmenter's networks work on as many: with fewer, the networks wait for them.
READ_AHEAD = 8


class FieldCells(NamedTuple):
    """A field, uint8 (4, H, W), its label maps, and whether the segmenter had to find them."""

    field: Field
    maps: LabelMaps
    made: bool


class _Read(NamedTuple):
    field: Field
    maps: LabelMaps | None  # None: the segmenter has to find them


_Item = tuple[str, _Read | Failure]


def kept_or_made(
    ids: Iterable[str],
    images: str | Path,
    finder: Segmenter,
    masks: str | Path | None = None,
    workers: int = 2,
    needed: int = len(CHANNELS),
) -> Generator[tuple[str, FieldCells | Failure], None, None]:
    """Read fields and their label maps, and find the cells of those that have none.

    Fields are read ahead in threads and go through the segmenter's stream, so that its networks see batches.
    A field that cannot be read, or on which the segmenter fails, gives a :class:`~hpa_kit.flow.Failure` and
    costs no other field its label maps: those that were under way with it are segmented one by one. Nothing
    is written. A few fields are in memory at a time.

    Args:
        ids: the fields, in the order wanted.
        images: folder of their images.
        finder: finds the cells.
        masks: folder of label maps, see :class:`~hpa_kit.cells.MaskFolder`; what cannot be read is warned of
            and found again. None: all are found.
        workers: threads that read.
        needed: channels that a field must have; 3 takes those without yellow, which is 0 there.

    Returns:
        an iterator of ID and field with label maps, or why there are none.

    Raises:
        InputError: ``masks`` is no folder, or one of other files.
    """
    folder = None if masks is None else MaskFolder(masks)
    if folder is not None:
        folder.check()
    return _kept_or_made(ids, Path(images), finder, folder, max(1, workers), needed)


def _kept_or_made(
    ids: Iterable[str], images: Path, finder: Segmenter, masks: MaskFolder | None, workers: int, needed: int
) -> Generator[tuple[str, FieldCells | Failure], None, None]:
    def read(id: str) -> tuple[str, _Read | Failure]:
        return id, attempt(_read, images, masks, id, needed)

    try:
        with (
            ThreadPoolExecutor(workers, "read") as pool,
            closing(run_ahead(pool, read, ids, max(workers + 1, READ_AHEAD))) as fields,
        ):
            for id, result in _through(fields, finder):
                if isinstance(result, FieldCells) and result.made and not result.maps.cells.any():
                    log.warning(f"cells: {finder.name} finds no cell in field {id}")
                yield id, result
    finally:
        if masks is not None:
            masks.report()


def _read(images: Path, masks: MaskFolder | None, id: str, needed: int) -> _Read:
    field = read_field(images, id, needed=needed)
    if masks is None:
        return _Read(field, None)
    try:
        return _Read(field, masks.read(id, field) if masks.find(id) is not None else None)
    except InputError as error:
        log.warning(f"{error}; its cells are found again")
        return _Read(field, None)


def _through(source: Iterator[_Item], finder: Segmenter) -> Iterator[tuple[str, FieldCells | Failure]]:
    """Everything in its order, what lacks label maps through the segmenter's stream."""
    for item in source:
        id, read = item
        if _lacks_maps(read) is None:  # none before it is at the segmenter, so it waits for none
            yield id, _alone(read, finder)
        else:
            yield from _segmented(item, source, finder)


def _segmented(
    first: _Item, source: Iterator[_Item], finder: Segmenter
) -> Iterator[tuple[str, FieldCells | Failure]]:
    """One stream of the segmenter, and what comes between the fields that it takes."""
    waiting: deque[_Item] = deque()

    def to_segment() -> Iterator[Field]:
        """Fields that lack label maps; ends early where many others wait behind them."""
        passing = 0
        item: _Item | None = first
        while item is not None:
            waiting.append(item)
            field = _lacks_maps(item[1])
            passing += field is None
            if field is not None:
                yield field
            item = next(source, None) if passing < MOST_PASSING else None

    pairs = iter(finder.stream(to_segment()))
    while not isinstance(pair := attempt(next, pairs, None), Failure) and pair is not None:
        while waiting:
            id, read = waiting.popleft()
            if isinstance(read, _Read) and read.maps is None:
                yield id, FieldCells(read.field, LabelMaps(*pair), made=True)
                break
            yield id, _alone(read, finder)
    # Those behind the last field of the stream and, where it broke, those that were under way.
    while waiting:
        id, read = waiting.popleft()
        yield id, _alone(read, finder)


def _lacks_maps(read: _Read | Failure) -> Field | None:
    """A field that was read and has no label maps."""
    return read.field if isinstance(read, _Read) and read.maps is None else None


def _alone(read: _Read | Failure, finder: Segmenter) -> FieldCells | Failure:
    """One field without the stream."""
    if isinstance(read, Failure):
        return read
    if read.maps is not None:
        return FieldCells(read.field, read.maps, made=False)
    pair = attempt(finder, read.field)
    return pair if isinstance(pair, Failure) else FieldCells(read.field, LabelMaps(*pair), made=True)
