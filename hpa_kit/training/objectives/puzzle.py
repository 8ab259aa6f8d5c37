"""Puzzle-CAM: the tiles of a field, looked at one by one, are to show what the whole field shows."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from hpa_kit.errors import InputError
from hpa_kit.models import CamHeads, focal_loss, mean_logits
from hpa_kit.training.objectives.base import Losses
from hpa_kit.training.objectives.cam import Pass, Subcategories

_RISING = 0.5  # the part of training over which the difference gets its full weight
_LEAST_MAXIMUM = 1e-5


class Puzzle:
    """The losses of tiles: their own classification, and how far their maps differ from the whole field's.

    Tiles are run at their own size, or the nearest that the network takes, as the whole field was normalised,
    and their maps put together. Both maps are cut at 0 and divided by their own maximum; the difference is
    the mean of its absolute values, and its weight rises linearly from 0 over the first half of training.
    Gradients flow through both.

    Args:
        tiles: 4, 9 or 16.
        source: ``cam`` compares class maps, ``features`` the feature maps under them.
        weight: largest weight of the difference.
        tile_weight: weight of the focal loss of each tile's own logits against the image label.
        masked: only maps of classes that the field shows count; the mean still goes over all.
        subcategories: do all of this for their maps too, against these targets.

    Source: Jo and Yu, Puzzle-CAM (2021, arXiv 2101.11253), in the form of the 15th-place solution: the paper
    takes the mean logits of the merged map instead of each tile's.
    """

    def __init__(
        self,
        tiles: int = 4,
        source: Literal["cam", "features"] = "cam",
        weight: float = 4.0,
        tile_weight: float = 1.0,
        masked: bool = False,
        subcategories: Subcategories | None = None,
    ) -> None:
        self.per_side = math.isqrt(tiles)
        if self.per_side**2 != tiles or tiles < 4:
            raise InputError(f"puzzle: {tiles} tiles make no square of 2 or more a side; expected 4, 9 or 16")
        self.source, self.weight, self.tile_weight = source, weight, tile_weight
        self.masked, self.subcategories = masked, subcategories

    def ramp(self, progress: float) -> float:
        """The weight of the difference when that part of all steps is done."""
        return self.weight * min(1.0, progress / _RISING)

    def __call__(self, seen: Pass) -> Losses:
        whole, targets = seen.heads, seen.batch.targets
        parts = self._look_at_tiles(seen)
        alpha = self.ramp(seen.progress)
        losses = {"tiles": self.tile_weight * self._classified(parts.maps, targets)}
        if self.source == "features":
            losses["puzzle"] = alpha * self._difference(parts.features, whole.features, None)
        else:
            losses["puzzle"] = alpha * self._difference(parts.maps, whole.maps, targets)
        if self.subcategories is None:
            return losses
        assert parts.subcategory_maps is not None and whole.subcategory_maps is not None
        sub_targets = self.subcategories.targets(seen.batch.numbers)
        loss = self._classified(parts.subcategory_maps, sub_targets)
        losses["subcategory_tiles"] = self.subcategories.weight * self.tile_weight * loss
        if self.source == "cam":
            difference = self._difference(parts.subcategory_maps, whole.subcategory_maps, sub_targets)
            losses["subcategory_puzzle"] = alpha * difference
        return losses

    def _look_at_tiles(self, seen: Pass) -> CamHeads:
        tiles = cut_tiles(seen.normalised, self.per_side)
        side = seen.model.sides.nearest(tiles.shape[-1])
        if side == tiles.shape[-1]:
            return seen.model.forward_heads(tiles)
        heads = seen.model.forward_heads(_resized(tiles, side))
        map_side = seen.heads.maps.shape[-1] // self.per_side
        of_subcategories = heads.subcategory_maps
        return CamHeads(
            _resized(heads.features, map_side),
            _resized(heads.maps, map_side),
            None if of_subcategories is None else _resized(of_subcategories, map_side),
        )

    def _classified(self, maps: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(mean_logits(maps), targets.repeat_interleave(self.per_side**2, dim=0))

    def _difference(self, parts: Tensor, whole: Tensor, targets: Tensor | None) -> Tensor:
        merged = merge_tiles(parts, self.per_side)
        if merged.shape != whole.shape:
            raise InputError(
                f"puzzle: tiles give maps {tuple(merged.shape[2:])} together, the whole field gives "
                f"{tuple(whole.shape[2:])}; take a size that is a multiple of {self.per_side} times the "
                "stride"
            )
        difference = (scaled_cam(merged) - scaled_cam(whole)).abs()
        if self.masked and targets is not None:
            difference = difference * targets[:, :, None, None]
        return difference.mean()


def _resized(maps: Tensor, side: int) -> Tensor:
    return functional.interpolate(maps, size=(side, side), mode="bilinear")


def cut_tiles(fields: Tensor, per_side: int) -> Tensor:
    """Fields (B, C, H, W) -> tiles (B × per_side², C, H / per_side, W / per_side).

    A field's tiles stand together, row by row.

    Raises:
        InputError: the tiles would not be equal.
    """
    height, width = fields.shape[-2:]
    if height % per_side or width % per_side:
        raise InputError(
            f"puzzle: fields of {width} x {height} cannot be cut into {per_side} x {per_side} equal tiles; "
            f"take a size that is a multiple of {per_side} times the stride"
        )
    tiles = fields.unflatten(3, (per_side, width // per_side)).unflatten(2, (per_side, height // per_side))
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    if fields.is_contiguous(memory_format=torch.channels_last):
        return tiles.contiguous(memory_format=torch.channels_last)
    return tiles.contiguous()


def merge_tiles(maps: Tensor, per_side: int) -> Tensor:
    """Maps of tiles (B × n², C, h, w), in :func:`cut_tiles`' order with n a side, -> (B, C, h × n, w × n)."""
    maps = maps.unflatten(0, (-1, per_side, per_side))
    return maps.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def scaled_cam(maps: Tensor) -> Tensor:
    """Raw maps (B, C, h, w) -> CAM, float32: cut at 0, each map divided by its own maximum (+1e-5)."""
    cam = functional.relu(maps.float())
    return cam / (cam.amax(dim=(-2, -1), keepdim=True) + _LEAST_MAXIMUM)
