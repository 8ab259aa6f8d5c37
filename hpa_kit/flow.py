"""Work on a stream of items: some ahead, in batches, one item's fault not being the others'."""

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from queue import Empty, Full, Queue
from typing import Generic, NamedTuple, TypeVar

from hpa_kit.errors import InputError

log = logging.getLogger(__name__)

S = TypeVar("S")
T = TypeVar("T")


class Failure(NamedTuple):
    """Why there is no result."""

    reason: str


def share(items: Sequence[T], shard: int, shards: int) -> list[T]:
    """One of several contiguous shares that together are a list, each as long as the others but for one."""
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
    """Results in the items' order, worked out by the pool at most ``most`` items ahead.

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
    """Lists of ``size`` items in order, the last one perhaps shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


class Background(Generic[T]):
    """Items of an iterator that a thread of its own pulls, at most ``most`` ahead.

    An iterator that works between its items goes on working while the caller does something else.

    Args:
        items: pulled, and closed, in the thread only.
        most: items kept ready.
    """

    def __init__(self, items: Iterator[T], most: int = 1) -> None:
        self._items = items
        self._ready: Queue[tuple[T] | BaseException | None] = Queue(most)
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._pull, name="background", daemon=True)
        self._thread.start()

    def get(self, seconds: float) -> T | None:
        """The next item, or None where there are no more.

        Raises:
            TimeoutError: there is none after so many seconds; ask again.
            Exception: what the iterator raised.
        """
        try:
            found = self._ready.get(timeout=max(0.0, seconds))
        except Empty:
            raise TimeoutError from None
        if isinstance(found, tuple):
            return found[0]
        self._put(found)  # whoever asks again gets the same answer
        if found is None:
            return None
        raise found

    def close(self, seconds: float = 5.0) -> None:
        """Want no more items; the thread ends after the one it is at, which is not waited for any longer."""
        self._unwanted.set()
        self._thread.join(seconds)

    def _pull(self) -> None:
        end: BaseException | None = None
        try:
            for item in self._items:
                self._put((item,))
                if self._unwanted.is_set():
                    break
        except BaseException as error:  # the caller's to handle, in its own thread
            end = error
        finally:
            if close := getattr(self._items, "close", None):
                close()
        self._put(end)

    def _put(self, found: tuple[T] | BaseException | None) -> None:
        while not self._unwanted.is_set():
            with suppress(Full):
                self._ready.put(found, timeout=0.05)
                return
