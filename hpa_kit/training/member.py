"""Members: trained classifiers, read from run folders and checkpoints."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hpa_kit.config import TrainSettings, make_settings
from hpa_kit.devices import pick_device
from hpa_kit.errors import InputError
from hpa_kit.models import CamClassifier
from hpa_kit.training.checkpoint import BEST, read_checkpoint


class Member(NamedTuple):
    """A trained classifier in evaluation mode, its settings, and what is known of it.

    ``info`` has ``path`` of the checkpoint, ``version`` of the kit that wrote it, ``epoch`` (from 1),
    ``metrics`` of that epoch, and whether the weights are ``averaged``.
    """

    model: CamClassifier
    settings: TrainSettings
    info: dict[str, Any]


def load_member(path: Path | str, device: str | torch.device = "cpu") -> Member:
    """A trained classifier, ready to infer, with averaged weights where the run kept them; no connection.

    Args:
        path: a run folder, of which the best checkpoint is taken, or a checkpoint file.
        device: where the classifier goes.

    Raises:
        InputError: nothing is there, the file is damaged or another program's, or its weights do not fit its
            settings.
    """
    file = _checkpoint_file(Path(path))
    saved = read_checkpoint(file, only=("model", "ema", "averaged", "epoch", "metrics"))
    settings = make_settings(TrainSettings, saved.settings, source=f"checkpoint: {file}")
    model = build_classifier(settings.model_copy(update={"pretrained": None}))
    load_weights(model, saved.state.get("ema") or saved.state.get("model") or {}, file)
    info = {
        "path": file,
        "version": saved.version,
        "epoch": saved.state.get("epoch"),
        "metrics": saved.state.get("metrics") or {},
        "averaged": "ema" in saved.state or bool(saved.state.get("averaged")),
    }
    target = pick_device(device) if isinstance(device, str) else device
    return Member(model.to(target).eval(), settings, info)


def build_classifier(settings: TrainSettings) -> CamClassifier:
    """The classifier that settings describe, with its pretrained weights where they name some."""
    return CamClassifier(
        settings.backbone,
        stride=settings.stride,
        stride_by=settings.stride_by,
        in_channels=settings.in_channels,
        pretrained=settings.pretrained,
        drop_rate=settings.drop_rate,
        contrast=settings.contrast,
    )


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Put all weights of a checkpoint into a model.

    Raises:
        InputError: keys or shapes differ; they are listed.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"checkpoint: {path} does not fit the network of its settings: {reason}") from None


def _checkpoint_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    if not (path / BEST).is_file():
        raise InputError(
            f"checkpoint: {path} holds no {BEST}; expected a run of hpa-kit train with an epoch or more"
        )
    return path / BEST
