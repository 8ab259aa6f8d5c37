"""Checkpoints: one safetensors file with all weights and hyper-parameters, read without running code.

Settings, metrics and numbers are read without torch, which is imported where there are tensors.
"""

import json
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from hpa_kit import __version__
from hpa_kit.config import Settings, TrainSettings, make_settings, read_yaml
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_tensors
from hpa_kit.resume import BEST

if TYPE_CHECKING:
    from torch import Tensor

LAST = "last.safetensors"
SETTINGS = "settings.yaml"
_FORMAT = "hpa_kit checkpoint 1"
_TENSOR, _TUPLE, _PAIRS, _DTYPE = "<tensor>", "<tuple>", "<pairs>", "<dtype>"


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

    @cache
    def tensors() -> Any:
        return safe_open(str(path), framework="pt")

    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
        if metadata.get("hpa_kit") != _FORMAT:
            raise InputError(f"checkpoint: {path} was not written by hpa-kit train; expected {_FORMAT!r}")
        tree = json.loads(metadata["state"])
        settings = json.loads(metadata["settings"])
        if not isinstance(tree, dict) or not isinstance(settings, dict):
            raise ValueError("its settings and its state are no names and values")
        parts = tree if only is None else {key: tree[key] for key in only if key in tree}
        state = {key: _unpack(value, lambda name: tensors().get_tensor(name)) for key, value in parts.items()}
        _check(state)
        if settings.get("network") == "cam" and settings.get("masks") and "pooling" not in settings:
            settings["pooling"] = "field"  # of versions whose classifiers took masks and did not look at them
        if settings.get("network") == "cam":
            settings.setdefault("cell_bag", "all")  # of versions that had no other
        return Checkpoint(settings, state, metadata["version"])
    except InputError:
        raise
    # Nested without end, JSON is a RecursionError.
    except (
        SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint: {path} is damaged or no safetensors file: {reason}") from None


def checkpoint_file(path: Path) -> Path:
    """A checkpoint, or the best one of a run folder.

    Raises:
        InputError: the folder holds none.
    """
    if not path.is_dir():
        return path
    if not (path / BEST).is_file():
        raise InputError(
            f"checkpoint: {path} holds no {BEST}; expected a run of hpa-kit train with an epoch or more"
        )
    return path / BEST


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


def finds_cells(path: Path) -> bool:
    """Whether it is a run, or its checkpoint, whose networks find cells; what cannot be read is none."""
    if path.suffix in (".yaml", ".yml"):
        return False
    try:
        return settings_of(checkpoint_file(path)).network == "cells"
    except InputError:  # which its reader says
        return False


def _pack(value: Any, name: str, tensors: "dict[str, Tensor]") -> Any:
    """What JSON can hold of a value; its tensors go to ``tensors`` under the names that stand for them."""
    import torch

    if isinstance(value, torch.Tensor):
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


def _unpack(value: Any, tensor: "Callable[[str], Tensor]") -> Any:
    """What :func:`_pack` was given; ``tensor`` gives those of the file by their names."""
    if not isinstance(value, dict):
        return [_unpack(entry, tensor) for entry in value] if isinstance(value, list) else value
    if len(value) == 1:
        ((kind, content),) = value.items()
        if kind == _TENSOR:
            return tensor(content)
        if kind == _DTYPE:
            return _dtype(content)
        if kind == _TUPLE:
            return tuple(_unpack(entry, tensor) for entry in content)
        if kind == _PAIRS:
            return {key: _unpack(entry, tensor) for key, entry in content}
    return {key: _unpack(entry, tensor) for key, entry in value.items()}


def _dtype(name: str) -> Any:
    """A dtype of torch; nothing else is had by a name that a file says."""
    import torch

    found = vars(torch)[name]
    if not isinstance(found, torch.dtype):
        raise KeyError(name)
    return found


def _check(state: Mapping[str, Any]) -> None:
    """Refuse what every reader takes for granted.

    Raises:
        ValueError: weights, numbers or metrics are of another kind than a run writes.
    """
    for name in ("model", "ema", "swa"):
        weights = state.get(name, {})
        # Of what a file can hold only tensors have one.
        if not isinstance(weights, dict) or not all(hasattr(one, "dtype") for one in weights.values()):
            raise ValueError(f"its {name} holds no named tensors")
    for name in ("epoch", "step_number"):
        if not isinstance(state.get(name, 0), int):
            raise ValueError(f"its {name} is no whole number")
    if not isinstance(state.get("metrics") or {}, dict):
        raise ValueError("its metrics are no names and values")
