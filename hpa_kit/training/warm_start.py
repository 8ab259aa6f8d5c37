"""The weights of an earlier run, to start another with."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpa_kit.config import TrainSettings, make_settings
from hpa_kit.errors import InputError
from hpa_kit.training.checkpoint import BEST, read_checkpoint

SUBCATEGORY_WEIGHTS = "subcategory_head.weight"
_BACKBONE, _ENCODER = "backbone.maps.network.", "network.encoder.model."


def start_from(model: nn.Module, settings: TrainSettings, path: Path) -> None:
    """Put the weights of an earlier run into a network: all that means the same there and here.

    Of the same kind of network that is everything but a sub-category head of another round, whose clusters
    mean something else: so round 1 starts with round 0's backbone and its head as the parents' head. Of
    another kind it is the backbone; a U-Net's encoder starts with a classifier's, as far as that goes: stages
    that the classifier leaves out stay as they are.

    Args:
        model: the network that ``settings`` describe.
        settings: of the run that starts.
        path: run folder or checkpoint.

    Raises:
        InputError: the checkpoint cannot be read, or what is to be taken differs in names or shapes.
    """
    file = checkpoint_file(path)
    saved = read_checkpoint(file, only=("model", "ema", "swa"))
    before = make_settings(TrainSettings, saved.settings, source=f"warm_start: {file}")
    found, wanted = weights_of(saved.state), model.state_dict()
    if before.in_channels != settings.in_channels:
        raise InputError(
            f"warm_start: {file} reads {before.in_channels} channels; expected {settings.in_channels}"
        )
    same = before.network == settings.network
    if settings.network == "unet" and not same:
        found = _as_encoder(found, wanted)
    # The same round has the same clusters only if it has the same table; another shape tells them apart.
    fresh = not same or before.round != settings.round or _shape(found) != _shape(wanted)
    taken = {
        key
        for key in wanted
        if (same or key.startswith("backbone.") or (key.startswith(_ENCODER) and key in found))
        and not (fresh and key == SUBCATEGORY_WEIGHTS)
    }
    if not taken:
        raise InputError(
            f"warm_start: {file} is a network {before.network}, which has no weights for {settings.network}"
        )
    faults = [
        f"{key} {'is missing' if key not in found else 'has another shape'}"
        for key in sorted(taken)
        if key not in found or found[key].shape != wanted[key].shape
    ]
    if faults:
        raise InputError(
            f"warm_start: {file} does not fit backbone {settings.backbone} at stride {settings.stride}: "
            f"{', '.join(faults[:5])}{', …' if len(faults) > 5 else ''}"
        )
    model.load_state_dict({key: found[key] for key in taken}, strict=False)


def _as_encoder(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's backbone by the names of a U-Net's encoder, which has ``_`` for some of timm's dots."""
    names = {key.removeprefix(_ENCODER).replace(".", "_"): key for key in wanted if key.startswith(_ENCODER)}
    plain = {key.removeprefix(_BACKBONE).replace(".", "_"): value for key, value in found.items()}
    return {names[name]: value for name, value in plain.items() if name in names}


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


def weights_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint, or those that were trained."""
    weights: dict[str, Tensor] = state.get("swa") or state.get("ema") or state.get("model") or {}
    return weights


def _shape(weights: dict[str, Tensor]) -> torch.Size | None:
    return weights[SUBCATEGORY_WEIGHTS].shape if SUBCATEGORY_WEIGHTS in weights else None
