"""Where the time of long work goes, and how long it will take in all."""

import logging
import resource
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
Clock = Callable[[], float]  # seconds from any zero on

_END = object()
_GIB = 2**30


class Stopwatch:
    """Seconds by part, within one thread; a part's own, without those of the parts it pulls from.

    Iterators that feed each other are each given to :meth:`watch`; while one waits for the next item of
    another, the time is the other's.

    Args:
        now: the clock.
    """

    def __init__(self, now: Clock = monotonic) -> None:
        self.seconds: dict[str, float] = {}
        self._now = now
        self._running: list[str] = []
        self._since = now()

    def watch(self, part: str, items: Iterable[T]) -> Generator[T, None, None]:
        """Give the same items; the time until each is there is the part's."""
        remaining = iter(items)
        try:
            while True:
                self._turn()
                self._running.append(part)
                try:
                    item = next(remaining, _END)
                finally:
                    self._turn()
                    self._running.pop()
                if item is _END:
                    return
                yield item  # type: ignore[misc]
        finally:
            if close := getattr(remaining, "close", None):
                close()

    def _turn(self) -> None:
        now = self._now()
        if self._running:
            part = self._running[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now


class Forecast:
    """Says once, after the first fields, how long all of them will take and how much memory is used.

    The first ``warmup`` fields do not count: they wait for compilers and cold caches.

    Args:
        what: the command.
        total: number of fields.
        warmup: fields that start slowly; the line comes after twice as many.
        now: the clock.
        unit: what is counted, where it is not fields.
        note: what else to say in the line.
    """

    def __init__(
        self,
        what: str,
        total: int,
        warmup: int = 1,
        now: Clock = monotonic,
        unit: str = "fields",
        note: str = "",
    ) -> None:
        self.what, self.total, self.warmup = what, total, max(1, warmup)
        self.unit, self.note = unit, note
        self._now, self._begun = now, now()
        self._done, self._warm = 0, 0
        self._said = total <= 0

    def add(self, fields: int, parts: Mapping[str, float] | None = None) -> None:
        """Count fields as done.

        Args:
            fields: how many more.
            parts: seconds per field by part, to be told.
        """
        self._done += fields
        if self._said or self._done == 0:
            return
        if not self._warm and self.warmup <= self._done < self.total:
            self._warm, self._from = self._done, self._now()
        elif self._done >= min(self.total, 2 * self.warmup):
            self._said = True
            log.info(self._line(parts or {}))

    def _line(self, parts: Mapping[str, float]) -> str:
        since = self._from if self._warm else self._begun
        each = (self._now() - since) / max(1, self._done - self._warm)
        whole = each * (self.total - self._done) + self._now() - self._begun
        listed = ", ".join(f"{part} {seconds:.2g}" for part, seconds in parts.items())
        return (
            f"{self.what}: expect {duration(whole)} for {self.total} {self.unit}, {each:.2g} s each"
            f"{f' ({listed})' if listed else ''}; memory {memory_text()}{self.note}"
        )


def duration(seconds: float) -> str:
    """Write seconds as a person says them: ``40 s``, ``12 min``, ``2.5 h``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def memory_text() -> str:
    """Write the most memory this process has held so far, and of each GPU that it uses."""
    text = f"{peak_memory() / _GIB:.1f} GiB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        held = [torch.cuda.max_memory_reserved(index) for index in range(torch.cuda.device_count())]
        text += "".join(f", GPU {index} {size / _GIB:.1f} GiB" for index, size in enumerate(held) if size)
    return text


def peak_memory() -> int:
    """Count the bytes of memory that this process has held at most."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
