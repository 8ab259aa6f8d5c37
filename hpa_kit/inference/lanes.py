"""Fields through segmenter, members and rule, all of it at once; one lane of threads per device.

In a lane one thread pulls fields through reading, finding cells and making ready, each with threads of its
own; the lane's own thread has the members look at batches; one more makes scores and strings. Lanes take
their batches from one list, so that a faster device does more.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from hpa_kit.cells import FieldCells, kept_or_made
from hpa_kit.cells.segmenters import Segmenter
from hpa_kit.flow import Background, Failure, attempt, run_ahead
from hpa_kit.inference.batching import Batches
from hpa_kit.inference.budget import BatchSeconds, Pace
from hpa_kit.inference.ensemble import Effort, Ensemble, FieldMaps
from hpa_kit.inference.prepare import PreparedField, Preparer
from hpa_kit.timing import Stopwatch

log = logging.getLogger(__name__)

D = TypeVar("D")  # what is made of a field's full size
R = TypeVar("R")  # what comes of a field
T = TypeVar("T")

# Batches in a row of which nothing could be used, though they could be read: then the device is broken.
MOST_BROKEN = 3
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Shared(Generic[D, R]):
    """What the lanes share.

    Attributes:
        images: folder of the fields.
        masks: folder of label maps, or None.
        needed: channels that a field must have.
        workers: threads of each lane that read fields, and as many that make them ready.
        finish: a field and what the members say of it -> what comes of it; in a thread.
        receive: takes what came of a field, and its seconds by part, or why nothing came; by one thread at
            a time.
        pace: the clock.
        efforts: from full to least; the pace's numbers.
        after: is called after each batch with seconds per field by part.
    """

    images: Path
    masks: Path | None
    needed: int
    workers: int
    finish: Callable[[PreparedField[D], FieldMaps], R]
    receive: Callable[[str, PreparedField[D] | None, R | Failure, Mapping[str, float]], None]
    pace: Pace
    efforts: Sequence[Effort]
    after: Callable[[int, dict[str, float]], None]


class _Ready(NamedTuple):
    """A batch that the members can look at, and the seconds that it took by part."""

    fields: list[tuple[str, PreparedField[Any] | Failure]]
    seconds: dict[str, float]


@dataclass
class Lane(Generic[D, R]):
    """One device and its threads."""

    name: str
    ensemble: Ensemble
    finder: Segmenter
    prepare: Preparer[D]
    job: Shared[D, R]
    batches: Batches
    receiving: threading.Lock
    stop: threading.Event
    waiting: "deque[Future[float]]" = field(default_factory=deque)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Do batches until there are no more, time is up, the device is broken, or it is told to stop."""
        ready = Background(self._ready())
        try:
            with ThreadPoolExecutor(1, "score") as scoring:
                try:
                    self._batches(ready, scoring)
                finally:
                    self._collect()
        finally:
            self.ended.set()
            ready.close()

    def _batches(self, ready: Background[_Ready], scoring: ThreadPoolExecutor) -> None:
        job, now = self.job, self.job.pace.budget.now
        broken = 0
        before: tuple[int, int] | None = None  # effort and fields of the batch that is scored meanwhile
        asked = now()
        while (batch := self._next(ready)) is not None:
            good = [field for _, field in batch.fields if not isinstance(field, Failure)]
            effort = job.pace.choose(len(good))
            if effort is None:
                return
            self.ensemble.effort = job.efforts[effort]
            begun = now()
            seen = self._look(good)
            looked = now() - begun
            scored = self._collect()
            parts = {part: took / len(batch.fields) for part, took in batch.seconds.items()}
            self._receive_failures(batch, good, seen)
            each = parts | {"members": looked / max(1, len(good))}
            for one, maps in zip(good, seen, strict=True):
                if not isinstance(maps, Failure):
                    self.waiting.append(scoring.submit(self._score, one, maps, each))
            whole, asked = now() - asked, now()
            spent = BatchSeconds(sum(batch.seconds.values()), looked, scored, whole, before or (effort, 0))
            # The first batch to be scored waits for compilers, and tells nothing of the others.
            before = (effort, 0 if before is None else len(self.waiting))
            job.pace.add(effort, len(batch.fields), len(good), spent)
            with self.receiving:
                job.after(len(batch.fields), parts | job.pace.parts())
            broken = broken + 1 if good and all(isinstance(maps, Failure) for maps in seen) else 0
            if broken == MOST_BROKEN:
                log.error(f"{self.name} failed on {broken} batches in a row and is left alone")
                return

    def _next(self, ready: Background[_Ready]) -> _Ready | None:
        """The next batch; a disk that hangs is waited for as long as there is time."""
        while not self.stop.is_set() and (left := self.job.pace.budget.left()) > 0:
            try:
                return ready.get(min(POLL_SECONDS, left))
            except TimeoutError:
                continue
        return None

    def _ready(self) -> Iterator[_Ready]:
        """Batches as they get ready; pulled by a thread of its own."""
        job, watch = self.job, Stopwatch(self.job.pace.budget.now)
        sizes: deque[int] = deque()

        def ids() -> Iterator[str]:
            while not self.stop.is_set() and (batch := self.batches.take()) is not None:
                sizes.append(len(batch))
                yield from batch

        def ready(item: tuple[str, FieldCells | Failure]) -> tuple[str, PreparedField[D] | Failure]:
            id, found = item
            return id, found if isinstance(found, Failure) else attempt(self.prepare, id, found)

        def wanted(items: Iterator[T]) -> Iterator[T]:
            for item in items:
                if self.ended.is_set():  # nobody takes the batch that this would go into
                    return
                yield item

        finder = _Watched(self.finder, watch)
        with (
            closing(kept_or_made(ids(), job.images, finder, job.masks, job.workers, job.needed)) as found,
            ThreadPoolExecutor(job.workers, "prepare") as pool,
            closing(run_ahead(pool, ready, watch.watch("reading", wanted(found)), job.workers)) as prepared,
            closing(watch.watch("preparing", prepared)) as fields,
        ):
            while not self.ended.is_set():
                before = dict(watch.seconds)
                # The first of a batch tells how large it is: its IDs have been taken by then.
                some = list(islice(fields, 1))
                if not some:
                    return
                some += islice(fields, sizes.popleft() - 1)
                took = {part: seconds - before.get(part, 0.0) for part, seconds in watch.seconds.items()}
                yield _Ready(some, took)

    def _look(self, good: list[PreparedField[D]]) -> list[FieldMaps | Failure]:
        """What the members say; where they fail on a batch, each of its fields has another chance alone."""
        if not good:
            return []
        seen = attempt(self.ensemble.look, [field.inputs for field in good])
        if not isinstance(seen, Failure):
            return list(seen)
        if len(good) == 1:
            return [seen]
        alone = [attempt(self.ensemble.look, [field.inputs]) for field in good]
        return [found if isinstance(found, Failure) else found[0] for found in alone]

    def _score(self, one: PreparedField[D], maps: FieldMaps, seconds: Mapping[str, float]) -> float:
        """Score a field and hand over what comes of it at once: a kill does not cost it; seconds it took."""
        now = self.job.pace.budget.now
        begun = now()
        result = attempt(self.job.finish, one, maps)
        took = now() - begun
        with self.receiving:
            self.job.receive(one.id, one, result, {**seconds, "scoring": took})
        return took

    def _collect(self) -> float:
        """Wait until all has been scored; returns the seconds that it took to score."""
        seconds = 0.0
        while self.waiting:
            seconds += self.waiting.popleft().result()
        return seconds

    def _receive_failures(
        self, batch: _Ready, good: list[PreparedField[D]], seen: list[FieldMaps | Failure]
    ) -> None:
        failed = [(id, found) for id, found in batch.fields if isinstance(found, Failure)]
        failed += [(one.id, maps) for one, maps in zip(good, seen, strict=True) if isinstance(maps, Failure)]
        with self.receiving:
            for id, failure in failed:
                self.job.receive(id, None, failure, {})


class _Watched:
    """A segmenter whose time is taken, apart from that of the fields it waits for."""

    def __init__(self, finder: Segmenter, watch: Stopwatch) -> None:
        self._finder, self._watch = finder, watch
        self.name, self.settings = finder.name, finder.settings

    def __call__(self, fields: Any) -> Any:
        return self._finder(fields)

    def stream(self, fields: Iterable[Any]) -> Iterator[Any]:
        return self._watch.watch("cells", self._finder.stream(self._watch.watch("reading", fields)))


def run_lanes(lanes: Sequence[Lane[D, R]], stop: threading.Event, meanwhile: Callable[[], None]) -> None:
    """Run lanes side by side until all have ended.

    Args:
        lanes: at least one.
        stop: set when a lane fails or the user interrupts; the others end after their batch.
        meanwhile: is called about twice a second in the caller's thread.

    Raises:
        BaseException: what went wrong in a lane.
    """
    with ThreadPoolExecutor(len(lanes), "lane") as pool:
        pending = {pool.submit(lane.run) for lane in lanes}
        try:
            while pending:
                done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                meanwhile()
        finally:
            stop.set()
