"""The file of features: one vector per field with the fields' IDs, in numpy's npz, read without pickles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path
from hpa_kit.npz import npz_names, read_npz, write_npz


class Features(NamedTuple):
    """Features by ID.

    Attributes:
        ids: the fields.
        values: float32 (fields, d), finite.
        source: a text that changes where network or views do.
        stamps: of each field, a text that changes where its images do; empty where it is not known.
    """

    ids: list[str]
    values: NDArray[np.float32]
    source: str
    stamps: tuple[str, ...] = ()


def write_features(path: str | Path, features: Features) -> None:
    """Write features, atomically.

    The arrays are ``ids`` (text), ``features`` (float32), ``source`` (text) and ``stamps`` (text).
    """
    arrays: dict[str, NDArray[Any]] = {
        "ids": np.array(features.ids, dtype=np.str_),
        "features": np.ascontiguousarray(features.values, dtype=np.float32),
        "source": np.array(features.source, dtype=np.str_),
        "stamps": np.array(features.stamps, dtype=np.str_),
    }
    with atomic_path(path) as temporary:
        write_npz(temporary, arrays)


def read_features(path: str | Path) -> Features:
    """Read what :func:`write_features` wrote.

    Raises:
        InputError: the file is missing or damaged, holds other things, an ID twice, or values that are not
            finite.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"features: {path} is missing; expected a file of hpa-kit features")
        # Features do not pack well: what claims many times the file's bytes is none.
        arrays = read_npz(path, ("ids", "features", "source", "stamps"), 2**20 + 20 * path.stat().st_size)
        if not {"ids", "features", "source"} <= arrays.keys():
            names = ", ".join(npz_names(path)) or "nothing"
            raise InputError(f"features: {path} holds {names}; expected a file of hpa-kit features")
        ids, values, source = arrays["ids"], arrays["features"], str(arrays["source"])
        stamps = tuple(arrays["stamps"].tolist()) if "stamps" in arrays else ()
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"features: {path} is no file of hpa-kit features, or damaged: {reason}") from None
    if ids.ndim != 1 or ids.dtype.kind != "U" or values.ndim != 2 or len(ids) != len(values):
        found = f"ids {ids.dtype} {ids.shape}, features {values.dtype} {values.shape}"
        raise InputError(f"features: {path} holds {found}; expected text (n,) and float32 (n, d)")
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        raise InputError(f"features: {path} holds values that are not finite numbers; make it again")
    listed = ids.tolist()
    _refuse_repeats(listed, path)
    return Features(listed, values.astype(np.float32, copy=False), source, stamps)


def _refuse_repeats(ids: Sequence[str], path: Path) -> None:
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            raise InputError(f"features: {path} holds ID {id} more than once; expected one row per ID")
        seen.add(id)
