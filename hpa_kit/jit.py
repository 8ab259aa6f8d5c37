"""numba's compiler, with its cache only where one can be written."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def _cache_is_writable() -> bool:
    """Whether numba can keep compiled code beside this package, or in a folder of the user's."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return _writable(Path(os.environ["NUMBA_CACHE_DIR"]))
    if _writable(Path(__file__).parent):
        return True
    # On a read-only tree without a home numba raises at import; a folder of our own keeps the cache.
    folder = Path(tempfile.gettempdir()) / f"hpa_kit_numba_{os.getuid() if hasattr(os, 'getuid') else 0}"
    if _writable(folder):
        numba.config.CACHE_DIR = str(folder)
        return True
    return False


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


_CACHE = _cache_is_writable()


def njit(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """``numba.njit`` that caches compiled code where that is possible and compiles afresh elsewhere."""
    options.setdefault("cache", _CACHE)
    options.setdefault("nogil", True)
    return numba.njit(function, **options) if function is not None else numba.njit(**options)
