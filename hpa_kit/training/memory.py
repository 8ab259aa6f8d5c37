"""The memory that a step of training takes on a GPU, by what a network keeps for the way back.

Networks run on torch's ``meta`` device, where nothing is computed and nothing is kept, with half precision as
a GPU would choose it; so it is known before a run starts, and without a GPU.
"""

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hpa_kit.config import TrainSettings
from hpa_kit.config.kinds import NOT_FINE_TUNED
from hpa_kit.models.layers import layers_of
from hpa_kit.models.sides import on_meta
from hpa_kit.training.processes import Processes

log = logging.getLogger(__name__)

GIB = 2**30
# What CUDA, cuDNN and their work space take, whatever is trained; about.
_CONTEXT = 0.7 * GIB
# Fields and crops of a batch that is not given, at most.
_LARGEST_BATCH = {"crops": 64}
_LARGEST_BATCH_OF_FIELDS = 40


class StepMemory(NamedTuple):
    """Bytes that a step takes.

    Attributes:
        parameters: of the network, a number.
        fixed: bytes for these, whatever the batch: weights, gradients, the optimiser's and averaged weights.
        per_field: bytes kept for the way back for each field or crop.
        transient: bytes that the way back takes at once for each field beside what is kept.
        tokens: of a field, or pixels of its maps.
    """

    parameters: int
    fixed: int
    per_field: int
    transient: int
    tokens: int

    def of(self, fields: int) -> int:
        """Bytes of a step of so many fields."""
        return int(_CONTEXT + self.fixed + fields * (self.per_field + self.transient))

    def fitting(self, capacity: int) -> int:
        """Fields whose step fits into so many bytes; 0 where none does."""
        return max(0, int((capacity - _CONTEXT - self.fixed) // (self.per_field + self.transient)))


def step_memory(settings: TrainSettings, build: Callable[[], nn.Module], half: bool = True) -> StepMemory:
    """Measure what a step keeps, without computing it.

    Args:
        settings: of the run.
        build: gives its network, with any weights.
        half: half precision, as ``amp`` on a GPU.

    Raises:
        Exception: timm's own, where the network does not run without numbers.
    """
    model = on_meta(build).train()
    side = settings.input_side or settings.size
    fields = torch.zeros((2, settings.in_channels, side, side), device="meta")
    kept, largest = _kept(model, fields, half)
    if settings.fine_tune.checkpointing:
        # On the way back the blocks are computed again one after the other, each as if it kept all.
        again: Any = on_meta(lambda: _without_checkpointing(build())).train()
        kept += _kept(again, fields, half)[0] // max(1, *layers_of(again.backbone).values())
    passes = 1 + (settings.puzzle_cam.source != "off") + (settings.cells.consistency > 0)
    weights = sum(weight.numel() for weight in model.parameters())
    learnt = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    copies = 4 + 4 * (settings.ema > 0) + 4 * (settings.swa > 0) + 2 * half
    moments = 4 if settings.optimiser.lower() in ("sgd", "momentum", "nesterov") else 8
    tokens = math.ceil(side / settings.stride) ** 2
    return StepMemory(weights, copies * weights + (4 + moments) * learnt, passes * kept // 2, largest, tokens)


def say_what_does_not_fit(settings: TrainSettings, build: Callable[[], nn.Module]) -> None:
    """Warn of a step that the GPUs of a run are expected to have too little memory for."""
    processes = Processes.here()
    capacity = torch.cuda.get_device_properties(processes.device(settings.device)).total_memory
    line = what_does_not_fit(settings, build, capacity, processes.world)
    if line is not None:
        log.warning(line)


def what_does_not_fit(
    settings: TrainSettings, build: Callable[[], nn.Module], capacity: int, world: int = 1
) -> str | None:
    """Tell whether a step is expected to need more memory than a device has.

    Args:
        settings: of the run.
        build: gives its network, with any weights.
        capacity: bytes of one device.
        world: devices that share a batch.

    Returns:
        What to say, in one line; None where it fits, or where the network does not tell.
    """
    half = settings.amp
    try:
        memory = step_memory(settings, build, half)
    except Exception:  # for want of numbers, in timm's own ways
        return None
    what = "crop" if settings.network == "crops" else "field"
    batch = settings.batch or _LARGEST_BATCH.get(settings.network, _LARGEST_BATCH_OF_FIELDS)
    each = math.ceil(batch / world)
    if memory.of(each) <= capacity:
        return None
    fit = memory.fitting(capacity)
    ways = []
    if settings.network not in NOT_FINE_TUNED:
        ways = [] if settings.fine_tune.checkpointing else ["--gradient-checkpointing"]
        if settings.fine_tune.trainable == "whole":
            ways.append("--trainable last:N")
    if fit:
        accumulate = math.ceil(batch / (fit * world)) * settings.accumulate
        ways.insert(0, f"--batch {fit * world} --accumulate {accumulate}")
    about = "" if settings.batch else "up to "
    return (
        f"train: a step of {about}{each} {what}s is expected to take {memory.of(each) / GIB:.1f} GiB, more "
        f"than the {capacity / GIB:.1f} GiB there are: {memory.fixed / GIB:.2f} for "
        f"{memory.parameters / 1e6:.1f} million parameters, "
        f"{(memory.per_field + memory.transient) / GIB:.3f} for each {what} of "
        f"{memory.tokens} places; try {', or '.join(ways) or 'a smaller backbone'}"
    )


def _kept(model: nn.Module, fields: Tensor, half: bool) -> tuple[int, int]:
    """Bytes kept for the way back of fields, but of weights, and those of the largest part, of one field."""
    own = {weight.untyped_storage()._cdata for weight in [*model.parameters(), *model.buffers()]}
    alive: list[Tensor] = []  # so that no storage takes another's place
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            alive.append(tensor)
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _AsOnGpu(half, own, alive):
        model(fields)
    return sum(sizes.values()), max(sizes.values(), default=0) // len(fields)


def _without_checkpointing(model: Any) -> nn.Module:
    model.backbone.maps.network.set_grad_checkpointing(False)
    return cast(nn.Module, model)


_HALF = {
    functional.linear, functional.conv1d, functional.conv2d, torch.conv2d, torch.matmul, torch.bmm,
    Tensor.matmul, Tensor.__matmul__, torch.einsum,
}  # fmt: skip
_FLOAT = {functional.layer_norm, functional.group_norm, functional.softmax, torch.softmax, Tensor.softmax}


class _AsOnGpu(TorchFunctionMode):
    """Precisions as CUDA's autocast chooses them, and attention that keeps no matrix of all pairs.

    Args:
        half: half precision.
        weights: storages of weights; their halves are counted with the weights, and added here.
        alive: where tensors of these are kept.
    """

    def __init__(self, half: bool, weights: set[int], alive: list[Tensor]) -> None:
        super().__init__()
        self._half, self._weights, self._alive = half, weights, alive

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            query, key, value = (self._cast(one, torch.half) for one in args[:3])
            return _Attention.apply(query, key, value)
        if self._half and func in _HALF:
            args = [self._cast(one, torch.half) for one in args]
            kwargs = {name: self._cast(one, torch.half) for name, one in kwargs.items()}
        elif self._half and func in _FLOAT:
            args = [self._cast(one, torch.float) for one in args]
        return func(*args, **kwargs)

    def _cast(self, value: Any, kind: torch.dtype) -> Any:
        if not self._half or not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        made = value.to(kind)
        if value.untyped_storage()._cdata in self._weights and made is not value:
            self._weights.add(made.untyped_storage()._cdata)
            self._alive.append(made)
        return made


class _Attention(torch.autograd.Function):
    """What fused attention keeps: queries, keys, values, what comes out, and a number per row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, out[..., 0].float())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return tuple(torch.zeros_like(one) for one in ctx.saved_tensors[:3])
