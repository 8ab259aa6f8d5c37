"""Networks as settings describe them: new, tried, with an earlier run's weights, or as members that infer."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import TrainSettings, make_settings
from hpa_kit.devices import pick_device
from hpa_kit.errors import InputError
from hpa_kit.models.sides import on_meta, reason_of
from hpa_kit.training.checkpoint import checkpoint_file, read_checkpoint

if TYPE_CHECKING:
    from hpa_kit.models.backbones import Backbone

NETWORKS = ("cam", "arcface", "unet", "crops", "cells")
SUBCATEGORY_WEIGHTS = "subcategory_head.weight"
_BACKBONE, _ENCODER = "backbone.maps.network.", "network.encoder.model."
_WITHOUT_MAPS = {
    "arcface": ", which has no maps: it only gives hpa-kit features",
    "crops": ", which looks at single cells",
    "cells": ", which finds cells and says nothing of what they show: give it as --weights",
}


class Member(NamedTuple):
    """A trained network in evaluation mode, its settings, and what is known of it.

    ``model`` is what ``settings.network`` names: a :class:`~hpa_kit.models.CamClassifier` for ``cam``, an
    :class:`~hpa_kit.models.ArcFaceNet` for ``arcface``, a :class:`~hpa_kit.models.unet.SegmentationNet` for
    ``unet``, :class:`~hpa_kit.cells.networks.CellNetworks` for ``cells``, a
    :class:`~hpa_kit.models.CropNet` for ``crops`` or, where the backbone says so, a
    :class:`~hpa_kit.models.SubCell`. A head is read together with its encoder, as the network of crops that
    both are, and ``settings`` are those of that one.
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
    if settings.network not in networks and not (settings.network == "head" and "crops" in networks):
        raise InputError(
            f"checkpoint: {file} is a network {settings.network}{_WITHOUT_MAPS.get(settings.network, '')}; "
            f"expected {' or '.join(networks)}"
        )
    weights = weights_of(saved.state)
    if settings.network == "head":
        from hpa_kit.training.objectives.heads import joined

        model, settings = joined(settings, weights, file)
    else:
        model = _read_network(settings, weights, file)
    info = {
        "path": file,
        "version": saved.version,
        "epoch": saved.state.get("epoch"),
        "metrics": saved.state.get("metrics") or {},
        "averaged": not {"ema", "swa"}.isdisjoint(saved.state) or bool(saved.state.get("averaged")),
    }
    target = pick_device(device) if isinstance(device, str) else device
    return Member(model.to(target).eval(), settings, info)


def _read_network(settings: TrainSettings, weights: dict[str, Tensor], file: Path) -> nn.Module:
    """The network of a checkpoint, with its weights.

    Raises:
        InputError: it cannot be built, or the weights do not fit.
    """
    model: nn.Module
    try:
        if settings.subcell is None:
            bare = settings.model_copy(update={"pretrained": None, "warm_start": None})
            n_subcategories = weights[SUBCATEGORY_WEIGHTS].shape[0] if SUBCATEGORY_WEIGHTS in weights else 0
            model = build_network(bare, n_subcategories)
        else:
            from hpa_kit.models import SubCell

            model = SubCell.like(settings.subcell, weights)
    except InputError as error:  # of another version of timm, perhaps
        raise InputError(f"checkpoint: {file}: {error}") from None
    load_weights(model, weights, file)
    return model


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
    options: dict[str, Any] = {
        "stride": settings.stride,
        "stride_by": settings.stride_by,
        "in_channels": settings.in_channels,
        # A warm start brings the backbone's weights, so pretrained ones would be read for nothing.
        "pretrained": None if settings.warm_start is not None else settings.pretrained,
        "normalisation": settings.normalisation,
        "size": settings.input_side,
    }
    model: nn.Module
    if settings.network == "head":
        from hpa_kit.training.objectives.heads import build_head

        model = build_head(settings)
    elif settings.network == "cells":
        from hpa_kit.training.cell_networks import build_cell_networks

        model = build_cell_networks(settings)
    elif settings.network == "unet":
        from hpa_kit.models import SegmentationNet

        model = SegmentationNet(settings.backbone, **options)
    elif settings.network == "arcface":
        from hpa_kit.models import ArcFaceNet

        centres, scale = settings.arcface.centres, settings.arcface.scale
        model = ArcFaceNet(
            settings.backbone, n_centres=centres, scale=scale, drop_rate=settings.drop_rate, **options
        )
    elif settings.network == "crops":
        from hpa_kit.models import CropNet

        model = CropNet(
            settings.backbone,
            mask_channel=settings.crops.mask,
            neighbours=settings.crops.neighbours,
            drop_rate=settings.drop_rate,
            **options,
        )
    else:
        from hpa_kit.models import CamClassifier

        if n_subcategories is None:
            n_subcategories = _count_subcategories(settings)
        model = CamClassifier(
            settings.backbone, n_subcategories=n_subcategories, drop_rate=settings.drop_rate, **options
        )
    if settings.warm_start is not None:
        start_from(model, settings, settings.warm_start)
    if settings.fine_tune.trainable != "whole":
        from hpa_kit.models.layers import freeze

        freeze(cast("Backbone", model.backbone), settings.fine_tune.trainable)
    if settings.fine_tune.checkpointing:
        cast("Backbone", model.backbone).compute_again()
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
    if settings.sc_cam.subcategories is None:
        return 0
    from hpa_kit.training.subcategories import read_subcategories

    return N_CLASSES * read_subcategories(settings.sc_cam.subcategories).k


def start_from(model: nn.Module, settings: TrainSettings, path: Path) -> None:
    """Put the weights of an earlier run into a network: all that means the same there and here.

    Of the same kind of network that is everything but a sub-category head of another round, whose clusters
    mean something else: so round 1 starts with round 0's backbone and its head as the parents' head. Of
    another kind it is the backbone; a U-Net's encoder starts with a classifier's, as far as that goes: stages
    that the classifier leaves out stay as they are. A network of crops has filters of 0 for the mask then.

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
    if settings.network == "crops" and not same:
        found = {key: _with_mask(value, wanted.get(key)) for key, value in found.items()}
    # The same round has the same clusters only if it has the same table; another shape tells them apart.
    fresh = not same or before.sc_cam.round != settings.sc_cam.round or _shape(found) != _shape(wanted)
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


def _with_mask(weight: Tensor, wanted: Tensor | None) -> Tensor:
    """The filters of a stem, with others of 0 for one more channel where that is what is wanted."""
    if wanted is None or weight.ndim < 2 or wanted.shape[1:2] != (weight.shape[1] + 1,):
        return weight
    return torch.cat([weight, weight.new_zeros((len(weight), 1, *weight.shape[2:]))], dim=1)


def weights_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint, or those that were trained."""
    weights: dict[str, Tensor] = state.get("swa") or state.get("ema") or state.get("model") or {}
    return weights


def _shape(weights: dict[str, Tensor]) -> torch.Size | None:
    return weights[SUBCATEGORY_WEIGHTS].shape if SUBCATEGORY_WEIGHTS in weights else None


def refuse_what_cannot_learn(settings: TrainSettings, build: Callable[[], nn.Module], fields: int) -> None:
    """Run a network forward and backward as it learns, without numbers where that goes.

    On a GPU it is said where a step is expected to take more memory than there is.

    Args:
        settings: of the run.
        build: gives the network, with any weights.
        fields: that it sees at once, at least: 1, or 2 for more.

    Raises:
        InputError: it cannot be built or cannot learn from fields of that size, or batch norm would see a
            single value per channel, or there is nothing to mix a field with.
    """
    if fields == 1 and settings.cells.consistency:
        raise InputError("consistency: the fields of a step are mixed; take batch 2 or more for each process")
    fault = _fault(settings, build, fields)
    if fault is None:
        if settings.device != "cpu" and torch.cuda.is_available():
            from hpa_kit.training.memory import say_what_does_not_fit

            say_what_does_not_fit(settings, build)
        return
    what, side = "crop" if settings.network == "crops" else "field", settings.input_side
    if fields == 1 and _fault(settings, build, 2) is None:
        raise InputError(
            f"batch: one {what} a step and process at size {side} gives batch norm of backbone "
            f"{settings.backbone} single values, from which it cannot learn ({fault}); take batch 2 or more "
            "for each process"
        )
    raise InputError(f"backbone: {settings.backbone} cannot learn from {what}s of size {side}: {fault}")


def learns_with_all_weights(settings: TrainSettings, build: Callable[[], nn.Module]) -> bool:
    """Whether every weight of a backbone that learns gets a gradient; processes that share them must know."""
    model = _tried(settings, build, 2)
    weights = getattr(model, "backbone", model).parameters()
    return all(weight.grad is not None for weight in weights if weight.requires_grad)


def _fault(settings: TrainSettings, build: Callable[[], nn.Module], fields: int) -> str | None:
    """Why so many fields cannot be learnt from; None where they can."""
    try:
        _tried(settings, build, fields)
    except InputError:
        raise
    except Exception as error:  # of any kind: they are timm's
        return reason_of(error)
    return None


def _tried(settings: TrainSettings, build: Callable[[], nn.Module], fields: int) -> nn.Module:
    """A network that has run forward and backward, without numbers where that goes."""
    try:
        return _run(on_meta(build), settings, fields, "meta")
    except InputError:
        raise
    except Exception:  # perhaps for want of numbers
        with torch.random.fork_rng(devices=()), torch.device("cpu"):
            return _run(build(), settings, fields, "cpu")


def _run(model: Any, settings: TrainSettings, fields: int, device: str) -> nn.Module:
    """Run a network forward and backward, a head with bags of two cells."""
    side = settings.input_side or settings.size
    shape: tuple[int, ...] = (fields, settings.in_channels, side, side)
    if settings.network == "head":
        shape = (fields, 2, model.width)
    found: Any = model.train()(torch.zeros(shape, device=device))
    if isinstance(found, Tensor) and found.requires_grad:
        found.float().sum().backward()
    return model
