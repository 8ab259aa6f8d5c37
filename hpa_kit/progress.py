"""How far long work is, and messages beside it: a bar where somebody looks on, else a line now and then."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from time import monotonic
from types import TracebackType
from typing import Any, Protocol, Self, TextIO, TypeVar

from hpa_kit.timing import Clock, duration

T = TypeVar("T")

# Where a bar would fill a log: the first line comes after so many seconds, each later one after a tenth of
# the time that has gone, so that hours of work are some fifty lines.
FIRST_SECONDS, PART = 20.0, 10


class Bar(Protocol):
    """What shows how far some work is; a context manager."""

    def update(self, n: int = 1) -> object:
        """So many more are done."""

    def set_postfix(
        self, values: Mapping[str, object] | None = None, /, refresh: bool | None = True, **more: Any
    ) -> None:
        """Show values behind the numbers."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object: ...


def progress_bar(
    what: str,
    total: int | None,
    unit: str = "field",
    initial: int = 0,
    leave: bool = True,
    quiet: bool = False,
) -> Bar:
    """Begin to show how far some work is, on stderr.

    Args:
        what: the work, in a word or two.
        total: how much there is to do; None where nobody knows.
        unit: of which; one of them.
        initial: how much was done before.
        leave: something stays when all is done.
        quiet: show nothing.
    """
    if quiet or sys.stderr is None:
        return Lines(what, total, unit, initial, leave, silent=True)
    if is_live():
        from tqdm import tqdm

        return tqdm(total=total, desc=what, unit=unit, initial=initial, leave=leave)
    return Lines(what, total, unit, initial, leave)


def track(items: Iterable[T], what: str, total: int, unit: str = "field", leave: bool = True) -> Iterator[T]:
    """Give the same items and show how many there were so far, as :func:`progress_bar` does."""
    with progress_bar(what, total, unit, leave=leave) as bar:
        for item in items:
            yield item
            bar.update()


def is_live() -> bool:
    """Whether somebody looks at stderr as it changes: in a terminal, or in a notebook but a batch job's."""
    with suppress(ValueError):  # of a stream that is closed
        if sys.stderr.isatty():
            return True
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    batch = os.environ.get("KAGGLE_KERNEL_RUN_TYPE", "Interactive") != "Interactive"
    return type(shell).__name__ == "ZMQInteractiveShell" and not batch


class Lines:
    """A line on stderr now and then, each longer after the one before.

    Args:
        what, total, unit, initial, leave: as for :func:`progress_bar`.
        now: the clock, in seconds from any zero on.
        silent: say nothing.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str = "field",
        initial: int = 0,
        leave: bool = True,
        now: Clock = monotonic,
        silent: bool = False,
    ) -> None:
        self.what, self.total, self.unit, self.leave, self.silent = what, total, unit, leave, silent
        self.done = self._initial = initial
        self._now, self._begun, self._due = now, now(), FIRST_SECONDS
        self._behind = ""

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self.done += n
        gone = self._now() - self._begun
        if gone < self._due:
            return
        self._due = gone + max(FIRST_SECONDS, gone / PART)
        if self.total is None:
            self._say("")
        elif self.done < self.total:
            left = gone / max(1, self.done - self._initial) * (self.total - self.done)
            self._say(f", {100 * self.done // self.total} %, {duration(left)} left")

    def set_postfix(
        self, values: Mapping[str, object] | None = None, /, refresh: bool | None = True, **more: Any
    ) -> None:
        """Have values stand at the end of the lines to come."""
        self._behind = "".join(f", {name} {value}" for name, value in {**(values or {}), **more}.items())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.leave and error is None:
            self._say(f" in {duration(self._now() - self._begun)}")

    def _say(self, when: str) -> None:
        if not self.silent:
            units = self.unit if (self.total or self.done) == 1 else f"{self.unit}s"
            of = "" if self.total is None else f" of {self.total}"
            say(f"{self.what}: {self.done}{of} {units}{when}{self._behind}")


def _above_bars(stream: TextIO | None) -> AbstractContextManager[None]:
    """A block that writes above the bars; where tqdm was never imported there are none."""
    if "tqdm" not in sys.modules:
        return nullcontext()
    from tqdm import tqdm

    above: AbstractContextManager[None] = tqdm.external_write_mode(file=stream)
    return above


def say(line: str, stream: TextIO | None = None) -> None:
    """Write a line above the bars, escapes for letters that the stream lacks, nothing where it is closed.

    Args:
        line: without its end.
        stream: by default stderr.
    """
    stream = sys.stderr if stream is None else stream
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = f"{line}\n".encode(encoding, "backslashreplace").decode(encoding)
    with suppress(OSError, ValueError), _above_bars(stream):
        stream.write(text)
        stream.flush()


class _Messages(logging.Handler):
    """Writes messages above the bars, and hands them to what was configured before, each once."""

    def __init__(self, stream: str, logger: logging.Logger) -> None:
        super().__init__()
        self.stream_name, self.before = stream, (logger.level, logger.propagate)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, unless a handler that was there before writes it to the same place."""
        others = [other for other in logging.getLogger().handlers if record.levelno >= other.level]
        if not any(map(_is_shown, others)):
            try:
                say(self.format(record), getattr(sys, self.stream_name))
            except Exception:  # of arguments that do not fit the message, as logging has it
                self.handleError(record)
        with _above_bars(sys.stderr):
            for other in others:
                other.handle(record)


def _is_shown(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)


def show_messages(stream: str = "stderr") -> bool:
    """Show what the kit says of its course, from level INFO on, however logging was configured before.

    Args:
        stream: ``stderr`` or ``stdout``, as each is when something is said.

    Returns:
        Whether they were not shown yet.
    """
    ours = logging.getLogger("hpa_kit")
    if any(isinstance(handler, _Messages) for handler in ours.handlers):
        return False
    ours.addHandler(_Messages(stream, ours))
    ours.setLevel(ours.level or logging.INFO)
    ours.propagate = False  # the handler does what this would, above the bars
    for name, other in logging.root.manager.loggerDict.items():
        if name.startswith("hpa_kit") and isinstance(other, logging.Logger):
            other.disabled = False  # as configuring from a file leaves those that were there before
    return True


def hide_messages() -> None:
    """Undo :func:`show_messages`."""
    ours = logging.getLogger("hpa_kit")
    for handler in [handler for handler in ours.handlers if isinstance(handler, _Messages)]:
        ours.removeHandler(handler)
        level, ours.propagate = handler.before
        ours.setLevel(level)
