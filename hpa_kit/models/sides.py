"""Which sides a network takes, and where its map pixels lie: learnt by running it without numbers."""

import threading
from collections.abc import Callable, Collection
from traceback import extract_tb
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hpa_kit.errors import InputError

# Multiples of which networks take: patches, strides, windows times strides.
_STEPS = (2, 4, 8, 14, 16, 28, 32, 56, 64, 112, 128, 192, 224, 256)
_MIN_SIDE, _MAX_SIDE = 32, 8192
# The farthest that a map pixel may lie from its place, in map pixels.
_FARTHEST = 0.5
# What torch says where something cannot be done without numbers; the last of autocast.
_META = ("meta", "scalarType")
_RESIZING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)

Place = tuple[float, float]  # input pixels from one map pixel to the next, and to the centre of the first


class Sides:
    """What a network that gives maps does with square fields of any side.

    torch's ``meta`` device works out shapes without computing anything, in milliseconds. The few networks
    that cannot run there, or look values up by numbers that they compute, are run with random weights. What
    is learnt of a side is kept.

    Args:
        name: of the network, for errors.
        build: gives the network: float (B, C, S, S) -> maps (B, features, h, h).
        in_channels: C.
        stride: input pixels per map pixel: h is S / stride, rounded up.
        built_for: a side that the network is made for.

    Attributes:
        n_features: features of the maps; 0 where a field of the side ``built_for`` gives no maps.
    """

    def __init__(
        self, name: str, build: Callable[[], nn.Module], in_channels: int, stride: int, built_for: int
    ) -> None:
        self.name, self.in_channels, self.stride, self.built_for = name, in_channels, stride, built_for
        self.n_features = 0
        self._resized: list[_Resized] = []
        self._lock = threading.Lock()  # members on several devices are run by threads
        self._watch(on_meta(build), "meta")
        with _LookUps(self._network) as look_ups:
            needs_numbers = self._run(built_for).needs_numbers
        if needs_numbers or look_ups.computed:
            with torch.random.fork_rng(devices=()), torch.device("cpu"):
                self._watch(build(), "cpu")
        if self.takes(built_for):
            self.n_features = self._run(self.padded(built_for)).shape[1]

    def __deepcopy__(self, _: Any) -> "Sides":
        return self  # of a copied network the same is true

    def takes(self, side: int) -> bool:
        """Whether fields of this side give maps whose pixels lie at their places."""
        return self._run(side).fault is None and self._gives_maps(self.padded(side))

    def check(self, side: int) -> None:
        """Refuse a side that is not taken.

        Raises:
            InputError: it is not; the nearest that are are named.
        """
        if not self.takes(side):
            refuse_side(self, side, self.takes)

    def padded(self, side: int) -> int:
        """The side that a field is padded to so that its maps lie at their places: mostly its own.

        A network that rounds a side down, or up by what it adds at one end, shifts its maps against the
        field. At a multiple of the stride nothing is rounded.
        """
        multiple = -(-side // self.stride) * self.stride
        if side == multiple or (self._gives_maps(side) and self._run(side).beside <= _FARTHEST):
            return side
        return multiple

    def map_side(self, side: int) -> int:
        """Map pixels along a side: S / stride, rounded up.

        Rounded down where a field is padded and map pixels lie to one side of their places anyhow: narrower
        ones would be farther beside.
        """
        padded = self.padded(side)
        if padded == side or self._run(padded).beside <= _FARTHEST / 2:
            return -(-side // self.stride)
        return max(1, side // self.stride)

    def nearest(self, wanted: int) -> int:
        """The side nearest to a wanted one that the network takes."""
        if self.takes(wanted):
            return wanted
        found = near_sides(wanted, self.takes, (self.built_for,))
        return min([*found, self.built_for], key=lambda side: abs(side - wanted))

    def fault(self, side: int) -> str:
        """Why a side is not taken: the network's own words, or what it gives instead of maps."""
        run = self._run(side)
        if run.fault is None:
            side = self.padded(side)
            run = self._run(side)
        if run.fault is not None:
            return run.fault
        expected = -(-side // self.stride)
        return f"gives {run.found} for a {side}² input; expected {expected}² maps for stride {self.stride}"

    def _watch(self, network: nn.Module, device: str) -> None:
        self._network, self._device = network.eval(), device
        self._runs: dict[int, _Run] = {}
        for module in network.modules():
            if isinstance(module, _RESIZING):
                module.register_forward_hook(self._note)

    def _gives_maps(self, side: int) -> bool:
        run, expected = self._run(side), -(-side // self.stride)
        return (
            len(run.shape) == 4
            and run.shape[2:] == (expected, expected)
            and self.n_features in (0, run.shape[1])
        )

    def _run(self, side: int) -> "_Run":
        with self._lock:
            if side not in self._runs:
                self._runs[side] = self._run_anew(side)
            return self._runs[side]

    def _run_anew(self, side: int) -> "_Run":
        self._resized.clear()
        try:
            with torch.no_grad():
                maps: Any = self._network(torch.zeros(1, self.in_channels, side, side, device=self._device))
        except Exception as error:  # timm's networks fail in ways of their own
            return _Run(fault=reason_of(error), needs_numbers=_needs_numbers(error))
        if not isinstance(maps, Tensor):
            return _Run(found=type(maps).__name__)
        shape = tuple(maps.shape)
        return _Run(None, shape, str(shape), _beside(self._resized, side, shape[-1]))

    def _note(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        before, after = inputs[0].shape[-1], output.shape[-1]
        if before != after:
            self._resized.append(_Resized.by(module, before, after))


def near_sides(wanted: int, takes: Callable[[int], bool], known: Collection[int] = ()) -> list[int]:
    """The nearest sides below and above a wanted one that are taken, as far as there are any.

    Args:
        wanted: which is not taken.
        takes: tells of a side whether it is.
        known: sides whose multiples may be.
    """
    steps = sorted({*_STEPS, *known})
    below = ((wanted - 1) // step * step for step in steps)
    above = (wanted // step * step + step for step in steps)
    found = (
        next((side for side in some if _MIN_SIDE <= side <= _MAX_SIDE and takes(side)), None)
        for some in (below, above)
    )
    return [side for side in found if side is not None]


def refuse_side(sides: Sides, side: int, takes: Callable[[int], bool]) -> NoReturn:
    """Refuse a side that a user gave, naming the nearest that are taken.

    Raises:
        InputError: always.
    """
    near = " and ".join(map(str, near_sides(side, takes, (sides.built_for,))))
    raise InputError(
        f"size: backbone {sides.name} cannot look at fields of {side} x {side}; the nearest sides that it "
        f"takes: {near or 'none'} ({sides.fault(side)})"
    )


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network without its numbers, on torch's meta device; the random state is left as it was."""
    with torch.random.fork_rng(devices=()):
        try:
            with torch.device("meta"):
                return build()
        except Exception as error:
            if not _needs_numbers(error):
                raise
            with torch.device("cpu"):
                return build().to("meta")


def _needs_numbers(error: Exception) -> bool:
    """Whether something failed for want of numbers."""
    return isinstance(error, NotImplementedError) or any(sign in str(error) for sign in _META)


def reason_of(error: Exception) -> str:
    """What an error says, in one line; where it says nothing, the line of code that raised it."""
    said = " ".join(str(error).split())
    if said:
        return said
    frames = [frame for frame in extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    return f"{type(error).__name__}: {frames[-1].line}" if frames else type(error).__name__


class _LookUps(TorchFunctionMode):
    """Notices whether a network looks values up by whole numbers that are no constants of its own.

    Without numbers it cannot be seen whether they are too large.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.computed = False
        self._constants = {id(buffer) for buffer in network.buffers()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.computed |= any(
                isinstance(place, Tensor)
                and place.ndim > 0
                and not {id(place), id(place._base)} & self._constants
                for place in places
            )
        return func(*args, **(kwargs or {}))


class _Run(NamedTuple):
    """What came of a field of some side: why nothing did, or its shape, and how far map pixels lie beside."""

    fault: str | None = None
    shape: tuple[int, ...] = ()
    found: str = ""
    beside: float = 0.0
    needs_numbers: bool = False


class _Resized(NamedTuple):
    """A layer that gave maps of another side: pixels ``stride`` apart, the first centred on ``first``."""

    before: int
    after: int
    stride: int
    first: float

    @classmethod
    def by(cls, module: Any, before: int, after: int) -> "_Resized":
        kernel, stride, padding, dilation = (
            value if isinstance(value, int) else value[-1]
            for value in (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
        )
        covered = dilation * (kernel - 1) + 1
        # A layer without padding that needs some pads by itself, at both ends.
        lacking = (after - 1) * stride + covered - before
        return cls(before, after, stride, (covered - 1) / 2 - (padding or max(lacking, 0) // 2))


def _beside(layers: Collection[_Resized], side: int, map_side: int) -> float:
    """How far map pixels lie beside their places at most, in map pixels, by the layers that led to them.

    Infinite where no known layers lead there.
    """
    places: dict[int, set[Place]] = {side: {(1.0, 0.5)}}
    for layer in sorted(layers, key=lambda layer: -layer.before):
        for apart, first in places.get(layer.before, ()):
            found = (apart * layer.stride, first + layer.first * apart)
            places.setdefault(layer.after, set()).add(found)
    wide = side / max(map_side, 1)
    return max(
        (
            abs(apart * place + first - (place + 0.5) * wide) / wide
            for apart, first in places.get(map_side, {(1.0, float("inf"))})
            for place in (0, map_side - 1)
        ),
        default=float("inf"),
    )
