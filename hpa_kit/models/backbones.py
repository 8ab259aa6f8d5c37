"""Any timm network as a source of feature maps at stride 32, 16 or 8."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models import FeatureListNet
from torch import Tensor, nn

from hpa_kit.config import StrideBy, nearest
from hpa_kit.errors import InputError
from hpa_kit.models.pretrained import Weights, load_backbone_weights


class Backbone(nn.Module):
    """A timm network without its classifier: float (B, C, H, W) -> feature maps (B, n_features, h, w).

    Args:
        name: a timm model name; a deprecated one is built as what it stands for now.
        stride: input pixels per map pixel.
        stride_by: ``cut`` leaves out the stages after the one with that stride, ``dilate`` keeps all stages
            and dilates their convolutions instead of striding, ``both`` leaves out the last, dearest stage
            and dilates those before it.
        in_channels: channels of the input.
        pretrained: None, the path of a local weights file, or ``"download"``.

    Raises:
        InputError: the name is unknown, the network has no maps of that stride, or the weights do not fit.
    """

    def __init__(
        self,
        name: str,
        stride: int = 32,
        stride_by: StrideBy = "cut",
        in_channels: int = 4,
        pretrained: Weights = None,
    ) -> None:
        super().__init__()
        check_name(name)
        self.name = name
        network = _create(name, stride if stride_by != "cut" and stride < 32 else None, in_channels)
        if pretrained is not None:
            load_backbone_weights(network, name, in_channels, pretrained)
        self.maps = _maps_of(network, name, stride, stride_by)
        self.n_features = _checked_features(self.maps, network, name, stride, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, C, H, W) -> feature maps (B, n_features, h, w).

        Raises:
            InputError: the network takes fields of one size only, and these are of another.
        """
        try:
            maps: Tensor = self.maps(x)
        except AssertionError as error:
            # Of a transformer made for one size, whose windows do not fit another.
            size = f"{x.shape[-1]} x {x.shape[-2]}"
            raise InputError(f"backbone: {self.name} cannot look at fields of {size}: {error}") from None
        return maps


def check_name(name: str) -> None:
    """Raise InputError, with the nearest known name, where timm knows no network of that name."""
    if ":" in name or "/" in name:
        raise InputError(f"backbone: {name!r} is a place, not a timm model name such as 'resnet50'")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        hint = nearest(architecture, timm.list_models())
        raise InputError(f"backbone: timm {timm.__version__} has no model {name!r}{hint}")
    # Deprecated names carry no tags of their own, so a tag is looked up only where it is given.
    if tag:
        known = timm.list_pretrained(f"{architecture}.*")
        if name not in known:
            raise InputError(f"backbone: timm has no weights {name!r}{nearest(name, known)}")


def _create(name: str, output_stride: int | None, in_channels: int) -> nn.Module:
    """The whole network with random weights: no pooling, no classifier, never any connection."""
    options: dict[str, Any] = {"num_classes": 0, "global_pool": "", "in_chans": in_channels}
    if output_stride is None:
        return _create_any_size(name, options)
    try:
        return timm.create_model(name, pretrained=False, output_stride=output_stride, **options)
    except (AssertionError, TypeError, ValueError, NotImplementedError):
        raise InputError(
            f"backbone: {name} cannot be dilated to stride {output_stride}; use stride_by cut"
        ) from None


def _create_any_size(name: str, options: dict[str, Any]) -> nn.Module:
    """Transformers made for one input size are told to take others, each family by its own option."""
    config = timm.get_pretrained_cfg(name.partition(".")[0], allow_unregistered=True)
    if config is not None and config.fixed_input_size:
        for flexible in ({"strict_img_size": False}, {"dynamic_img_size": True}):
            try:
                return timm.create_model(name, pretrained=False, **flexible, **options)
            except TypeError:
                continue
    return timm.create_model(name, pretrained=False, **options)


class _Whole(nn.Module):
    """All stages, with the last convolution or norm that a network puts before its pooling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.network(x)
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


class _Stage(nn.Module):
    """The maps of one stage through timm's interface for intermediate maps; later stages are removed."""

    def __init__(self, network: Any, index: int, norm: bool) -> None:
        super().__init__()
        network.prune_intermediate_layers(indices=[index], prune_norm=not norm, prune_head=True)
        # Some networks keep a norm in the pruned head; a weight without gradient would stop DDP.
        network.head = nn.Identity()
        self.network = network
        self.index = index
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = self.network.forward_intermediates(
            x,
            indices=[self.index],
            norm=self.norm,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return maps[0]


class _Listed(nn.Module):
    """The maps of one stage of a network that lacks timm's interface for intermediate maps."""

    def __init__(self, network: nn.Module, index: int) -> None:
        super().__init__()
        self.network = FeatureListNet(
            network, out_indices=(index,), flatten_sequential=True, feature_concat=True
        )

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.network(x)[0]
        return maps


def _maps_of(network: nn.Module, name: str, stride: int, stride_by: StrideBy) -> nn.Module:
    """Choose how the maps are had: the whole network where its last stage is asked for, else one stage."""
    strides = _stage_strides(network)
    if stride_by == "both":
        return _without_last_stage(network, name, strides)
    if stride_by == "dilate" or not strides:
        return _Whole(network)
    if stride not in strides:
        known = sorted(set(strides) & {8, 16, 32})
        raise InputError(f"backbone: {name} has no stage of stride {stride}; it has {known or strides}")
    index = len(strides) - 1 - strides[::-1].index(stride)
    intermediates = hasattr(network, "forward_intermediates") and hasattr(
        network, "prune_intermediate_layers"
    )
    tokens = len(set(strides)) == 1
    if index == len(strides) - 1 and not tokens:
        return _Whole(network)
    return _Stage(network, index, norm=tokens) if intermediates else _Listed(network, index)


def _without_last_stage(network: nn.Module, name: str, strides: list[int]) -> nn.Module:
    if len(strides) < 2 or not hasattr(network, "forward_intermediates"):
        raise InputError(f"backbone: {name} has no stages to leave out; use stride_by cut or dilate")
    return _Stage(network, len(strides) - 2, norm=False)


def _stage_strides(network: nn.Module) -> list[int]:
    """The stride of each stage's maps, first to last, where the network says so."""
    info: Any = getattr(network, "feature_info", None) or []
    entries: list[Mapping[str, Any]] = list(getattr(info, "info", info))
    return [int(entry["reduction"]) for entry in entries]


def _checked_features(maps: nn.Module, network: nn.Module, name: str, stride: int, in_channels: int) -> int:
    """The number of features of the maps, after running zeros to check their stride."""
    config: Any = getattr(network, "pretrained_cfg", None) or {}
    side = config["input_size"][-1] if config.get("fixed_input_size") else 4 * stride
    was_training = maps.training
    maps.eval()
    try:
        with torch.no_grad():
            out = maps(torch.zeros(1, in_channels, side, side))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"backbone: {name} gives no maps at stride {stride}: {' '.join(str(error).split())}"
        ) from None
    maps.train(was_training)
    expected = -(-side // stride)
    if not isinstance(out, Tensor) or out.ndim != 4 or out.shape[2:] != (expected, expected):
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        wanted = f"{expected}² maps for stride {stride}"
        raise InputError(f"backbone: {name} gives {found} for a {side}² input; expected {wanted}")
    return int(out.shape[1])
