"""Files that one process has at a time, so that two at the same work do not harm each other.

The lock is the system's: it ends with the process, however that ends.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hpa_kit.errors import InputError

log = logging.getLogger(__name__)


def open_locked(path: Path, wait: bool = False) -> IO[bytes]:
    """Open a file for reading and appending, unbuffered, that no other process has open in this way.

    Args:
        path: the file; its folder is there.
        wait: for the other process to close it.

    Raises:
        InputError: it cannot be opened, or another process has it and is not waited for.
    """
    try:
        import fcntl
    except ImportError:  # not on this system: nobody is kept out
        return _opened(path)
    while True:
        file = _opened(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            raise InputError(
                f"{path} is in use: another process writes the same results; wait, or name another file"
            ) from None
        except OSError as error:  # some network disks know no locks
            log.debug(f"{path} cannot be locked: {error.strerror}")
            return file
        if _is_at(path, file):
            return file
        file.close()  # its owner finished and removed it in between


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Let one process at a time into the block; ``path`` is there as long as one is in it.

    Args:
        path: an empty file, hidden as a rule; its folder is made.
        wait: for the process that is in the block.

    Raises:
        InputError: as :func:`open_locked` has it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None
    file = open_locked(path, wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("a+b", buffering=0)
    except OSError as error:
        raise _unwritable(path, error) from None


def _is_at(path: Path, file: IO[bytes]) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"files: {path} cannot be written: {error.strerror}; name another file")
