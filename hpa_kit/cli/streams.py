"""What the command line prints to: it may know few letters, and whoever reads it may go away."""

import codecs
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeGuard

from hpa_kit.files import ReaderGone, disk_full, is_full, is_stream
from hpa_kit.progress import hide_messages, say, show_messages


@contextmanager
def plain_output() -> Iterator[None]:
    """Print what a stream's encoding lacks as escapes; show messages and warnings as a line each, on stderr.

    What goes to stderr is dropped where nobody reads it. Streams of a notebook or a test stay as they are.
    """
    errors, showwarning = _lenient(sys.stdout), warnings.showwarning
    # One plain line per warning: where in the kit it was raised tells a user nothing.
    warnings.showwarning = lambda message, *_: say(f"hpa-kit: {message}")
    shown = show_messages()
    try:
        with _droppable("stderr"):
            yield
    finally:
        if shown:
            hide_messages()
        warnings.showwarning = showwarning
        if errors is not None and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors=errors)


@contextmanager
def all_printed() -> Iterator[None]:
    """Have everything printed when the block ends, also where it ends the program.

    Raises:
        ReaderGone: nobody reads it.
        InputError: it goes to a disk that takes no more.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        if error.filename is None and is_full(error):
            silence_stdout()
            raise disk_full("stdout", error) from None
        raise


@contextmanager
def dropped_output() -> Iterator[None]:
    """Let work go on that prints to a stdout which nobody reads any more."""
    with _droppable("stdout"):
        yield


def silence_stdout() -> None:
    """Print nothing more, so that Python does not complain at its end of what nobody took."""
    if _is_plain(sys.stdout):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def tell(what: str, path: Path, more: str = "") -> None:
    """Print where a result lies; on stderr where that is stdout, which then holds nothing but the result."""
    line = f"{what}: {path}{more}"
    if is_stream(path) and sys.stdout is not None and _is_open_as(path, sys.stdout):
        say(line)
    else:
        print(line)


def _is_open_as(path: Path, stream: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except OSError:  # of a notebook's stream, or a pipe that is gone
        return False


def takes_unicode(stream: TextIO) -> bool:
    """Whether a stream has every letter, so that a text comes out of it as it is."""
    encoding = getattr(stream, "encoding", None) or "utf-8"  # a notebook's, or a test's, may name none
    return codecs.lookup(encoding).name.startswith("utf")


def _lenient(stream: TextIO | None) -> str | None:
    """Make a stream print escapes for letters that it lacks; how it treated them before, if that changed."""
    if not _is_plain(stream):
        return None
    before = stream.errors or "strict"
    stream.reconfigure(errors=_errors(stream))
    return before


def _errors(stream: io.TextIOWrapper) -> str:
    """How a stream is to treat letters that it lacks."""
    before = stream.errors or "strict"
    # Bytes of a file's name that are no UTF-8 go out as they came in.
    keep = before != "strict" and (before != "surrogateescape" or takes_unicode(stream))
    return before if keep else "backslashreplace"


def _is_plain(stream: TextIO | None) -> TypeGuard[io.TextIOWrapper]:
    return type(stream) is io.TextIOWrapper and not stream.closed


@contextmanager
def _droppable(name: str) -> Iterator[None]:
    """Put a stream in the place of one of :mod:`sys` that drops what cannot be written."""
    before = getattr(sys, name)
    if not _is_plain(before):
        yield
        return
    before.flush()
    raw = io.BufferedWriter(_Droppable(before.fileno()))
    now = io.TextIOWrapper(
        raw, before.encoding, _errors(before), line_buffering=before.line_buffering or name == "stderr"
    )
    setattr(sys, name, now)
    try:
        yield
    finally:
        setattr(sys, name, before)
        now.flush()


class _Droppable(io.RawIOBase):
    """Writes to an open file of this process, which stays open; what it does not take is dropped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError:
            return len(memoryview(data))
