"""Batches of fields sent to workers, and what comes back; what a worker dies of costs itself alone."""

import logging
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import cloudpickle

from hpa_kit.cluster.worker import Done, Item, Job, Refused, Task, do_batch, versions
from hpa_kit.errors import InputError, one_line
from hpa_kit.flow import Failure
from hpa_kit.progress import progress_bar
from hpa_kit.timing import Forecast

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
MAX_CANCELLED = 3  # times that one field's batches are sent again after somebody else has cancelled them


class Future(Protocol):
    """What a batch that was sent becomes: one of ``distributed``, or of ``concurrent.futures``."""

    def add_done_callback(self, fn: Any, /) -> Any: ...
    def result(self) -> Any: ...
    def cancel(self) -> Any: ...


class Workers(Protocol):
    """The workers of a cluster; see :class:`~hpa_kit.cluster.connect.Cluster`."""

    def submit(self, function: Any, task: Task) -> Future:
        """Have a worker call a function."""

    def count(self) -> int:
        """How many there are now.

        Raises:
            InputError: the cluster is gone.
        """

    def death(self, error: BaseException) -> str | None:
        """How workers died at what gave this error; None where it is another error."""


def done_by_workers(
    what: str, workers: Workers, job: Job, batches: Sequence[Sequence[Item]], done: int = 0
) -> Generator[tuple[str, Any], None, None]:
    """Give what workers make of fields, as it comes, and show how far they are.

    As many batches are under way as there are workers. One whose worker dies is done again by another; one
    at which several died is taken apart, and a field at which they still die is told as failed. Where the
    caller leaves, what has not begun is not done.

    Args:
        what: the command.
        workers: of a cluster.
        job: what they do.
        batches: fields that are done together.
        done: fields that were done before, for the progress.

    Returns:
        a generator of ID and what was made of the field, or a :class:`~hpa_kit.flow.Failure`; to be closed.

    Raises:
        InputError: a worker cannot do the job, or the cluster is gone.
    """
    if not batches:
        return
    total, largest = sum(map(len, batches)), max(map(len, batches))
    forecast = Forecast(what, total, largest * max(1, workers.count()))
    with (
        progress_bar(what, done + total, initial=done) as bar,
        closing(_done(what, workers, job, batches)) as results,
    ):
        for id, result in results:
            yield id, result
            forecast.add(1)
            bar.update()


def _done(
    what: str, workers: Workers, job: Job, batches: Sequence[Sequence[Item]]
) -> Generator[tuple[str, Any], None, None]:
    pickled, own = cloudpickle.dumps(job), versions()
    to_do = deque(map(list, batches))
    under_way: dict[Future, list[Item]] = {}
    finished: SimpleQueue[Future] = SimpleQueue()
    said: set[str] = set()
    cancelled: dict[str, int] = {}
    tally = _Tally()
    try:
        while to_do or under_way:
            while to_do and len(under_way) < max(1, workers.count()):
                future = workers.submit(do_batch, Task(pickled, own, items := to_do.popleft()))
                under_way[future] = items
                future.add_done_callback(finished.put)
            try:
                future = finished.get(timeout=POLL_SECONDS)
            except Empty:
                workers.count()
                continue
            items = under_way.pop(future)
            came = _came(what, workers, future)
            if came is None:
                first = items[0].id
                cancelled[first] = cancelled.get(first, 0) + 1
                if cancelled[first] > MAX_CANCELLED:
                    raise InputError(
                        f"{what}: others on this cluster cancel its batches; nothing done is lost"
                    )
                to_do.appendleft(items)
                continue
            for level, text in came.said:
                if text not in said:
                    said.add(text)
                    log.log(level, text)
            tally.add(came)
            if not isinstance(came.results, Failure):
                yield from came.results.items()
            elif len(items) == 1:
                yield items[0].id, came.results
            else:
                which = f"{len(items)} fields from {items[0].id} on"
                log.warning(f"{what}: {which}: {came.results.reason}; each is tried alone")
                to_do.extendleft([item] for item in reversed(items))
        log.info(f"{what}: {tally}")
    finally:
        for future in under_way:
            future.cancel()


class _Tally:
    """What workers took, to be told at the end."""

    def __init__(self) -> None:
        self.workers: set[str] = set()
        self.fields, self.seconds, self.memory = 0, 0.0, 0

    def add(self, came: Done) -> None:
        if isinstance(came.results, Failure):
            return
        self.workers.add(came.worker)
        self.fields += len(came.results)
        self.seconds += came.seconds
        self.memory = max(self.memory, came.memory)

    def __str__(self) -> str:
        return (
            f"{self.fields} fields by {len(self.workers)} workers; a field took "
            f"{self.seconds / max(1, self.fields):.2g} processor seconds, a worker held "
            f"{self.memory / 2**30:.2g} GiB at most"
        )


def _came(what: str, workers: Workers, future: Future) -> Done | None:
    """What came of a batch; None where somebody cancelled it.

    Raises:
        InputError: a worker cannot do the job, or the cluster is gone.
    """
    try:
        came = future.result()
    except CancelledError:
        workers.count()
        return None
    except Exception as error:
        workers.count()
        if (death := workers.death(error)) is not None:
            return Done(Failure(death))
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "hpa_kit":
            raise InputError(
                f"{what}: workers lack {error.name}; give all of a cluster the same environment"
            ) from None
        raise InputError(
            f"{what}: no worker can do a batch: {type(error).__name__}: {one_line(error)}"
        ) from None
    if isinstance(came, Refused):
        raise InputError(f"{what}: {came.reason}")
    assert isinstance(came, Done)
    return came
