"""Fields in batches, each of which one lane takes."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from hpa_kit.inference.journal import Journal


class Batches:
    """IDs in batches, each of which is taken once, by any thread.

    Args:
        batches: in the order they are taken.
    """

    def __init__(self, batches: Iterable[Sequence[str]]) -> None:
        self._left = deque(batches)
        self._lock = threading.Lock()

    def take(self) -> Sequence[str] | None:
        """The next batch, or None where all are taken."""
        with self._lock:
            return self._left.popleft() if self._left else None


def batches_to_do(ids: Sequence[str], most: int, journal: Journal) -> Iterator[list[str]]:
    """Batches with something left to do.

    The same fields stay together, so that they get the same scores whether or not a run was interrupted;
    those that failed before are tried again alone.

    Args:
        ids: all fields, in order.
        most: fields in a batch at most.
        journal: what has been done.
    """
    remaining = iter(ids)
    for size in batch_sizes(len(ids), most):
        batch = list(islice(remaining, size))
        failed = [id for id in batch if id in journal and "failed" in journal.facts(id)]
        if any(id not in journal for id in batch):
            yield batch
        elif failed:
            yield failed


def batch_sizes(fields: int, most: int) -> Iterator[int]:
    """Sizes of batches: small ones at both ends, where the parts of the work wait for each other.

    The first also shows what a field takes before much has been spent on it.
    """
    size = 1
    while fields:
        yield (some := min(size, most, (fields + 1) // 2))
        fields, size = fields - some, 2 * size
