"""Pretrained weights of a timm network, read without running code and fitted to more channels than three."""

import sys
import zipfile
from pathlib import Path
from typing import Any, Literal, TypeAlias

import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn

from hpa_kit.errors import InputError
from hpa_kit.resume import BEST

Weights: TypeAlias = Path | str | Literal["download"] | None
State: TypeAlias = dict[str, Tensor]
_BLUE = 2


def load_backbone_weights(network: nn.Module, name: str, in_channels: int, pretrained: Path | str) -> None:
    """Put pretrained three-channel weights into a timm network of ``in_channels`` channels, in place.

    The stem's filters of a fourth channel, and of a mask behind them, are copies of those of the third;
    nothing is rescaled. Weights of a classifier are left out. A file that already has ``in_channels``
    channels is taken as it is. Of SubCell, a folder, the filters of each colour go to that colour; those of
    colours that its variant has not, and of a mask, are 0.

    Args:
        network: built by timm without classifier.
        name: its timm name, for downloads and errors.
        in_channels: channels that the network reads.
        pretrained: path of a safetensors file or of a state dict saved by torch, a folder that ``hpa-kit
            weights convert`` wrote, or ``"download"``.

    Raises:
        InputError: the file is missing, is no weights file, or its keys or shapes do not fit; all are listed.
    """
    source = f"timm's weights of {name}" if str(pretrained) == "download" else str(pretrained)
    if str(pretrained) == "download":
        found = _download(name)
    elif Path(pretrained).is_dir():
        found = _of_subcell(pretrained, in_channels)
    else:
        found = read_state_dict(pretrained)
    fitted = _fit_keys(found, network)
    wanted = network.state_dict()
    for stem in _names(network, "first_conv"):
        key = f"{stem}.weight"
        # Of the whole shape: a file of a few bytes can claim any, and a copy would have to hold it.
        if key in fitted and in_channels > 3 and fitted[key].shape == _of_three(wanted[key].shape):
            blue = fitted[key][:, _BLUE : _BLUE + 1]
            fitted[key] = torch.cat([fitted[key], *[blue] * (in_channels - 3)], dim=1)
    _refuse_mismatches(fitted, network, source)
    network.load_state_dict(fitted, strict=False)


def read_state_dict(path: Path | str) -> State:
    """The named tensors of a safetensors file, or of a file saved by torch, wrapped in the usual ways or not.

    Raises:
        InputError: the file is missing, damaged, or holds more than tensors.
    """
    if not Path(path).is_file():
        raise InputError(f"pretrained: {path} is missing; give a local weights file or the word download")
    try:
        _refuse_packed(Path(path))
        state: Any = load_state_dict(str(path), weights_only=True)
        tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    # A damaged or hostile file can make torch's reader fail in any of its own ways.
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        if "weights_only" in reason:  # torch advises to run it all the same
            reason = (
                "it asks to build more than tensors, which may run code; give a state dict or safetensors"
            )
        raise InputError(f"pretrained: {path} cannot be read as named tensors: {reason}") from None
    if not tensors:
        raise InputError(f"pretrained: {path} holds no named tensors")
    return tensors


def _refuse_packed(path: Path) -> None:
    """Refuse a zip that unpacks to more than its bytes: torch packs nothing, and would unpack any amount.

    Raises:
        ValueError: it does.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
        if claimed > path.stat().st_size:
            raise ValueError(f"it unpacks to {claimed} bytes; torch's files are not packed")


def _of_subcell(folder: Path | str, in_channels: int) -> State:
    """SubCell's encoder by timm's names, its filters in the order of a field's channels.

    Raises:
        InputError: the folder holds no SubCell.
    """
    from hpa_kit.models.subcell import load_subcell

    if not (Path(folder) / BEST).is_file():
        raise InputError(
            f"pretrained: {folder} is a folder without {BEST}; give a local weights file, a folder of "
            "SubCell, or the word download"
        )
    subcell = load_subcell(folder)
    state: State = dict(subcell.encoder.state_dict())
    filters = state["patch_embed.proj.weight"]
    none = torch.zeros_like(filters[:, 0])
    by_colour = dict(zip(subcell.channels, filters.unbind(1), strict=True))
    colours = [by_colour.get(colour, none) for colour in "rgby"]
    fitted = [*colours, none][:in_channels]
    return state | {"patch_embed.proj.weight": torch.stack(fitted, dim=1)}


def _download(name: str) -> State:
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"pretrained: timm's weights of {name} cannot be had: {reason}") from None


def _of_three(shape: torch.Size) -> torch.Size:
    """The shape of a stem's weights where it reads three channels."""
    return torch.Size([shape[0], 3, *shape[2:]])


def _fit_keys(found: State, network: nn.Module) -> State:
    """Drop the classifier; have timm rename what another project wrote, and fit what is of another size."""
    wanted = network.state_dict()
    heads = tuple(f"{head}." for head in _names(network, "classifier"))
    fitted = {key: value for key, value in found.items() if key in wanted or not key.startswith(heads)}
    rename = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    stems = {f"{stem}.weight" for stem in _names(network, "first_conv")}  # of other channels: fitted next
    if rename is None or (
        fitted.keys() == wanted.keys()
        and all(fitted[key].shape == wanted[key].shape for key in wanted if key not in stems)
    ):
        return fitted
    try:
        renamed = rename(dict(found), network)
    except (KeyError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        # Not the other project's file either: its mismatches are listed by their own names.
        return fitted
    return {key: value for key, value in renamed.items() if key in wanted or not key.startswith(heads)}


def _names(network: nn.Module, entry: str) -> tuple[str, ...]:
    """What timm's notes on a network call its first convolution or its classifier: one name or several."""
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    value = config.get(entry)
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _refuse_mismatches(fitted: State, network: nn.Module, source: str) -> None:
    wanted = network.state_dict()
    # Files older than torch 0.4.1 lack this counter, which nothing computes with.
    missing = [key for key in wanted if key not in fitted and not key.endswith("num_batches_tracked")]
    unknown = [key for key in fitted if key not in wanted]
    shapes = [
        f"{key} {tuple(fitted[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in fitted and fitted[key].shape != wanted[key].shape
    ]
    parts = [("missing", missing), ("unknown", unknown), ("of another shape", shapes)]
    listed = [f"{what}: {', '.join(keys)}" for what, keys in parts if keys]
    if listed:
        raise InputError(f"pretrained: {source} does not fit the backbone; {'; '.join(listed)}")
