"""Work on a stream of items: some ahead, in batches, one item's fault not being the others'."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, TypeVar

from hpa_kit.errors import InputError

log = logging.getLogger(__name__)

S = TypeVar("S")
T = TypeVar("T")


class Failure(NamedTuple):
    """Why there is no result."""

    reason: str


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
) -> Iterator[T]:
    """Results in the items' order, worked out by the pool at most ``most`` items ahead."""
    remaining = iter(items)
    waiting = deque(pool.submit(function, item) for item in islice(remaining, most))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
        yield result


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items in order, the last one perhaps shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
