"""Checkpoints: one safetensors file with all weights and hyper-parameters, read without running code."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hpa_kit import __version__
from hpa_kit.config import Settings, TrainSettings, make_settings, read_yaml
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_tensors
from hpa_kit.resume import BEST as BEST  # noqa: PLC0414 - others take it from here

LAST = "last.safetensors"
SETTINGS = "settings.yaml"
_FORMAT = "hpa_kit checkpoint 1"
_TENSOR, _TUPLE, _PAIRS, _DTYPE = "<tensor>", "<tuple>", "<pairs>", "<dtype>"
# By name, as nothing that a file says is looked up among torch's functions.
_DTYPES = {
    str(kind).removeprefix("torch."): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)
}


class Checkpoint(NamedTuple):
    """What a checkpoint file holds: the settings as written, the state that was saved, the kit's version."""

    settings: dict[str, Any]
    state: dict[str, Any]
    version: str


def write_checkpoint(path: Path | str, settings: Settings, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Tensors are named by their place in ``state``, such as ``model.head.weight``; all else stands as JSON in
    the file's metadata: ``settings`` (every hyper-parameter), ``state``, and ``version`` of the kit.

    Args:
        path: ends in ``.safetensors``.
        settings: all of the run's.
        state: mappings, lists, tuples, numbers, texts, tensors and their dtypes, nested in any way.
    """
    tensors: dict[str, Tensor] = {}
    tree = {key: _pack(value, key, tensors) for key, value in state.items()}
    metadata = {
        "hpa_kit": _FORMAT,
        "version": __version__,
        "settings": json.dumps(settings.model_dump(mode="json")),
        "state": json.dumps(tree),
    }
    atomic_tensors(path, tensors, metadata)


def read_checkpoint(path: Path | str, only: Collection[str] | None = None) -> Checkpoint:
    """Read a checkpoint, or the parts of its state that ``only`` names; other tensors stay on disk.

    Raises:
        InputError: the file is missing, damaged, or was not written by :func:`write_checkpoint`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint: {path} is missing; expected a file that hpa-kit train wrote")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("hpa_kit") != _FORMAT:
                raise InputError(f"checkpoint: {path} was not written by hpa-kit train; expected {_FORMAT!r}")
            tree = json.loads(metadata["state"])
            settings = json.loads(metadata["settings"])
            if not isinstance(tree, dict) or not isinstance(settings, dict):
                raise ValueError("its settings and its state are no names and values")
            parts = tree if only is None else {key: tree[key] for key in only if key in tree}
            state = {key: _unpack(value, file) for key, value in parts.items()}
            _check(state)
            return Checkpoint(settings, state, metadata["version"])
    except InputError:
        raise
    # Nested without end, JSON is a RecursionError.
    except (
        SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint: {path} is damaged or no safetensors file: {reason}") from None


def settings_of(path: Path | str) -> TrainSettings:
    """All hyper-parameters of a run, to be printed by :func:`hpa_kit.config.to_yaml` and used again.

    Args:
        path: a checkpoint, or a run folder, of which the best checkpoint is asked, else the last, else its
            ``settings.yaml``.

    Raises:
        InputError: nothing of the kind is there, or it is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        return make_settings(TrainSettings, read_checkpoint(path, only=()).settings, source=str(path))
    for name in (BEST, LAST):
        if (path / name).is_file():
            return settings_of(path / name)
    if (path / SETTINGS).is_file():
        return make_settings(TrainSettings, read_yaml(path / SETTINGS), source=str(path / SETTINGS))
    raise InputError(f"checkpoint: {path} holds no {BEST}, {LAST} or {SETTINGS}; expected a run folder")


def random_state() -> dict[str, Any]:
    """The state of torch's generators, which dropout draws from; augmentation is seeded field by field.

    Of several GPUs the current one's is taken.
    """
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators where :func:`random_state` found them; the GPU's only where there was and is one."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """What JSON can hold of a value; its tensors go to ``tensors`` under the names that stand for them."""
    if isinstance(value, Tensor):
        # Always a copy: weights that share memory, which safetensors refuses, are written twice.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: name}
    if isinstance(value, dict):
        packed = {key: _pack(entry, f"{name}.{key}", tensors) for key, entry in value.items()}
        return packed if all(isinstance(key, str) for key in packed) else {_PAIRS: list(packed.items())}
    if isinstance(value, list | tuple):
        entries = [_pack(entry, f"{name}.{index}", tensors) for index, entry in enumerate(value)]
        return entries if isinstance(value, list) else {_TUPLE: entries}
    if isinstance(value, torch.dtype):
        return {_DTYPE: str(value).removeprefix("torch.")}
    return value.item() if isinstance(value, np.generic) else value


def _unpack(value: Any, file: Any) -> Any:
    if isinstance(value, list):
        return [_unpack(entry, file) for entry in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (kind := next(iter(value))) in _KINDS:
        return _KINDS[kind](value[kind], file)
    return {key: _unpack(entry, file) for key, entry in value.items()}


def _check(state: Mapping[str, Any]) -> None:
    """Refuse what every reader takes for granted.

    Raises:
        ValueError: weights, numbers or metrics are of another kind than a run writes.
    """
    for name in ("model", "ema", "swa"):
        weights = state.get(name, {})
        if not isinstance(weights, dict) or not all(isinstance(one, Tensor) for one in weights.values()):
            raise ValueError(f"its {name} holds no named tensors")
    for name in ("epoch", "step_number"):
        if not isinstance(state.get(name, 0), int):
            raise ValueError(f"its {name} is no whole number")
    if not isinstance(state.get("metrics") or {}, dict):
        raise ValueError("its metrics are no names and values")


_KINDS: dict[str, Callable[[Any, Any], Any]] = {
    _TENSOR: lambda name, file: file.get_tensor(name),
    _DTYPE: lambda name, _: _DTYPES[name],
    _TUPLE: lambda entries, file: tuple(_unpack(entry, file) for entry in entries),
    _PAIRS: lambda pairs, file: {key: _unpack(entry, file) for key, entry in pairs},
}
