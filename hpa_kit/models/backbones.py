"""Any timm network as a source of feature maps at stride 32, 16, 14 or 8."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import timm
from timm.models import FeatureListNet
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.config import StrideBy, nearest
from hpa_kit.errors import InputError
from hpa_kit.models.pretrained import Weights, load_backbone_weights
from hpa_kit.models.sides import Sides, reason_of, refuse_side


class Backbone(nn.Module):
    """A timm network without its classifier: float (B, C, H, W) -> feature maps (B, n_features, h, w).

    Map pixels lie over their part of the field, half a map pixel beside it at most. Where a network would
    shift them farther, the field is padded to the next multiple of the stride, and the part of the maps that
    lies over it is taken.

    Args:
        name: a timm model name; a deprecated one is built as what it stands for now.
        stride: input pixels per map pixel; h is H / stride, rounded up, or less where fields are padded.
        stride_by: ``cut`` leaves out the stages after the one with that stride, ``dilate`` keeps all stages
            and dilates their convolutions instead of striding, ``both`` leaves out the last, dearest stage
            and dilates those before it.
        in_channels: channels of the input.
        pretrained: None, the path of a local weights file, or ``"download"``.
        size: side of the fields that it learns from; a network of one side is made for that one.

    Attributes:
        n_features: channels of the maps.
        sides: which sides it takes.
        part_frozen: whether some of its layers do not learn (:func:`~hpa_kit.models.layers.freeze`).

    Raises:
        InputError: the name is unknown, the network has no maps of that stride or cannot look at fields of
            that size, or the weights do not fit.
    """

    def __init__(
        self,
        name: str,
        stride: int = 32,
        stride_by: StrideBy = "cut",
        in_channels: int = 4,
        pretrained: Weights = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        check_name(name)
        self.name = name
        plan = _plan(timm.model_entrypoint(name), name, stride, stride_by, in_channels, size)
        network = without_classifier(name, **plan.options)
        if pretrained is not None:
            load_backbone_weights(network, name, in_channels, pretrained)
        self.maps = plan.way(network, name, stride, stride_by)
        self.sides = plan.sides
        self.n_features = plan.sides.n_features
        self.part_frozen = False

    def train(self, mode: bool = True) -> "Backbone":
        """Train what learns; what is frozen stays as it is when it infers."""
        super().train(mode)
        if self.part_frozen:
            for module in self.maps.modules():
                weights = list(module.parameters())
                if weights and not any(weight.requires_grad for weight in weights):
                    module.eval()
        return self

    def compute_again(self) -> None:
        """Compute blocks again on the way back instead of keeping what they said (gradient checkpointing).

        Raises:
            InputError: timm cannot do so with this network.
        """
        network: Any = self.maps.network
        try:
            network.set_grad_checkpointing(True)
        except (AttributeError, AssertionError, NotImplementedError) as error:
            raise InputError(
                f"gradient_checkpointing: timm's {self.name} has none ({reason_of(error)}); leave it out"
            ) from None

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, C, H, W) -> feature maps (B, n_features, h, w).

        Raises:
            InputError: the network cannot look at fields of this size.
        """
        height, width = x.shape[-2:]
        for side in {height, width}:
            self.sides.check(side)
        tall, wide = self.sides.padded(height), self.sides.padded(width)
        if (tall, wide) == (height, width):
            maps: Tensor = self.maps(x)
            return maps
        # Zeros, as convolutions pad: a border's pixels over again would weigh too much.
        maps = self.maps(functional.pad(x, (0, wide - width, 0, tall - height)))
        rows, columns = self.sides.map_side(height), self.sides.map_side(width)
        scale = rows * self.sides.stride / height, columns * self.sides.stride / width
        return functional.interpolate(maps, scale_factor=scale, mode="bilinear")[..., :rows, :columns]


def without_classifier(name: str, **options: Any) -> nn.Module:
    """Build a timm network with random weights and no classifier; ``options`` are timm's."""
    with warnings.catch_warnings():
        # Some families make a classifier of no class, of which torch says that it has no numbers.
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    return network


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


_Way = Callable[[nn.Module, str, int, StrideBy], nn.Module]


class _Plan(NamedTuple):
    """How the maps of a network are had: timm's options for it, the way, and the sides that it takes then."""

    options: dict[str, Any]
    way: _Way
    sides: Sides


class _UnbuiltError(Exception):
    """timm cannot build a network with some options."""


# Kept by timm's function, too: what is registered anew under a name is another network.
@lru_cache(maxsize=64)
def _plan(
    entrypoint: object, name: str, stride: int, stride_by: StrideBy, in_channels: int, size: int | None
) -> _Plan:
    """The first way in which a network gives maps of a stride, for fields of a size where one is asked for.

    Raises:
        InputError: there is none.
    """
    first = _first_plan(entrypoint, name, stride, stride_by, in_channels)
    if size is None or first.sides.takes(size):
        return first

    def made_for(side: int) -> _Plan | None:
        options = {key: value for key, value in first.options.items() if key not in _FLEXIBLE}
        try:
            plan = _tried(name, {**options, "img_size": side}, first.way, stride, stride_by, side)
        except _UnbuiltError:
            return None
        return plan if plan.sides.n_features else None

    found = made_for(size)
    if found is None:
        flexible = _is_of_one_side(name)
        refuse_side(
            first.sides,
            size,
            lambda side: first.sides.takes(side) or (flexible and made_for(side) is not None),
        )
    return found


@lru_cache(maxsize=64)
def _first_plan(_: object, name: str, stride: int, stride_by: StrideBy, in_channels: int) -> _Plan:
    """Of all options and ways the first that gives maps of that stride.

    Raises:
        InputError: there is none; what the first that could be run gave is told.
    """
    ran, unbuilt = [], []
    # Without its last stage a network has no last maps of another kind.
    ways = (_maps_of,) if stride_by == "both" else (_maps_of, _normed_last_stage, _last_stage, _features)
    for options in _options(name, stride, stride_by, in_channels):
        for way in ways:
            for sides in _sides_to_try(name, stride):
                try:
                    plan = _tried(name, options, way, stride, stride_by, sides[0])
                except _UnbuiltError as error:
                    unbuilt.append(str(error))
                    break
                refused = next((side for side in sides if not plan.sides.takes(side)), None)
                if refused is None:
                    return plan
                ran.append(plan.sides.fault(refused))
    fault = (
        "it cannot be dilated; use stride_by cut"
        if stride_by != "cut" and not ran
        else [*ran, *unbuilt[::-1]][0]
    )
    gives = "" if fault.startswith("gives") else f"gives no maps at stride {stride}: "
    raise InputError(f"backbone: {name} {gives}{fault}")


def _tried(
    name: str, options: dict[str, Any], way: _Way, stride: int, stride_by: StrideBy, side: int
) -> _Plan:
    """Try one way without numbers.

    Raises:
        InputError: the network has no stage of that stride.
        _UnbuiltError: timm cannot build it with these options, or not have its maps in this way.
    """

    def build() -> nn.Module:
        return way(without_classifier(name, **options), name, stride, stride_by)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is built in the end says it again
            sides = Sides(name, build, options["in_chans"], stride, side)
    except InputError:
        raise
    except Exception as error:  # each of timm's networks has its own
        raise _UnbuiltError(reason_of(error)) from error
    return _Plan(options, way, sides)


def _sides_to_try(name: str, stride: int) -> list[tuple[int, ...]]:
    """Sides that a network of that stride should take: those of a tuple together, else those of the next."""
    config = _config(name)
    native: list[tuple[int, ...]] = [] if config is None else [(int(config.input_size[-1]),)]
    # Two sides, since at a single one another stride may look the same.
    return native if _is_of_one_side(name) else [(4 * stride, 8 * stride), *native]


# Transformers made for one input size are told to take others, each family by its own option.
_FLEXIBLE: dict[str, Any] = {"strict_img_size": False, "dynamic_img_size": True}


def _options(name: str, stride: int, stride_by: StrideBy, in_channels: int) -> Iterator[dict[str, Any]]:
    """timm's options for a network without classifier: without pooling too, where it can be had so."""
    options: dict[str, Any] = {"in_chans": in_channels}
    dilated = stride_by != "cut" and stride < 32
    if dilated:
        options["output_stride"] = stride
    flexible = _FLEXIBLE if _is_of_one_side(name) and not dilated else {}
    for pooling in ({"global_pool": ""}, {}):
        for option, value in flexible.items():
            yield {**options, **pooling, option: value}
        yield {**options, **pooling}


def _is_of_one_side(name: str) -> bool:
    config = _config(name)
    return config is not None and bool(config.fixed_input_size)


def _config(name: str) -> Any:
    """What timm notes of a network, or None."""
    return timm.get_pretrained_cfg(name.partition(".")[0], allow_unregistered=True)


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


class _Features(nn.Module):
    """What a network gives its classifier, where it cannot be built without."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        network.head = nn.Identity()
        self.network = network
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.network.forward_features(x)
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


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
    if stride_by == "dilate" or not any(strides):
        return _Whole(network)
    if stride not in strides:
        known = sorted(set(strides) & {8, 14, 16, 32} or set(strides))
        raise InputError(f"backbone: {name} has no stage of stride {stride}; it has {known}")
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


def _last_stage(network: nn.Module, *_: object, norm: bool = False) -> nn.Module:
    """The maps of the last stage where the whole network gives no maps, such as a list of tokens."""
    return _Stage(network, len(_stage_strides(network)) - 1, norm)


def _normed_last_stage(network: nn.Module, *_: object) -> nn.Module:
    return _last_stage(network, norm=True)


def _features(network: nn.Module, *_: object) -> nn.Module:
    return _Features(network)


def _stage_strides(network: nn.Module) -> list[int]:
    """The stride of each stage's maps, first to last, where the network says so."""
    info: Any = getattr(network, "feature_info", None) or []
    entries: list[Mapping[str, Any]] = list(getattr(info, "info", info))
    return [int(entry["reduction"]) for entry in entries]
