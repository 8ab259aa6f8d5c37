"""What the members say of a field: image scores and maps, over all test-time views."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import Views
from hpa_kit.data import resize_field
from hpa_kit.errors import InputError
from hpa_kit.inference.scoring import FLOOR_SCORE
from hpa_kit.models import CamClassifier
from hpa_kit.training import load_member

log = logging.getLogger(__name__)

Inputs = Mapping[int, NDArray[np.uint8]]

# Axes that a view is flipped along: as it is, horizontally, vertically.
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,))
SCALES = (1.0, 1.2, 1.4)
# Members from this input side on get the flips only, as the 15th place had it: larger still costs much.
LARGE_SIDE = 1024


class FieldMaps(NamedTuple):
    """What the members say of one field; see :class:`~hpa_kit.inference.rules.FieldEvidence`."""

    image_scores: NDArray[np.float32]
    class_maps: NDArray[np.float32]
    logit_maps: NDArray[np.float32]


class _Seen(NamedTuple):
    """One member's batch: scores (B, 19), CAMs and raw maps (B, 19, h, w)."""

    scores: Tensor
    cams: Tensor
    maps: Tensor


class Ensemble:
    """Classifiers that look at the same fields; all weigh the same.

    Per member, CAMs of all views are flipped back, averaged, resized to the largest view's and averaged;
    the score is the mean of the views' sigmoids. Classes below 0.01 are zeroed, the rest is divided by its
    maximum and resized. This is how the competition's 15th place made its maps.

    Args:
        members: run folders or checkpoints.
        views: ``none``, ``flips`` (as is, horizontal, vertical) or ``scales`` (the flips at 1, 1.2 and 1.4
            times the member's size; members from 1024 px on get the flips only).
        map_size: side of the maps that come out.
        batch: fields per step; halved when memory runs out.
        device: where the members run.
        amp: half precision on a GPU.
        class_maps, logit_maps: which maps are wanted; those that are not come out without pixels.

    Raises:
        InputError: a member cannot be loaded.
    """

    def __init__(
        self,
        members: Sequence[Path],
        views: Views = "flips",
        map_size: int = 512,
        batch: int = 8,
        device: str | torch.device = "cpu",
        *,
        amp: bool = True,
        class_maps: bool = True,
        logit_maps: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self.amp = amp and self.device.type == "cuda"
        self.views, self.map_size, self.batch = views, map_size, batch
        self.class_maps, self.logit_maps = class_maps, logit_maps
        self.members: list[tuple[CamClassifier, int]] = []
        for path in members:
            model, settings, _ = load_member(path, self.device)
            model = model.to(memory_format=torch.channels_last)
            self.members.append((model, settings.size))

    def inputs(self, field: NDArray[np.uint8]) -> dict[int, NDArray[np.uint8]]:
        """A field uint8 (4, H, W) -> what the members read: {side: uint8 (4, side, side)}."""
        return {size: resize_field(field, size) for size in {size for _, size in self.members}}

    def __call__(self, fields: Sequence[NDArray[np.uint8]]) -> list[FieldMaps]:
        """Fields uint8 (4, H, W) of any sizes -> their maps, in order."""
        return self.look([self.inputs(field) for field in fields])

    def look(self, inputs: Sequence[Inputs]) -> list[FieldMaps]:
        """Fields as :meth:`inputs` gives them -> their maps, in order.

        Raises:
            InputError: memory runs out with a single field.
        """
        found: list[FieldMaps] = []
        while len(found) < len(inputs):
            some = inputs[len(found) : len(found) + self.batch]
            try:
                found += self._together(some)
                continue
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            # Outside the except block, where the error no longer holds on to the tensors.
            if len(some) == 1:
                raise InputError(
                    f"infer: {self.device} has too little memory for one field at "
                    f"{max(some[0])} px; use fewer views or smaller members"
                )
            self.batch = len(some) // 2
            log.warning(f"infer: out of memory on {self.device}; going on with {self.batch} fields per step")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return found

    @torch.inference_mode()
    def _together(self, inputs: Sequence[Inputs]) -> list[FieldMaps]:
        batches = {size: self._batch([field[size] for field in inputs]) for size in inputs[0]}
        seen = [self._look(model, batches[size], size) for model, size in self.members]
        scores = _mean([member.scores for member in seen])
        class_maps = self._combined(self.class_maps, seen, lambda one: scaled_cams(one.scores, one.cams))
        logit_maps = self._combined(self.logit_maps, seen, lambda one: one.maps)
        parts = (part.float().cpu().numpy() for part in (scores, class_maps, logit_maps))
        return [FieldMaps(*field) for field in zip(*parts, strict=True)]

    def _combined(self, wanted: bool, seen: list[_Seen], part: Callable[[_Seen], Tensor]) -> Tensor:
        """The mean over members of one kind of map, or maps without pixels where it is not wanted."""
        if not wanted:
            return torch.zeros(len(seen[0].scores), N_CLASSES, 0, 0)
        return _mean([_resized(part(one), self.map_size, self.map_size) for one in seen])

    def _batch(self, fields: Sequence[NDArray[np.uint8]]) -> Tensor:
        batch = torch.from_numpy(np.stack(fields))
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return batch.float().contiguous(memory_format=torch.channels_last)

    def _look(self, model: CamClassifier, batch: Tensor, size: int) -> _Seen:
        """One member over all views: flips averaged, then resized to the largest scale and averaged."""
        scales = SCALES if self.views == "scales" and size < LARGE_SIDE else SCALES[:1]
        flips = FLIPS[:1] if self.views == "none" else FLIPS
        by_scale = []
        for scale in scales:
            view = _resized(batch, int(size * scale), int(size * scale))
            by_scale.append(_averaged([self._one_view(model, view, flip) for flip in flips]))
        height, width = by_scale[-1].maps.shape[-2:]
        return _averaged(
            [
                _Seen(one.scores, _resized(one.cams, height, width), _resized(one.maps, height, width))
                for one in by_scale
            ]
        )

    def _one_view(self, model: CamClassifier, batch: Tensor, flip: tuple[int, ...]) -> _Seen:
        with torch.autocast(self.device.type, dtype=torch.float16, enabled=self.amp):
            maps = model.forward_maps(batch.flip(flip) if flip else batch)
        maps = maps.float()
        scores = maps.mean((-2, -1)).sigmoid()
        maps = maps.flip(flip) if flip else maps
        return _Seen(scores, maps.relu(), maps)


def scaled_cams(scores: Tensor, cams: Tensor) -> Tensor:
    """CAMs -> class maps in [0, 1]: classes with a score below 0.01 at 0, the others by their own maximum.

    Args:
        scores: (B, 19).
        cams: (B, 19, h, w), not below 0.
    """
    kept = cams * (scores >= FLOOR_SCORE)[:, :, None, None]
    return kept / (kept.amax((-2, -1), keepdim=True) + 1e-5)


def _averaged(seen: list[_Seen]) -> _Seen:
    return _Seen(*(_mean(list(parts)) for parts in zip(*seen, strict=True)))


def _mean(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total / len(tensors)


def _resized(maps: Tensor, height: int, width: int) -> Tensor:
    if maps.shape[-2:] == (height, width):
        return maps
    return functional.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a GPU's has an error of its own, the CPU's allocator only a text."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return any(sign in str(error) for sign in ("DefaultCPUAllocator", "can't allocate memory"))
