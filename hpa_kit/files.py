"""Writing files so that no half-written one is ever seen."""

import errno
import os
import secrets
import shutil
import stat
import sys
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
_STALE, _YOUNG_SECONDS = ".partial-", 5.0

_MAX_LINKS = 40  # that lead to each other, as Linux has it
_REFUSED = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a disk", stat.S_IFSOCK: "a socket"}


class ReaderGone(Exception):
    """Nobody reads any more what this process prints; no fault of anybody's."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; put it in ``path``'s place when the block ends well.

    A process that is killed leaves the old file, or none, never a half-written one. The temporary name
    starts with a dot and ends as ``path`` does, so writers that look at the suffix work. Folders that
    are missing are made. The file gets the permissions that opening ``path`` for writing would have given it.

    Symbolic links stay: what they lead to is replaced, or made where it is not there yet. A named pipe, a
    device or an open file of this process (``/dev/stdout``) gets the whole content when the block ends well.

    Raises:
        InputError: no file can be made there, or the disk takes no more of it; what was there before stays.
        ReaderGone: nobody reads what this process itself was given to write to.
    """
    path = Path(path)
    make_folder_of(path)
    try:
        if is_stream(path):
            with regular_path(path) as temporary:
                yield temporary
        else:
            with _beside(path, written_file(path)) as temporary:
                yield temporary
    except OSError as error:
        if is_full(error):
            raise disk_full(path, error) from None
        raise


@contextmanager
def _beside(path: Path, place: Path) -> Iterator[Path]:
    """A temporary path beside a place, which it replaces."""
    try:
        handle, temporary = _fresh(place)
    except OSError as error:
        raise _unwritable(path, error.strerror) from None
    try:
        with _locked(handle):
            mode = stat.S_IMODE(os.fstat(handle).st_mode)  # the umask is in it; to ask for it is to change it
            temporary.chmod(mode | stat.S_IRUSR | stat.S_IWUSR)
            yield temporary
            with suppress(FileNotFoundError):
                mode = stat.S_IMODE(place.stat().st_mode)
            temporary.chmod(mode)
            try:
                temporary.replace(place)
            except OSError as error:
                raise _unwritable(path, error.strerror) from None
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _fresh(place: Path) -> tuple[int, Path]:
    """A new empty file beside a place, open."""
    while True:
        name = f".{place.stem[:40]}{_STALE}{secrets.token_hex(4)}{place.suffix}"
        with suppress(FileExistsError):
            handle = os.open(place.with_name(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            return handle, place.with_name(name)


@contextmanager
def regular_path(path: str | Path) -> Iterator[Path]:
    """Give a path for what ends in ``path``: to be written more than once, read again, and written beside.

    That is ``path`` itself, unless it is a pipe, a device or an open file of this process: then it is a path
    in a temporary folder, and what lies there when the block ends well goes to ``path`` in one piece.

    Raises:
        InputError: no file can be made there, or the pipe or device takes it not.
        ReaderGone: nobody reads what this process itself was given to write to.
    """
    path = Path(path)
    make_folder_of(path)
    if not is_stream(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="hpa-kit-out-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if temporary.is_file():
            _pour(temporary, path)


def _pour(whole: Path, path: Path) -> None:
    """Write a file's content to what is no file."""
    place, descriptor = _followed(path)
    try:
        if descriptor is None:
            handle = os.open(place, os.O_WRONLY)
        else:
            for stream in filter(None, (sys.stdout, sys.stderr)):  # what was said before stands before
                stream.flush()
            handle = os.dup(descriptor)
        with whole.open("rb") as source, os.fdopen(handle, "wb") as sink:
            shutil.copyfileobj(source, sink)
    except OSError as error:
        if descriptor is not None and isinstance(error, BrokenPipeError):
            raise ReaderGone from None
        if is_full(error):
            raise disk_full(path, error) from None
        raise _unwritable(path, error.strerror) from None


def is_stream(path: str | Path) -> bool:
    """Whether what is written to a path is not kept there: a named pipe, a device, ``/dev/stdout``.

    Raises:
        InputError: its symbolic links lead nowhere but to each other.
    """
    place, descriptor = _followed(Path(path))
    return descriptor is not None or _kind(place) in (stat.S_IFIFO, stat.S_IFCHR)


def written_file(path: str | Path) -> Path:
    """Find the file that writing to a path changes: itself, or what its links lead to, there or not.

    Raises:
        InputError: they lead nowhere but to each other.
    """
    path = Path(path)
    return _followed(path)[0] if path.is_symlink() else path


def _followed(path: Path) -> tuple[Path, int | None]:
    """Where a path's symbolic links lead, and of which open file of this process that is the name, if any."""
    own, place = Path(f"/proc/{os.getpid()}/fd"), path
    for _ in range(_MAX_LINKS):
        place = Path(os.path.realpath(place.parent), place.name)
        if place.parent == own and place.name.isdigit():
            return place, int(place.name)
        if not place.is_symlink():
            return place, None
        place = place.parent / place.readlink()
    raise _unwritable(path, os.strerror(errno.ELOOP))


def _kind(place: Path) -> int:
    """What stands at a place, as :mod:`stat` names it; 0 where nothing does."""
    try:
        return stat.S_IFMT(place.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return 0


def remove_stale(folder: str | Path) -> None:
    """Remove what processes that were killed were writing to a folder; what others are writing stays.

    Args:
        folder: those in it are not looked into; one that is not there has nothing stale.
    """
    with suppress(OSError):
        for path in Path(folder).glob(f".*{_STALE}*"):
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
    """Make the error of a disk that takes no more of a file."""
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"files: {path} cannot be written: {reason}; make room, and the same command goes on where it can"
    )


def make_folder_of(path: Path) -> None:
    """Make the folder that a file will be written to, before long work starts.

    Raises:
        InputError: it cannot be made, or ``path`` itself is a folder, a disk or a socket.
    """
    try:
        place, descriptor = _followed(path)
        if descriptor is not None:
            return
        if (kind := _kind(place)) in _REFUSED:
            raise _unwritable(path, f"it is {_REFUSED[kind]}")
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # such as a name that is too long
        raise _unwritable(path, f"{error.filename}: {error.strerror}") from None


def make_folder(path: Path) -> Path:
    """Make a folder to write files into, behind its symbolic links too; it may be there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        Path(os.path.realpath(path)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"files: folder {path} cannot be made: {error.strerror}; name another folder"
        ) from None
    return path


def _unwritable(path: Path, why: str | None) -> InputError:
    return InputError(f"files: {path} cannot be written: {why}; name another file")
