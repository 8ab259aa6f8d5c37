"""The layers of a timm network in their order: which of them learn, and how fast each does."""

from typing import Any

from timm.models import group_parameters

from hpa_kit.errors import InputError
from hpa_kit.models.backbones import Backbone

_LAST = "last:"


def layers_of(backbone: Backbone) -> dict[str, int]:
    """Number the layers of a backbone from the input on, by timm's notes on it.

    Layer 0 is the stem with class token and position embedding, each block is one more; a norm behind the
    last block belongs to it.

    Returns:
        {name of a weight in the backbone: its layer}.

    Raises:
        InputError: timm has no such notes on this network.
    """
    path, network = _noted(backbone)
    layers: dict[str, int] = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
    # Tokens of which timm's notes do not know stand before the blocks like those that they know.
    return {f"{path}.{name}": layer if "." in name else 0 for name, layer in layers.items()}


def freeze(backbone: Backbone, trainable: str) -> None:
    """Leave only part of a backbone to learn.

    What is frozen has no gradient and stays in evaluation mode while the rest trains: its batch norm keeps
    the statistics that it came with, and nothing of it is dropped.

    Args:
        backbone: the network; weights and all.
        trainable: ``whole``; ``frozen``, nothing of it; ``last:N``, its last N blocks.

    Raises:
        InputError: it has no more than N blocks, or they are not known.
    """
    if trainable == "whole":
        return
    first = None  # of the layers that learn
    layers: dict[str, int] = {}
    if trainable.startswith(_LAST):
        wanted, layers = int(trainable.removeprefix(_LAST)), layers_of(backbone)
        blocks = max(layers.values())
        if wanted > blocks:
            raise InputError(
                f"trainable: {trainable} of backbone {backbone.name}, which has {blocks} blocks; take whole"
            )
        first = blocks - wanted + 1
    for name, weight in backbone.named_parameters():
        weight.requires_grad_(first is not None and layers[name] >= first)
    backbone.part_frozen = True
    backbone.train(backbone.training)


def _noted(backbone: Backbone) -> tuple[str, Any]:
    """The timm network in a backbone, and its name there.

    Raises:
        InputError: it tells nothing of its layers.
    """
    for name, module in backbone.named_modules():
        if hasattr(module, "group_matcher"):
            return name, module
    raise InputError(
        f"backbone: timm {backbone.name} does not tell its layers; take trainable whole or frozen, and "
        "layer_decay 1"
    )
