"""Tensors out of torch's pickled files without running anything that the files name.

``torch.load`` builds whatever a file asks for. Here a pickle may name only torch's layers, which become inert
records, torch's storages, and the functions that put a tensor together, which are ours. Every other name
ends the reading before anything of it is looked up.
"""

import io
import itertools
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hpa_kit.errors import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MAX_DEPTH, MAX_MODULES = 100, 100_000
DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
# Modules whose classes may stand in a file; they become records that hold attributes and do nothing.
RECORD_MODULES = ("pytorch_zoo", "hpacellseg", "torch.nn.modules", "torch.nn.parallel", "torch.nn.backends")


class Storage(NamedTuple):
    """A run of numbers in the file: what its pickle says of it."""

    key: str
    dtype: torch.dtype
    size: int


class LazyTensor(NamedTuple):
    """A view of a storage; the numbers are read later."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Record:
    """An object of a class that the file names: its attributes, nothing else."""

    def __new__(cls, *_: Any, **__: Any) -> "Record":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


def read_pickled_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file that ``torch.save`` wrote, by their state-dict names, running nothing of it.

    Args:
        path: a pickled module (in DataParallel or not) or state dict, in torch's zip or legacy format.

    Returns:
        Name -> tensor on the CPU; a module's parameters and buffers as its ``state_dict()`` names them.

    Raises:
        InputError: the file names code, is damaged, or holds no tensors.
    """
    path = Path(path)
    where = f"weights: {path}"
    try:
        with path.open("rb") as file:
            content, storages = (
                _read_zip(path, where) if zipfile.is_zipfile(file) else _read_legacy(file, where)
            )
        tensors = _named_tensors(content, where)
        return {name: _materialise(tensor, storages, f"{where}: {name}") for name, tensor in tensors.items()}
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    except FileNotFoundError:
        raise InputError(f"{where} is missing") from None
    # A damaged or hostile pickle can make the unpickler fail in any of its own ways.
    except Exception as error:
        raise InputError(
            f"{where} is damaged or no file of torch's ({type(error).__name__}: {error})"
        ) from None


def _read_zip(path: Path, where: str) -> tuple[Any, dict[str, bytearray]]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        # torch stores members as they are; a compressed one could unfold to any size.
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise InputError(f"{where} holds compressed members, which torch does not write")
        # Members may overlap in the file, so that it claims many times its bytes.
        if sum(info.file_size for info in members.values()) > path.stat().st_size:
            raise InputError(f"{where} claims to hold more than its bytes")
        heads = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(heads) != 1:
            raise InputError(f"{where} is a zip file without torch's data.pkl")
        root = heads[0].removesuffix("data.pkl")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise InputError(f"{where} was written big-endian")
        content = Reader(io.BytesIO(archive.read(heads[0])), where).load()
        prefix = f"{root}data/"
        storages = {
            name.removeprefix(prefix): bytearray(archive.read(name))
            for name in members
            if name.startswith(prefix)
        }
    return content, storages


def _read_legacy(file: io.BufferedReader, where: str) -> tuple[Any, dict[str, bytearray]]:
    file.seek(0)
    if Reader(file, where).load() != LEGACY_MAGIC or Reader(file, where).load() != LEGACY_PROTOCOL:
        raise InputError(f"{where} is no file of torch's")
    if Reader(file, where).load().get("little_endian") is not True:
        raise InputError(f"{where} was written big-endian")
    reader = Reader(file, where)
    content = reader.load()
    sizes = {tensor.storage.key: tensor.storage for tensor in _named_tensors(content, where).values()}
    storages = {}
    for key in Reader(file, where).load():
        (count,) = struct.unpack("<q", file.read(8))
        if key not in sizes or sizes[key].size != count:
            raise InputError(f"{where}: storage {key} has another size than its pickle says")
        wanted = count * sizes[key].dtype.itemsize
        data = file.read(wanted)
        if len(data) != wanted:
            raise InputError(f"{where} ends early: storage {key} has {len(data)} of {wanted} bytes")
        storages[key] = bytearray(data)
    return content, storages


def _materialise(tensor: LazyTensor, storages: Mapping[str, bytearray], where: str) -> Tensor:
    storage, data = tensor.storage, storages.get(tensor.storage.key)
    if data is None or len(data) != storage.size * storage.dtype.itemsize:
        found = "nothing" if data is None else f"{len(data)} bytes"
        raise InputError(
            f"{where}: expected {storage.size * storage.dtype.itemsize} bytes of numbers, found {found}"
        )
    if 0 in tensor.shape:
        return torch.empty(tensor.shape, dtype=storage.dtype)
    last = tensor.offset + sum(
        (side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True)
    )
    if last >= storage.size:
        raise InputError(f"{where}: the tensor reaches beyond its {storage.size} numbers")
    # A view without a copy: whatever shape a hostile file claims, it takes only the memory of its file.
    return torch.frombuffer(data, dtype=storage.dtype).as_strided(tensor.shape, tensor.stride, tensor.offset)


def _named_tensors(content: Any, where: str) -> dict[str, LazyTensor]:
    found: dict[str, LazyTensor] = {}
    _collect(_unwrap(content), "", found, 0, itertools.count())
    if not found:
        raise InputError(f"{where} holds no tensors")
    return found


def _unwrap(content: Any) -> Any:
    """A checkpoint around a state dict -> the state dict; a module inside DataParallel -> the module."""
    if isinstance(content, dict):
        for key in ("state_dict", "model_state_dict", "model"):
            if isinstance(content.get(key), dict | Record):
                return _unwrap(content[key])
    if isinstance(content, Record) and type(content).__name__ in ("DataParallel", "DistributedDataParallel"):
        inner = _part(content, "_modules").get("module")
        return content if inner is None else inner
    return content


def _part(record: Any, name: str) -> Mapping[str, Any]:
    part = getattr(record, "__dict__", {}).get(name)
    return part if isinstance(part, dict) else {}


def _collect(
    node: Any, prefix: str, found: dict[str, LazyTensor], depth: int, visits: "itertools.count[int]"
) -> None:
    # A module may be part of several, so few can stand for more than anybody can walk through.
    if depth > MAX_DEPTH or next(visits) > MAX_MODULES:
        raise InputError("modules are nested without end")
    if isinstance(node, dict):
        leaves: dict[str, Any] = node
        children: Mapping[str, Any] = {}
    else:
        hidden = getattr(node, "__dict__", {}).get("_non_persistent_buffers_set") or ()
        buffers = {name: value for name, value in _part(node, "_buffers").items() if name not in hidden}
        leaves, children = {**_part(node, "_parameters"), **buffers}, _part(node, "_modules")
    for name, value in leaves.items():
        if isinstance(value, LazyTensor):
            found[f"{prefix}{name}"] = value
    for name, child in children.items():
        if isinstance(child, Record):
            _collect(child, f"{prefix}{name}.", found, depth + 1, visits)


class Reader(pickle._Unpickler):
    """An unpickler that knows a dozen harmless names and refuses all others.

    The one in Python: that in C makes room for 2**31 objects where a file of ten bytes numbers one so.
    """

    def __init__(self, file: io.BufferedIOBase, where: str) -> None:
        super().__init__(file, encoding="utf-8")
        self.where = where
        self.records: dict[tuple[str, str], type] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Give what stands for a name in the file.

        Raises:
            InputError: it is none of the harmless ones.
        """
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("builtins", "__builtin__") and name == "set":
            return set
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return _rebuild_parameter
        if module == "torch" and name in DTYPES:
            return name
        if (module, name) in (("torch", "Size"), ("torch", "device")) or _is_record(module, name):
            # One class per reading: what a hostile file sets on it is gone with the reading.
            return self.records.setdefault((module, name), type(name, (Record,), {}))
        raise InputError(
            f"{self.where} asks to run {module}.{name}; weights need no code: nothing of the file was run"
        )

    def persistent_load(self, pid: Any) -> Any:
        """Give what stands for a part outside of the pickle: a storage, or a module of the legacy form.

        Raises:
            InputError: it is anything else.
        """
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]
        match pid:
            case ("storage", str(kind), str(key), _, int(size), *view) if kind in DTYPES and size >= 0:
                if any(part is not None for part in view):
                    raise InputError(
                        f"{self.where} holds views of storages, a form older than any published file"
                    )
                return Storage(key, DTYPES[kind], size)
        raise InputError(f"{self.where} refers to something that is no tensor storage")


def _is_record(module: str, name: str) -> bool:
    known = any(module == allowed or module.startswith(f"{allowed}.") for allowed in RECORD_MODULES)
    return known and name.isidentifier()


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> LazyTensor:
    counts = all(isinstance(number, int) and number >= 0 for number in (offset, *shape, *stride))
    if not (counts and isinstance(storage, Storage) and len(shape) == len(stride)):
        raise InputError("a tensor of the file is malformed")
    return LazyTensor(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data
