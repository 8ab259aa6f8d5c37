"""Writing files so that no half-written one is ever seen."""

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpa_kit.errors import InputError

# What a disk says that takes no more: full, over its quota, read-only or broken, or a file too large.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})

# What the name of a file has in it while it is being written. Its writer holds a lock on it, but not in the
# first moment of its life.
_TORN, _YOUNG_SECONDS = ".partial-", 5.0


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; put it in ``path``'s place when the block ends well.

    A process that is killed leaves the old file, or none, never a half-written one. The temporary name
    starts with a dot and ends as ``path`` does, so writers that look at the suffix work. Folders that
    are missing are made.

    Raises:
        InputError: no file can be made there, or the disk takes no more of it; what was there before stays.
    """
    path = Path(path)
    make_folder_of(path)
    prefix = f".{path.stem[:40]}{_TORN}"
    try:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error.strerror) from None
    temporary = Path(name)
    try:
        with _locked(handle):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    except OSError as error:
        if is_full(error):
            raise disk_full(path, error) from None
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def forget_torn(folder: str | Path) -> None:
    """Remove what processes that were killed were writing to a folder; what others are writing stays.

    Args:
        folder: those in it are not looked into; one that is not there has nothing torn.
    """
    with suppress(OSError):
        for path in Path(folder).glob(f".*{_TORN}*"):
            with suppress(OSError), path.open("rb") as file:
                young = time.time() - path.stat().st_mtime < _YOUNG_SECONDS
                if not young and _lock(file.fileno()):
                    path.unlink()


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    """Hold an open file's lock, and close it at the end; at once where it cannot be locked."""
    if not _lock(handle):
        os.close(handle)
        yield
        return
    try:
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file until it is closed; False where another has it, or files cannot be locked here."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def atomic_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically.

    Raises:
        InputError: no file can be made there.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def atomic_tensors(path: str | Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        InputError: no file can be made there, or the disk takes no more of it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(tensors, str(temporary), metadata=metadata)
        except SafetensorError as error:  # in which it wraps what the disk says
            raise disk_full(Path(path), error) from None


def is_full(error: OSError) -> bool:
    """Whether it is the disk that takes no more, whatever was to be written."""
    return error.errno in _FULL


def disk_full(path: str | Path, error: Exception) -> InputError:
    """What to say where the disk takes no more of a file."""
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"files: {path} cannot be written: {reason}; make room, and the same command goes on where it can"
    )


def make_folder_of(path: Path) -> None:
    """Make the folder that a file will be written to, before long work starts.

    Raises:
        InputError: it cannot be made, or ``path`` itself is a folder.
    """
    try:
        if path.is_dir():
            raise _unwritable(path, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # such as a name that is too long
        raise _unwritable(path, f"{error.filename}: {error.strerror}") from None


def _unwritable(path: Path, why: str | None) -> InputError:
    return InputError(f"files: {path} cannot be written: {why}; name another file")


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
