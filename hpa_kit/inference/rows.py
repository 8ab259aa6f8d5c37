"""Tables that grow field by field: kept on disk, written as a valid CSV at any moment."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from hpa_kit.files import atomic_path, forget_torn, make_folder_of, written_file
from hpa_kit.inference.journal import Journal
from hpa_kit.inference.seconds import keep_seconds
from hpa_kit.submission import encode_mask, write_submission

Size = tuple[int, int]

# The CSV is brought up to date this often, or so seldom that writing takes at most a twentieth of the time.
WRITE_SECONDS = 60.0
WRITE_PART = 20
# What a row says whose field has no readable size; the competition's usual one.
USUAL_SIZE = (2048, 2048)
# A class, the lowest confidence that every reader takes, and an empty mask: it finds nothing and harms
# nothing, and unlike an empty text it is never taken for a missing value.
NOTHING = "0 0.000001 {mask}"


class GrowingTable(ABC):
    """A CSV of fields' results as they come; a context manager.

    Results are kept in a journal on disk, so memory does not grow with their number.

    Args:
        out: the CSV.
        ids: the fields, in the order they are written.
        journal: where results are kept; None for a temporary one.

    Attributes:
        seconds: that writing took the last time.

    Raises:
        InputError: no file can be made at ``out``.
    """

    def __init__(self, out: Path, ids: Sequence[str], journal: Journal | None = None) -> None:
        self.out, self.ids = Path(out), list(ids)
        self.seconds = 0.0
        self._due = 0.0
        make_folder_of(self.out)
        forget_torn(written_file(self.out).parent)
        self.journal = Journal(folder=self.out.parent) if journal is None else journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, trace)

    def write(self) -> None:
        """Write the CSV as far as it is known."""
        begun = time.monotonic()
        self._write()
        now = time.monotonic()
        self.seconds = now - begun
        self._due = now + max(WRITE_SECONDS, WRITE_PART * self.seconds)

    def write_if_due(self) -> None:
        """Write the CSV where the last time was long enough ago."""
        if time.monotonic() >= self._due:
            self.write()

    @abstractmethod
    def add(self, id: str, size: Size, result: str, **facts: object) -> None:
        """Keep a field's part of the table, and facts about it in the journal."""

    @abstractmethod
    def _write(self) -> None:
        """Put the CSV in its place, and what its fields took beside it."""


class SubmissionRows(GrowingTable):
    """The rows of a submission; those whose field is not done find nothing.

    Args:
        out: the CSV.
        ids: the rows, in the order they are written.
        sizes: {ID: (height, width)} of the rows whose size is known.
        journal: where prediction strings are kept; None for a temporary one.

    Raises:
        InputError: no file can be made at ``out``.
    """

    def __init__(
        self, out: Path, ids: Sequence[str], sizes: Mapping[str, Size], journal: Journal | None = None
    ) -> None:
        super().__init__(out, ids, journal)
        self.sizes = dict(sizes)
        self._nothing: dict[Size, str] = {}

    def add(self, id: str, size: Size, result: str, **facts: object) -> None:
        """Keep a field's prediction; an empty one becomes a row that finds nothing."""
        self.journal.add(id, result.encode("ascii"), size=size, **facts)

    def _write(self) -> None:
        write_submission(self.out, self._rows())
        keep_seconds(self.out, self.ids, self.journal)

    def _rows(self) -> Iterator[tuple[str, int, int, str]]:
        sizes = {id: self._size(id) for id in self.ids}
        usual = Counter(size for size in sizes.values() if size is not None).most_common(1)
        default = usual[0][0] if usual else USUAL_SIZE
        for id in self.ids:
            size = sizes[id] or default
            text = self.journal.read(id).decode("ascii")
            yield id, size[1], size[0], text or self._finds_nothing(size)

    def _size(self, id: str) -> Size | None:
        done = self.journal.facts(id).get("size") if id in self.journal else None
        return (done[0], done[1]) if done is not None else self.sizes.get(id)

    def _finds_nothing(self, size: Size) -> str:
        if size not in self._nothing:
            self._nothing[size] = NOTHING.format(mask=encode_mask(np.zeros(size, bool)))
        return self._nothing[size]


class CellRows(GrowingTable):
    """A table with any number of rows per field; fields that are not done have none.

    Args:
        out: the CSV.
        ids: the fields, in the order they are written.
        header: the first line.
        journal: where fields' rows are kept; None for a temporary one.

    Raises:
        InputError: no file can be made at ``out``.
    """

    def __init__(self, out: Path, ids: Sequence[str], header: str, journal: Journal | None = None) -> None:
        super().__init__(out, ids, journal)
        self.header = header

    def add(self, id: str, size: Size, result: str, **facts: object) -> None:
        """Keep a field's rows: whole lines of CSV."""
        self.journal.add(id, result.encode("utf-8"), size=size, **facts)

    def _write(self) -> None:
        with atomic_path(self.out) as temporary, temporary.open("wb") as file:
            file.write(self.header.encode("utf-8"))
            for id in self.ids:
                file.write(self.journal.read(id))
        keep_seconds(self.out, self.ids, self.journal)
