"""Writing files so that no half-written one is ever seen."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpa_kit.errors import InputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; put it in ``path``'s place when the block ends well.

    A process that is killed leaves the old file, or none, never a half-written one. The temporary name
    starts with a dot and ends as ``path`` does, so writers that look at the suffix work. Folders that
    are missing are made.

    Raises:
        InputError: no file can be made there.
    """
    path = Path(path)
    make_folder_of(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error.strerror) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def atomic_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically.

    Raises:
        InputError: no file can be made there.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder_of(path: Path) -> None:
    """Make the folder that a file will be written to, before long work starts.

    Raises:
        InputError: it cannot be made, or ``path`` itself is a folder.
    """
    if path.is_dir():
        raise _unwritable(path, "it is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, f"{error.filename}: {error.strerror}") from None


def _unwritable(path: Path, why: str | None) -> InputError:
    return InputError(f"files: {path} cannot be written: {why}; name another file")


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
