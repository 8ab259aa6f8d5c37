"""Members: trained networks, read from run folders and checkpoints."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import TrainSettings, make_settings
from hpa_kit.devices import pick_device
from hpa_kit.errors import InputError
from hpa_kit.models import ArcFaceNet, CamClassifier
from hpa_kit.training.checkpoint import read_checkpoint
from hpa_kit.training.subcategory_table import read_subcategories
from hpa_kit.training.warm_start import SUBCATEGORY_WEIGHTS, checkpoint_file, start_from, weights_of

NETWORKS = ("cam", "arcface", "unet")
_WITHOUT_MAPS = {"arcface": ", which has no maps: it only gives hpa-kit features"}


class Member(NamedTuple):
    """A trained network in evaluation mode, its settings, and what is known of it.

    ``model`` is what ``settings.network`` names: a :class:`~hpa_kit.models.CamClassifier` for ``cam``, an
    :class:`~hpa_kit.models.ArcFaceNet` for ``arcface``, a :class:`~hpa_kit.models.unet.SegmentationNet` for
    ``unet``.
    ``info`` has ``path`` of the checkpoint, ``version`` of the kit that wrote it, ``epoch`` (from 1),
    ``metrics`` of that epoch, and whether the weights are ``averaged``.
    """

    model: Any
    settings: TrainSettings
    info: dict[str, Any]


def load_member(
    path: Path | str, device: str | torch.device = "cpu", networks: Collection[str] = NETWORKS
) -> Member:
    """A trained network, ready to infer, with averaged weights where the run kept them; no connection.

    Args:
        path: a run folder, of which the best checkpoint is taken, or a checkpoint file.
        device: where the network goes.
        networks: the kinds that the caller can use.

    Raises:
        InputError: nothing is there, the file is damaged or another program's, its weights do not fit its
            settings, or it is a network of another kind.
    """
    file = checkpoint_file(Path(path))
    saved = read_checkpoint(file, only=("model", "ema", "swa", "averaged", "epoch", "metrics"))
    settings = make_settings(TrainSettings, saved.settings, source=f"checkpoint: {file}")
    if settings.network not in networks:
        raise InputError(
            f"checkpoint: {file} is a network {settings.network}{_WITHOUT_MAPS.get(settings.network, '')}; "
            f"expected {' or '.join(networks)}"
        )
    weights = weights_of(saved.state)
    bare = settings.model_copy(update={"pretrained": None, "warm_start": None})
    n_subcategories = weights[SUBCATEGORY_WEIGHTS].shape[0] if SUBCATEGORY_WEIGHTS in weights else 0
    try:
        model = build_network(bare, n_subcategories)
    except InputError as error:  # of another version of timm, perhaps
        raise InputError(f"checkpoint: {file}: {error}") from None
    load_weights(model, weights, file)
    info = {
        "path": file,
        "version": saved.version,
        "epoch": saved.state.get("epoch"),
        "metrics": saved.state.get("metrics") or {},
        "averaged": not {"ema", "swa"}.isdisjoint(saved.state) or bool(saved.state.get("averaged")),
    }
    target = pick_device(device) if isinstance(device, str) else device
    return Member(model.to(target).eval(), settings, info)


def build_network(settings: TrainSettings, n_subcategories: int | None = None) -> nn.Module:
    """The network that settings describe, with its initial weights: warm start, pretrained, or random ones.

    Args:
        settings: of the run.
        n_subcategories: sub-categories of all classes together that a classifier learns too; by default as
            many as the table of the settings has.

    Raises:
        InputError: the backbone is unknown or cannot look at fields of that size, or weights to start with
            are missing or do not fit.
    """
    # A warm start brings the backbone's weights, so pretrained ones would be read for nothing.
    pretrained = None if settings.warm_start is not None else settings.pretrained
    model: nn.Module
    if settings.network == "unet":
        from hpa_kit.models.unet import SegmentationNet

        model = SegmentationNet(
            settings.backbone,
            in_channels=settings.in_channels,
            pretrained=pretrained,
            contrast=settings.contrast,
            stride=settings.stride,
            stride_by=settings.stride_by,
            size=settings.size,
        )
    else:
        options: dict[str, Any] = {
            "stride": settings.stride,
            "stride_by": settings.stride_by,
            "in_channels": settings.in_channels,
            "pretrained": pretrained,
            "drop_rate": settings.drop_rate,
            "contrast": settings.contrast,
            "size": settings.size,
        }
        if settings.network == "arcface":
            centres, scale = settings.arcface_centres, settings.arcface_scale
            model = ArcFaceNet(settings.backbone, n_centres=centres, scale=scale, **options)
        else:
            if n_subcategories is None:
                n_subcategories = _count_subcategories(settings)
            model = CamClassifier(settings.backbone, n_subcategories=n_subcategories, **options)
    if settings.warm_start is not None:
        start_from(model, settings, settings.warm_start)
    return model


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


def _count_subcategories(settings: TrainSettings) -> int:
    if settings.subcategories is None:
        return 0
    return N_CLASSES * read_subcategories(settings.subcategories).k
