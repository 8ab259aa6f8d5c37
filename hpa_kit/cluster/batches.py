"""Batches of fields sent to workers, and what comes back; what a worker dies of costs itself alone."""

import logging
from collections import Counter, deque
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any, Protocol
from uuid import uuid4

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
    at which several died is taken apart, and a field at which they die though nothing else is under way is
    told as failed. Where the caller leaves, what has not begun is not done.

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
    said, tally = set[str](), _Tally()
    with (
        progress_bar(what, done + total, initial=done) as bar,
        closing(_answered(what, workers, job, batches)) as answers,
    ):
        for items, came in answers:
            for level, text in came.said:
                if text not in said:
                    said.add(text)
                    log.log(level, text)
            tally.add(came)
            results = {items[0].id: came.results} if isinstance(came.results, Failure) else came.results
            for id, result in results.items():
                yield id, result
                forecast.add(1)
                bar.update()
    log.info(f"{what}: {tally}")


def _answered(
    what: str, workers: Workers, job: Job, batches: Sequence[Sequence[Item]]
) -> Generator[tuple[list[Item], Done], None, None]:
    """Have workers do batches, and give what came of each; only one of a single field may be a failure."""
    number, pickled, own = uuid4().hex, cloudpickle.dumps(job), versions()
    to_do = deque(map(list, batches))
    # Dask blames all that a dead worker was to do, so these are tried with nothing else under way.
    suspects: deque[Item] = deque()
    alone: Future | None = None
    under_way: dict[Future, list[Item]] = {}
    finished: SimpleQueue[Future] = SimpleQueue()
    cancelled: Counter[str] = Counter()

    def send(items: list[Item]) -> Future:
        future = workers.submit(do_batch, Task(number, pickled, own, items))
        under_way[future] = items
        future.add_done_callback(finished.put)
        return future

    try:
        while to_do or under_way or suspects:
            while to_do and alone is None and len(under_way) < max(1, workers.count()):
                send(to_do.popleft())
            if not under_way:
                alone = send([suspects.popleft()])
            future = _next(finished, workers)
            items = under_way.pop(future)
            was_alone, alone = future is alone, None
            try:
                came = _came(what, workers, future)
            except _WorkersDied as death:
                if was_alone:
                    yield items, Done(Failure(str(death)))
                else:
                    log.warning(f"{what}: {_named(items)}: {death}; each is tried alone, at the end")
                    suspects.extend(items)
                continue
            if came is None:
                cancelled[items[0].id] += 1
                if cancelled[items[0].id] > MAX_CANCELLED:
                    raise InputError(
                        f"{what}: others on this cluster cancel its batches; nothing done is lost"
                    )
                to_do.appendleft(items)
            elif isinstance(came.results, Failure) and len(items) > 1:
                log.warning(f"{what}: {_named(items)}: {came.results.reason}; each is tried alone")
                to_do.extendleft([item] for item in reversed(items))
            else:
                yield items, came
    finally:
        for future in under_way:
            future.cancel()


def _next(finished: "SimpleQueue[Future]", workers: Workers) -> Future:
    """Wait for a batch to end.

    Raises:
        InputError: the cluster is gone.
    """
    while True:
        try:
            return finished.get(timeout=POLL_SECONDS)
        except Empty:
            workers.count()


def _named(items: Sequence[Item]) -> str:
    return items[0].id if len(items) == 1 else f"{len(items)} fields from {items[0].id} on"


class _WorkersDied(Exception):
    """Workers died at a batch, or while they had it yet to do."""


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
        _WorkersDied: they died.
    """
    try:
        came = future.result()
    except CancelledError:
        workers.count()
        return None
    except Exception as error:
        workers.count()
        if (death := workers.death(error)) is not None:
            raise _WorkersDied(death) from None
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
