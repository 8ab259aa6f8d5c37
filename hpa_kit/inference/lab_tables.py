"""Tables of cells as labs take them, parquet and AnnData (``.h5ad``); they grow as CSVs do.

Parquet is one file, or of a cluster's work a folder of parts, which what reads a file reads as one table.

Results of fields stay lines of CSV in the journal, behind which embeddings may stand; a table is made of
those of a thousand fields at a time, so that memory does not grow with their number.
"""

import importlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpa_kit import __version__
from hpa_kit.data.lab_images import LAB
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, is_stream, make_folder, remove_stale
from hpa_kit.inference.growing_table import CellTable
from hpa_kit.inference.results import Journal

FIELDS_AT_ONCE = 1000
_NUMBERS = ("box_top", "box_left", "box_bottom", "box_right", "area")
_TYPES = {
    "ID": "str",
    **dict.fromkeys(("cell", *_NUMBERS), "int64"),
    **dict.fromkeys(("centroid_y", "centroid_x"), "float64"),
    "cut_by_border": "bool",
}
_PART = re.compile(r"part-[0-9]{5,}\.parquet")
_CHUNK = 4096  # rows of a dataset that are stored together


class Rows(NamedTuple):
    """Rows of several fields: the table, and float32 (rows, width) embeddings by each network of crops."""

    table: pd.DataFrame
    embeddings: list[NDArray[np.float32]]


def with_embeddings(lines: str, embeddings: Sequence[NDArray[np.float32]]) -> bytes:
    """Put the embeddings of a field's cells behind its lines of CSV."""
    sides = json.dumps([one.shape[1] for one in embeddings]).encode()
    return b"\0".join([lines.encode(), sides, b"".join(one.astype("<f4").tobytes() for one in embeddings)])


def _parts(result: bytes) -> tuple[bytes, list[NDArray[np.float32]]]:
    """The lines of a field's result, and its embeddings."""
    lines, _, behind = result.partition(b"\0")
    if not behind:
        return lines, []
    sides, _, values = behind.partition(b"\0")
    widths = json.loads(sides)
    numbers = np.frombuffer(values, "<f4")
    n_cells = len(numbers) // max(1, sum(widths))
    return lines, [
        one.reshape(n_cells, width)
        for one, width in zip(np.split(numbers, np.cumsum(widths)[:-1] * n_cells), widths, strict=True)
    ]


class LabTable(CellTable):
    """A table of another kind than CSV.

    Args:
        out, ids, header, journal: as for :class:`~hpa_kit.inference.growing_table.CellTable`.

    Raises:
        InputError: what writes it is not installed; or as there.
    """

    needs = ""

    def __init__(self, out: Path, ids: Sequence[str], header: str, journal: Journal | None = None) -> None:
        try:
            importlib.import_module(self.needs)
        except ImportError:
            raise InputError(f"predict: {out} is written by {self.needs}; it is missing: {LAB}") from None
        super().__init__(out, ids, header, journal)
        self.columns = header.strip().split(",")
        self.classes = [name for name in self.columns if name not in _TYPES]
        self.types = {name: _TYPES.get(name, "float32") for name in self.columns}

    def _chunks(self) -> Iterator[Rows]:
        """The rows of all fields that are done, in order; at least once, without any where there is none."""
        for first in range(0, max(1, len(self.ids)), FIELDS_AT_ONCE):
            yield self._rows(self.ids[first : first + FIELDS_AT_ONCE])

    def _rows(self, ids: Sequence[str]) -> Rows:
        """The rows of those of some fields that are done, in order."""
        parts = [_parts(self.journal.read(id)) for id in ids]
        text = self.header.encode() + b"".join(lines for lines, _ in parts)
        table = pd.read_csv(io.BytesIO(text), dtype=self.types, keep_default_na=False)
        each = [vectors for _, vectors in parts if vectors]
        return Rows(table, [np.concatenate(of) for of in zip(*each, strict=True)])


class ParquetTable(LabTable):
    """A parquet file with the columns of the CSV: ID text, whole numbers int64, scores float32."""

    needs = "pyarrow"

    def _write(self) -> None:
        self._write_rows(self.out, self._chunks())

    def _write_rows(self, path: Path, chunks: Iterable[Rows]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        kinds = {"str": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "float32": pa.float32()}
        schema = pa.schema([(name, kinds.get(kind, pa.bool_())) for name, kind in self.types.items()])
        with atomic_path(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
            for rows in chunks:
                table = rows.table[self.columns]
                writer.write_table(pa.Table.from_pandas(table, schema=schema, preserve_index=False))


class ParquetParts(ParquetTable):
    """A folder of parquet files: ``part-00000.parquet`` has the rows of the first thousand fields, and so on.

    Each is whole or not there, and written again only where results of its fields have come since. Names of
    a table before that this one does not have are removed.

    Raises:
        InputError: the folder is a file or a pipe, or holds other files; or as there.
    """

    def _make_place(self) -> None:
        self._written: dict[int, list[int]] = {}
        if is_stream(self.out) or (self.out.exists() and not self.out.is_dir()):
            raise InputError(
                f"predict: {self.out} is no folder; a cluster's table in parquet is a folder of parts"
            )
        there = [path.name for path in self.out.glob("[!.]*")] if self.out.is_dir() else []
        if others := sorted(name for name in there if _PART.fullmatch(name) is None):
            raise InputError(
                f"predict: {self.out} holds {others[0]}, which is no part of a table; name another folder"
            )
        remove_stale(make_folder(self.out))
        remove_stale(self.out.parent)

    def _write(self) -> None:
        size = FIELDS_AT_ONCE
        wanted = set()
        for number, first in enumerate(range(0, max(1, len(self.ids)), size)):
            ids = self.ids[first : first + size]
            path = self.out / f"part-{number:05d}.parquet"
            places = [place for place in map(self.journal.place, ids) if place is not None]
            # The first is always there, so that the folder is a table of these columns.
            if not places and number:
                continue
            wanted.add(path.name)
            if self._written.get(number) != places:
                self._write_rows(path, [self._rows(ids)])
                self._written[number] = places
        for path in self.out.glob("part-*.parquet"):
            if path.name not in wanted:
                path.unlink(missing_ok=True)


class AnnDataTable(LabTable):
    """An AnnData file, as its documentation says what lies where in it.

    ``X`` is float32 (cells, classes), ``var`` the classes by name, ``obs`` the other columns of the CSV under
    names ``ID:cell``, ``obsm["spatial"]`` x and y of the centroids in pixels, and ``obsm["X_crops_1"]`` and
    so on the embeddings by each network of crops among the members.
    """

    needs = "h5py"

    def _write(self) -> None:
        import h5py

        with atomic_path(self.out) as temporary, h5py.File(temporary, "w", locking=False) as file:
            _mark(file, "anndata", "0.1.0")
            for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
                _mark(file.create_group(name), "dict", "0.1.0")
            _scalar(file["uns"], "hpa_kit", __version__)
            names = [name for name in self.columns if name in _TYPES]
            obs, var = _frame(file, "obs", names), _frame(file, "var", [])
            _add(var, "_index", np.array(self.classes, object))
            ids, numbers = list(self.ids), {id: number for number, id in enumerate(self.ids)}
            category = obs.create_group("ID")
            _mark(category, "categorical", "0.2.0")
            category.attrs["ordered"] = False
            _add(category, "categories", np.array(ids, object))
            for rows in self._chunks():
                table = rows.table
                cells = [f"{id}:{cell}" for id, cell in zip(table["ID"], table["cell"], strict=True)]
                _add(obs, "_index", np.array(cells, object))
                _add(category, "codes", np.array([numbers[id] for id in table["ID"]], np.int32))
                for name in names[1:]:
                    _add(obs, name, table[name].to_numpy())
                _add(file, "X", table[self.classes].to_numpy(np.float32))
                _add(file["obsm"], "spatial", table[["centroid_x", "centroid_y"]].to_numpy(np.float64))
                for place, vectors in enumerate(rows.embeddings, start=1):
                    _add(file["obsm"], f"X_crops_{place}", vectors)


def _mark(place: Any, kind: str, version: str) -> None:
    place.attrs["encoding-type"], place.attrs["encoding-version"] = kind, version


def _scalar(group: Any, name: str, text: str) -> None:
    group[name] = text
    _mark(group[name], "string", "0.2.0")


def _frame(file: Any, name: str, columns: Sequence[str]) -> Any:
    import h5py

    group = file.create_group(name)
    _mark(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", list(columns), (len(columns),), h5py.string_dtype())
    return group


def _add(group: Any, name: str, values: NDArray[Any]) -> None:
    """Put rows behind those of a dataset, which is made by the first."""
    import h5py

    if name not in group:
        text = values.dtype == object
        dataset = group.create_dataset(
            name,
            (0, *values.shape[1:]),
            h5py.string_dtype() if text else values.dtype,
            maxshape=(None, *values.shape[1:]),
            chunks=(_CHUNK, *values.shape[1:]),
            compression="gzip",
            compression_opts=1,
        )
        _mark(dataset, "string-array" if text else "array", "0.2.0")
    dataset = group[name]
    there = len(dataset)
    dataset.resize(there + len(values), axis=0)
    dataset[there:] = values
