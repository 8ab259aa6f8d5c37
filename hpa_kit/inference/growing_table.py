"""Tables that grow field by field, valid CSVs at any moment; and what their fields took, beside them."""

import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import yaml
from pydantic import Field

from hpa_kit.config.base import Settings, load_yaml, make_settings
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, atomic_text, make_folder_of, remove_stale, written_file
from hpa_kit.inference.prediction import Size
from hpa_kit.inference.results import Journal
from hpa_kit.submission import encode_mask, write_submission

log = logging.getLogger(__name__)

# The CSV is brought up to date this often, or so seldom that writing takes at most a twentieth of the time.
WRITE_SECONDS = 60.0
WRITE_PART = 20
# What a row says whose field has no readable size; the competition's usual one.
USUAL_SIZE = (2048, 2048)
# A class, the lowest confidence that every reader takes, and an empty mask: it finds nothing and harms
# nothing, and unlike an empty text it is never taken for a missing value.
NOTHING = "0 0.000001 {mask}"

PARTS = ("reading", "cells", "preparing", "members", "scoring")  # in the order of the work
DIGITS = 6
SECONDS_HEADER = (
    "# Seconds of a field by part; parts overlap. Fields: those scored, in all starts of the run.\n"
)


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
        self._writer = ThreadPoolExecutor(1, "write")
        self._writing: Future[None] | None = None
        self._make_place()
        self.journal = Journal(folder=self.out.parent) if journal is None else journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown()
        self.journal.__exit__(kind, error, trace)

    def _make_place(self) -> None:
        """Make what the table is written into, and remove what was left half-written there."""
        make_folder_of(self.out)
        remove_stale(written_file(self.out).parent)

    def write(self) -> None:
        """Write the CSV as far as it is known."""
        self.wait()
        self._write_now()

    def write_if_due(self) -> None:
        """Begin to write the CSV, in a thread, where the last time was long enough ago."""
        if time.monotonic() < self._due or (self._writing is not None and not self._writing.done()):
            return
        self.wait()
        self._writing = self._writer.submit(self._write_now)

    def wait(self) -> None:
        """Wait until what :meth:`write_if_due` began is done."""
        if self._writing is not None:
            begun, self._writing = self._writing, None
            begun.result()

    @contextmanager
    def growing(self) -> Generator[None, None, None]:
        """Have the CSV written as far as it is known now, and again at the end, whatever ends it."""
        self.write()
        try:
            yield
        finally:
            self.write()

    def _write_now(self) -> None:
        begun = time.monotonic()
        self._write()
        _keep_seconds(self.out, self.ids, self.journal)
        now = time.monotonic()
        self.seconds = now - begun
        self._due = now + max(WRITE_SECONDS, WRITE_PART * self.seconds)

    @abstractmethod
    def _write(self) -> None:
        """Put the CSV in its place."""


class SubmissionTable(GrowingTable):
    """The rows of a submission; those whose field is not done find nothing.

    Args:
        out: the CSV.
        ids: the rows, in the order they are written.
        sizes: {ID: (height, width)} of the rows whose size is known.
        journal: where prediction strings are kept, an empty one where nothing was found; None for a temporary
            one.

    Raises:
        InputError: no file can be made at ``out``.
    """

    def __init__(
        self, out: Path, ids: Sequence[str], sizes: Mapping[str, Size], journal: Journal | None = None
    ) -> None:
        super().__init__(out, ids, journal)
        self.sizes = dict(sizes)
        self._nothing: dict[Size, str] = {}

    def _write(self) -> None:
        write_submission(self.out, self._rows())

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


class CellTable(GrowingTable):
    """A table with any number of rows per field; fields that are not done have none.

    Args:
        out: the CSV.
        ids: the fields, in the order they are written.
        header: the first line.
        journal: where fields' rows are kept, whole lines of CSV; None for a temporary one.

    Raises:
        InputError: no file can be made at ``out``.
    """

    def __init__(self, out: Path, ids: Sequence[str], header: str, journal: Journal | None = None) -> None:
        super().__init__(out, ids, journal)
        self.header = header

    def _write(self) -> None:
        with atomic_path(self.out) as temporary, temporary.open("wb") as file:
            file.write(self.header.encode("utf-8"))
            for id in self.ids:
                file.write(self.journal.read(id))


class PartSeconds(Settings):
    """What a part of the work took: mean seconds of a field, over how many fields."""

    seconds_per_field: float = Field(ge=0)
    fields: int = Field(ge=1)


def seconds_of(table: Path) -> Path:
    """Where a table's seconds are kept: ``submission_seconds.yaml`` beside ``submission.csv``.

    No CSV, so that nobody takes it for the submission beside which it lies.
    """
    return table.with_name(f"{table.stem}_seconds.yaml")


def read_seconds(path: Path) -> dict[str, PartSeconds]:
    """What lies beside a table, by part.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    content = load_yaml(path, "seconds")
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise InputError(f"seconds: {path} cannot be used; expected seconds_per_field and fields by part")
    return {
        str(part): make_settings(PartSeconds, value, source=f"{path}: {part}")
        for part, value in content.items()
    }


def _keep_seconds(table: Path, ids: Iterable[str], journal: Journal) -> None:
    """Bring the file beside a table in step with it.

    Each field's result in the journal has its seconds with it, so those of earlier starts are among them.
    Where nothing was measured there is no file. Where it cannot be written that is said: a table is not lost
    for want of it.
    """
    taken: dict[str, list[float]] = {part: [] for part in PARTS}
    for id in ids:
        known = journal.facts(id).get("seconds", {}) if id in journal else {}
        for part, seconds in known.items():
            taken.setdefault(part, []).append(seconds)
    content = {
        part: {"seconds_per_field": round(sum(each) / len(each), DIGITS), "fields": len(each)}
        for part, each in taken.items()
        if each
    }
    path = seconds_of(table)
    try:
        if content:
            atomic_text(path, SECONDS_HEADER + yaml.safe_dump(content, sort_keys=False))
        else:
            path.unlink(missing_ok=True)
    except (InputError, OSError) as error:
        log.warning(f"times of the fields of {table} are not kept: {error}")
