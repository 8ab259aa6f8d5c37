"""Results of fields on disk as they come, so that a run that was killed goes on where it was."""

import json
import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from hpa_kit.files import disk_full, is_full, make_folder_of
from hpa_kit.locks import open_alone

log = logging.getLogger(__name__)

FORMAT = "hpa_kit journal 1"
_HEAD = Struct("<III")  # bytes of what is known of a field, bytes of its result, checksum of both


class _Place(NamedTuple):
    start: int
    length: int
    facts: dict[str, Any]


class Journal:
    """Results of fields, appended to one file; a context manager.

    The file's first line says what the results depend on, so that those of other settings are not taken for
    one's own. A record has a checksum: one that was being written when the process was killed is dropped, the
    others count. While it is open no other process may open it. Where it is not finished (:meth:`finish`) the
    file stays, unless nothing is in it. Methods may be called by several threads.

    Args:
        path: the file; None for a temporary one, in ``folder``, that is lost at the end.
        folder: where a temporary one goes.

    Raises:
        InputError: it cannot be made, or another process holds it.
    """

    def __init__(self, path: Path | None = None, folder: Path | None = None) -> None:
        self.path = path
        self._places: dict[str, _Place] = {}
        self._lock = threading.Lock()
        self._begin: tuple[int, bytes] | None = (
            None  # what of the file counts, and what goes before the first result
        )
        self._file: IO[bytes]
        if path is None:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by __exit__
        else:
            make_folder_of(path)
            self._file = open_alone(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Unlocked only when it is closed: nobody else has it open.
        if self.path is not None and not os.fstat(self._file.fileno()).st_size:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def resume(self, depends_on: str, stamps: Mapping[str, str]) -> int:
        """Take up what the file holds, and forget what does not count any more.

        The file itself is changed by the first result that is added: a run that comes to nothing leaves
        another's results as they were.

        Args:
            depends_on: what all results depend on, in a few letters; those of another are forgotten.
            stamps: {ID: what this field's result depends on}; of other fields and stamps nothing is taken.

        Returns:
            number of fields taken up.
        """
        header = json.dumps({"format": FORMAT, "depends_on": depends_on}).encode() + b"\n"
        self._file.seek(0)
        found = self._file.readline()
        end = 0
        if found == header:
            end = len(header)
            for place in self._whole_records(end):
                end = place.start + place.length
                self._places[place.facts["id"]] = place
        elif found:
            log.info(f"{self.path} holds results of other settings; starting anew")
        self._begin = (end, b"" if end else header)
        for id in [id for id, place in self._places.items() if place.facts["stamp"] != stamps.get(id)]:
            del self._places[id]
        return len(self._places)

    def add(self, id: str, result: bytes, **facts: Any) -> None:
        """Keep a field's result; a later one of the same field counts.

        Args:
            id: the field's ID.
            result: any bytes.
            facts: what else is known of it, as JSON holds it; ``stamp`` among them for :meth:`resume`.

        Raises:
            InputError: the disk takes no more.
        """
        known = json.dumps({"id": id, "stamp": "", **facts}).encode()
        body = known + result
        record = _HEAD.pack(len(known), len(result), zlib.crc32(body)) + body
        with self._lock:
            if self._begin is not None:
                end, header = self._begin
                self._file.truncate(end)
                record, self._begin = header + record, None
            end = self._file.seek(0, os.SEEK_END)
            self._write(record)
            start = end + len(record) - len(result)
            self._places[id] = _Place(start, len(result), {"id": id, "stamp": "", **facts})

    def __contains__(self, id: object) -> bool:
        return id in self._places

    def facts(self, id: str) -> dict[str, Any]:
        """What is known of a field beside its result."""
        return self._places[id].facts

    def read(self, id: str) -> bytes:
        """A field's result, empty where there is none."""
        with self._lock:
            place = self._places.get(id)
            return b"" if place is None else self._read(place.start, place.length)

    def forget(self, id: str) -> None:
        """Have a field's result no longer."""
        with self._lock:
            self._places.pop(id, None)

    def finish(self) -> None:
        """Remove the file: its results stand elsewhere now."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _write(self, record: bytes) -> None:
        """Unbuffered and at once, so that what was added outlives the process."""
        view = memoryview(record)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            if is_full(error):
                raise disk_full(self.path or "a temporary file", error) from None
            raise

    def _read(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        parts = []
        while length and (part := self._file.read(length)):
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _whole_records(self, start: int) -> Iterator[_Place]:
        """Records up to the first that is not whole."""
        size = os.fstat(self._file.fileno()).st_size
        while start + _HEAD.size <= size:
            n_known, n_result, checksum = _HEAD.unpack(self._read(start, _HEAD.size))
            start += _HEAD.size
            body = self._read(start, n_known + n_result) if start + n_known + n_result <= size else b""
            if len(body) != n_known + n_result or zlib.crc32(body) != checksum:
                return
            facts = _facts(body[:n_known])
            if facts is None:
                return
            yield _Place(start + n_known, n_result, facts)
            start += len(body)


def _facts(text: bytes) -> dict[str, Any] | None:
    """What a record says of its field; None where it is none of this kit's."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and {"id", "stamp"} <= facts.keys() else None
