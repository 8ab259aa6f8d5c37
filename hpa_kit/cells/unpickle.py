"""An unpickler for torch's files that runs nothing of them: it knows a dozen harmless names and no other."""

import io
import pickle
from collections import OrderedDict
from typing import Any, NamedTuple

import torch

from hpa_kit.errors import InputError

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


class Reader(pickle._Unpickler):
    """An unpickler that knows a dozen harmless names and refuses all others.

    The one in Python: that in C makes room for 2**31 objects where a file of ten bytes numbers one so.
    """

    def __init__(self, file: io.BufferedIOBase, where: str) -> None:
        super().__init__(file, encoding="utf-8")
        self.where = where
        self.records: dict[tuple[str, str], type] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name that the file gives.

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
        """What stands for a part that lies outside of the pickle: a storage, or a module of the legacy form.

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


class Record:
    """An object of a class that the file names: its attributes, nothing else."""

    def __new__(cls, *_: Any, **__: Any) -> "Record":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


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
