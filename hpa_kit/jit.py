"""numba's compiler, with its cache only where one can be written."""

import atexit
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba

_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def _cache_is_writable() -> bool:
    """Whether numba can keep compiled code beside this package, or in a folder of the user's."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return _writable(Path(os.environ["NUMBA_CACHE_DIR"]))
    if _writable(Path(__file__).parent):
        return True
    # On a read-only tree without a home numba raises at import; a folder of our own keeps the cache.
    try:
        numba.config.CACHE_DIR = str(own_folder(Path(tempfile.gettempdir())))
    except OSError:
        return False
    return True


def own_folder(place: Path) -> Path:
    """Make a folder, where others may write too, that nobody else can have put anything into.

    numba's cache files are pickles, which run what whoever wrote them likes. So a folder that another user
    owns or may write to, or a link to one, is left alone; a fresh one is used then, until the process ends.

    Args:
        place: such as ``/tmp``.

    Raises:
        OSError: no folder can be made there.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = place / f"hpa_kit_numba_{user}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    mine = not hasattr(os, "getuid") or (found.st_uid == user and not found.st_mode & _OF_OTHERS)
    if stat.S_ISDIR(found.st_mode) and mine and _writable(folder):
        return folder
    fresh = tempfile.mkdtemp(prefix="hpa_kit_numba_", dir=place)
    atexit.register(shutil.rmtree, fresh, ignore_errors=True)
    return Path(fresh)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


_CACHE = _cache_is_writable()


def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile as ``numba.njit`` does, with its cache where one can be written, afresh elsewhere."""
    options.setdefault("cache", _CACHE)
    options.setdefault("nogil", True)
    return numba.njit(function, **options) if function is not None else numba.njit(**options)
