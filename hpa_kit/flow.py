"""Work on a stream of items: some ahead, in batches, one item's fault not being the others'."""

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from hpa_kit.errors import InputError

log = logging.getLogger(__name__)

S = TypeVar("S")
T = TypeVar("T")


class Failure(NamedTuple):
    """Why there is no result."""

    reason: str


def share(items: Sequence[T], shard: int, shards: int) -> list[T]:
    """Take one of several contiguous shares that together are a list, of one length but for one item."""
    return list(items[len(items) * shard // shards : len(items) * (shard + 1) // shards])


def attempt(function: Callable[..., T], *arguments: object) -> T | Failure:
    """Call; what goes wrong comes back as a :class:`Failure`, to be counted and said by the caller.

    What is no fault of the input is logged with its traceback too.
    """
    try:
        return function(*arguments)
    except InputError as error:
        return Failure(str(error))
    except Exception as error:
        log.warning("an unexpected fault", exc_info=True)
        return Failure(f"{type(error).__name__}: {error}")


def run_ahead(
    pool: ThreadPoolExecutor, function: Callable[[S], T], items: Iterable[S], most: int
) -> Generator[T, None, None]:
    """Give results in the items' order, worked out by the pool at most ``most`` items ahead.

    What has not begun when nobody wants more results is left undone.
    """
    remaining = iter(items)
    waiting = deque(pool.submit(function, item) for item in islice(remaining, most))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C, as do for good the processes that are started in the block; of the main thread only.

    A terminal sends it to all of them, and each would print where it was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut items into lists of ``size`` in order, the last one perhaps shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


class Background(Generic[T]):
    """Items of iterators as they come, each iterator pulled by a thread of its own.

    An iterator that works between its items goes on working while the caller does something else.

    Args:
        sources: iterators; each is pulled, and closed, in its thread only.
        ahead: items of each that are worked on, or wait, before they are asked for.
    """

    def __init__(self, *sources: Iterator[T], ahead: int = 1) -> None:
        self._found: SimpleQueue[tuple[int, tuple[T] | BaseException | None]] = SimpleQueue()
        self._may_pull = [threading.Semaphore(ahead) for _ in sources]
        self._unwanted = threading.Event()
        self._ended = 0
        self._fault: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._pull, args=(place, items), name="background", daemon=True)
            for place, items in enumerate(sources)
        ]
        for thread in self._threads:
            thread.start()

    def get(self, seconds: float | None = None) -> T | None:
        """Wait for the next item of any source; None where there are no more.

        Args:
            seconds: to wait; None waits as long as it takes.

        Raises:
            TimeoutError: there is none after so many seconds; ask again.
            Exception: what an iterator raised; whoever asks again gets the same answer.
        """
        while self._fault is None and self._ended < len(self._threads):
            try:
                place, found = self._found.get(timeout=None if seconds is None else max(0.0, seconds))
            except Empty:
                raise TimeoutError from None
            if isinstance(found, tuple):
                self._may_pull[place].release()
                return found[0]
            self._ended += 1
            self._fault = found
        if self._fault is not None:
            raise self._fault
        return None

    def __iter__(self) -> Iterator[T]:
        while (item := self.get()) is not None:
            yield item

    def close(self, seconds: float | None = 5.0) -> None:
        """Want no more items; threads end after the item they are at.

        Args:
            seconds: to wait for each thread; None waits as long as it takes.
        """
        self._unwanted.set()
        for permit in self._may_pull:
            permit.release()
        for thread in self._threads:
            thread.join(seconds)

    def _pull(self, place: int, items: Iterator[T]) -> None:
        end: BaseException | None = None
        try:
            while self._may_pull[place].acquire() and not self._unwanted.is_set():
                self._found.put((place, (next(items),)))
        except StopIteration:
            pass
        except BaseException as error:  # the caller's to handle, in its own thread
            end = error
        finally:
            if close := getattr(items, "close", None):
                close()
            self._found.put((place, end))
