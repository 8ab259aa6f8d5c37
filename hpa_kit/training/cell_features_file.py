"""The file of features of cells: a vector per cell in half precision, in numpy's npz, without pickles."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path
from hpa_kit.npz import npz_names, read_npz, write_npz

_NAMES = ("ids", "counts", "cells", "source", "encoder", "stamps")


class CellFeatures(NamedTuple):
    """Features of the cells of fields.

    Attributes:
        ids: the fields.
        counts: int64 (fields,), cells of each: as many as its label map's largest number.
        values: float16 (cells, d), field by field in the order of their numbers; of a number that no pixel of
            the label map has it is 0.
        source: a text that changes where the encoder or its views do.
        encoder: ``path`` of the checkpoint that gave them, ``sha256`` of it.
        stamps: of each field, a text that changes where its images or its label map do.
    """

    ids: list[str]
    counts: NDArray[np.int64]
    values: NDArray[np.float16]
    source: str
    encoder: dict[str, str]
    stamps: tuple[str, ...]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Row of the first cell of each field, and behind it how many rows there are: int64 (fields + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])


def write_cell_features(path: Path, features: CellFeatures) -> None:
    """Write features of cells, atomically."""
    arrays: dict[str, NDArray[Any]] = {
        "ids": np.array(features.ids, dtype=np.str_),
        "counts": np.asarray(features.counts, np.int64),
        "source": np.array(features.source, dtype=np.str_),
        "encoder": np.array(json.dumps(features.encoder), dtype=np.str_),
        "stamps": np.array(features.stamps, dtype=np.str_),
        "cells": np.ascontiguousarray(features.values, np.float16),
    }
    with atomic_path(path) as temporary:
        write_npz(temporary, arrays)


def read_cell_features(path: Path, values: bool = True) -> CellFeatures:
    """Read what :func:`write_cell_features` wrote.

    Args:
        path: the file.
        values: False leaves the vectors on disk.

    Raises:
        InputError: the file is missing or damaged, holds other things, or values that are not finite.
    """
    if not path.exists():
        raise InputError(f"features: {path} is missing; expected a file of hpa-kit features --cells")
    try:
        names = [name for name in _NAMES if values or name != "cells"]
        arrays = read_npz(path, names, 2**20 + 20 * path.stat().st_size)
        if arrays.keys() != set(names):
            found = ", ".join(npz_names(path)) or "nothing"
            raise InputError(f"features: {path} holds {found}; expected a file of hpa-kit features --cells")
        read = CellFeatures(
            arrays["ids"].tolist(),
            arrays["counts"],
            arrays["cells"] if values else np.zeros((0, 0), np.float16),
            str(arrays["source"]),
            json.loads(str(arrays["encoder"])),
            tuple(arrays["stamps"].tolist()),
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"features: {path} is damaged, or no file of features: {reason}") from None
    n = len(read.ids)
    fits = read.counts.shape == (n,) and read.counts.dtype == np.int64 and len(read.stamps) == n
    if values and fits:
        fits = read.values.ndim == 2 and len(read.values) == read.counts.sum()
    if not fits or len(set(read.ids)) < n or not isinstance(read.encoder, dict):
        raise InputError(
            f"features: {path} holds other numbers of fields or cells than it says; make it again"
        )
    if values and not np.isfinite(read.values).all():
        raise InputError(f"features: {path} holds values that are not finite numbers; make it again")
    return read
