"""Results of fields as they come, on disk at once: a run that was killed goes on where it was."""

import json
import logging
import os
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from hpa_kit.cells import code_of_segmenter, label_map_ids
from hpa_kit.config import EnsembleSettings, StreamSettings
from hpa_kit.data import Images
from hpa_kit.errors import InputError
from hpa_kit.files import disk_full, is_full, make_folder_of, written_file
from hpa_kit.flow import Failure
from hpa_kit.inference.prediction import Made, Size
from hpa_kit.locks import open_locked
from hpa_kit.resume import depends_on, field_stamps
from hpa_kit.scoring.functions import code_of

log = logging.getLogger(__name__)

MAX_NAMED = 10  # faults of one kind that are named one by one

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
            self._file = open_locked(path)

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

    def add(self, id: str, result: str | bytes, **facts: Any) -> None:
        """Keep a field's result; a later one of the same field counts.

        Args:
            id: the field's ID.
            result: any text or bytes.
            facts: what else is known of it, as JSON holds it; ``stamp`` among them for :meth:`resume`.

        Raises:
            InputError: the disk takes no more.
        """
        known = json.dumps({"id": id, "stamp": "", **facts}).encode()
        result = result.encode("utf-8") if isinstance(result, str) else result
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

    def place(self, id: str) -> int | None:
        """Where a field's result begins, another number for every other result; None where there is none."""
        found = self._places.get(id)
        return None if found is None else found.start

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


class Outcome(NamedTuple):
    """What came of fields.

    Attributes:
        ids: the fields.
        failed: {ID: reason} of those that could not be used.
        late: IDs for which there was no time.
        made: number of fields whose cells the segmenter had to find.
        sizes: {ID: (height, width)} of the images that were read.
        empty: number of fields that were scored and have no cell.
    """

    ids: list[str]
    failed: dict[str, str]
    late: list[str]
    made: int
    sizes: dict[str, Size]
    empty: int

    def __add__(self, other: "Outcome") -> "Outcome":  # type: ignore[override]
        """What came of these fields and others."""
        return Outcome(
            ids=self.ids + other.ids,
            failed=self.failed | other.failed,
            late=self.late + other.late,
            made=self.made + other.made,
            sizes=self.sizes | other.sizes,
            empty=self.empty + other.empty,
        )

    def report(self, what: str, masks: Path | None, loss: str) -> None:
        """Say of which fields nothing came, and why; last, how many have no cell.

        Args:
            what: the command.
            masks: the folder of label maps, or None.
            loss: what becomes of a field of which nothing came, such as ``finds nothing``.
        """
        total = len(self.ids)
        if self.made and masks is not None:
            log.warning(
                f"{what}: {masks} lacks usable label maps of {self.made} of {total} fields; "
                "their cells were found now"
            )
        for id, reason in list(self.failed.items())[:MAX_NAMED]:
            log.warning(f"{what}: ID {id} {loss}: {reason}")
        if self.failed:
            log.warning(f"{what}: {len(self.failed)} of {total} fields could not be used; each {loss}")
        if self.late:
            log.warning(
                f"{what}: {len(self.late)} of {total} fields were not reached; each {loss}; the same command "
                f"goes on with them: {named(self.late)}"
            )
        if self.empty:
            log.warning(f"{what}: {self.empty} of {total} fields have no cell")

    def refuse_if_nothing_done(self, what: str, images: Images) -> None:
        """Raise where not one field was scored: none could be used, none was reached, or the device broke.

        A field without cells was scored.

        Raises:
            InputError: naming the first one's reason.
        """
        failed, late = self.failed, self.late
        if not self.ids or len(failed) + len(late) < len(self.ids):
            return
        first = f"the first: {next(iter(failed.values()))}" if failed else "there was no time for any"
        if not late:
            raise InputError(f"{what}: no field of {images} could be used; {first}")
        tried = f"{len(failed)} could not be used and " if failed else ""
        raise InputError(
            f"{what}: not one of the {len(self.ids)} fields of {images} was scored: {tried}{len(late)} were "
            f"not reached; {first}; the same command tries them again"
        )


class Results:
    """Results of fields in a journal, going on where an earlier call was stopped.

    Args:
        what: the command, for the log.
        ids: all fields, in order.
        images: their folder.
        journal: where they are kept.
        settings, ensemble: by which they are made.
        sizes: {ID: (height, width)} that results get in place of the field's own.
    """

    def __init__(
        self,
        what: str,
        ids: Sequence[str],
        images: Images,
        journal: Journal,
        settings: StreamSettings,
        ensemble: EnsembleSettings,
        sizes: Mapping[str, Size] | None = None,
    ) -> None:
        self.what, self.ids, self.journal, self.sizes = what, list(ids), journal, dict(sizes or {})
        chosen, code = ensemble.model_dump(exclude={"masks"}), code_of(ensemble.rule)
        self.stamps = field_stamps(self.ids, images, [(ensemble.masks, label_map_ids)], self.sizes)
        own = code_of_segmenter(ensemble.segmenter)
        journal.resume(depends_on(what, settings.amp, chosen, code, *own), self.stamps)

    @property
    def done(self) -> list[str]:
        """The fields that have a result, or of which it is known that there is none."""
        return [id for id in self.ids if id in self.journal]

    def forget(self, ids: Iterable[str]) -> None:
        """Have no results of fields any longer, as of those whose files beside the table are gone."""
        for id in list(ids):
            self.journal.forget(id)

    def still_to_do(self, most: int) -> list[list[str]]:
        """Batches with something left to do.

        The same fields stay together, so that they get the same scores whether or not a run was interrupted;
        those that failed before are tried again alone.

        Args:
            most: fields in a batch at most.
        """
        if self.done:
            log.info(f"{self.what}: {len(self.done)} of {len(self.ids)} fields were done before; going on")
        remaining, batches = iter(self.ids), []
        for size in batch_sizes(len(self.ids), most):
            batch = list(islice(remaining, size))
            failed = [id for id in batch if id in self.journal and "failed" in self.journal.facts(id)]
            if any(id not in self.journal for id in batch):
                batches.append(batch)
            elif failed:
                batches.append(failed)
        return batches

    def add(self, made: Made) -> None:
        """Keep what was made of a field's prediction."""
        id, stamp = made.id, self.stamps[made.id]
        if isinstance(made.result, Failure):
            self.journal.add(id, b"", stamp=stamp, failed=made.result.reason)
            return
        size = self.sizes.get(id, made.facts["actual"])
        self.journal.add(id, made.result, stamp=stamp, size=size, **made.facts)

    def outcome(self) -> Outcome:
        """What came of the fields."""
        known = {id: self.journal.facts(id) for id in self.done}
        return Outcome(
            ids=self.ids,
            failed={id: str(facts["failed"]) for id, facts in known.items() if "failed" in facts},
            late=[id for id in self.ids if id not in known],
            made=sum(bool(facts.get("made")) for facts in known.values()),
            sizes={
                id: (facts["actual"][0], facts["actual"][1])
                for id, facts in known.items()
                if "actual" in facts
            },
            empty=sum(facts.get("cells") == 0 for facts in known.values()),
        )


def batch_sizes(fields: int, most: int) -> Iterator[int]:
    """Sizes of batches: small ones at both ends, where the parts of the work wait for each other.

    The first also shows what a field takes before much has been spent on it.
    """
    size = 1
    while fields:
        yield (some := min(size, most, (fields + 1) // 2))
        fields, size = fields - some, 2 * size


def journal_of(out: Path) -> Path:
    """Where results are kept until the CSV is whole: hidden, beside it, by whatever link it is named."""
    file = written_file(out)
    return file.with_name(f".{file.name}.partial")


def named(ids: Sequence[str]) -> str:
    """The first IDs of a list, as text."""
    return ", ".join(ids[:MAX_NAMED]) + (", …" if len(ids) > MAX_NAMED else "")
