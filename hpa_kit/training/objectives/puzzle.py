"""Puzzle-CAM: the tiles of a field, looked at one by one, are to show what the whole field shows."""

import torch
from torch import Tensor
from torch.nn import functional

from hpa_kit.config import PuzzleCamSettings
from hpa_kit.errors import InputError
from hpa_kit.models import CamHeads
from hpa_kit.training.objectives.base import Losses
from hpa_kit.training.objectives.cam import ForwardOutputs, ImageLoss, Subcategories

_RISING = 0.5  # the part of training over which the difference gets its full weight
_MIN_MAXIMUM = 1e-5


class Puzzle:
    """The losses of tiles: their own classification, and how far their maps differ from the whole field's.

    Tiles are run at their own size, or the nearest that the network takes, as the whole field was normalised,
    and their maps put together. Both maps are cut at 0 and divided by their own maximum; the difference is
    the mean of its absolute values, and its weight rises linearly from 0 over the first half of training.
    Gradients flow through both.

    Args:
        settings: ``tiles``; the ``source`` of what is compared, class maps or the feature maps under them;
            weights. ``masked`` leaves out maps of classes that the field lacks; the mean still goes over all.
        subcategories: do all of this for their maps too, against these targets.
        image_loss: of a tile's own classification; pooled over cells it is by the parts of cells in the tile.

    Source: Jo and Yu, Puzzle-CAM (2021, arXiv 2101.11253), in the form of the 15th-place solution: the paper
    takes the mean logits of the merged map instead of each tile's.
    """

    def __init__(
        self,
        settings: PuzzleCamSettings,
        subcategories: Subcategories | None = None,
        image_loss: ImageLoss | None = None,
    ) -> None:
        self.settings, self.subcategories = settings, subcategories
        self.image_loss = ImageLoss() if image_loss is None else image_loss
        self.per_side = settings.per_side

    def ramp(self, progress: float) -> float:
        """The weight of the difference when that part of all steps is done."""
        return self.settings.weight * min(1.0, progress / _RISING)

    def __call__(self, outputs: ForwardOutputs) -> Losses:
        settings, whole, targets = self.settings, outputs.heads, outputs.batch.targets
        parts, cells, protein = self._forward_tiles(outputs), outputs.batch.cells, outputs.protein
        if cells is not None:
            cells = cut_tiles(cells[:, None], self.per_side)[:, 0]
        if protein is not None:
            protein = protein.repeat_interleave(self.per_side**2, dim=0)
        alpha = self.ramp(outputs.progress)
        losses = {"tiles": settings.tile_weight * self._classified(parts.maps, targets, cells, protein)}
        if settings.source == "features":
            losses["puzzle"] = alpha * self._difference(parts.features, whole.features, None)
        else:
            losses["puzzle"] = alpha * self._difference(parts.maps, whole.maps, targets)
        if self.subcategories is None:
            return losses
        assert parts.subcategory_maps is not None and whole.subcategory_maps is not None
        sub_targets = self.subcategories.targets(outputs.batch.numbers)
        loss = self._classified(parts.subcategory_maps, sub_targets, cells, protein)
        losses["subcategory_tiles"] = self.subcategories.weight * settings.tile_weight * loss
        if settings.source == "cam":
            difference = self._difference(parts.subcategory_maps, whole.subcategory_maps, sub_targets)
            losses["subcategory_puzzle"] = alpha * difference
        return losses

    def _forward_tiles(self, outputs: ForwardOutputs) -> CamHeads:
        """What comes out of the tiles, at the scale of what came out of the whole fields."""
        model, tiles = outputs.model, cut_tiles(outputs.normalised, self.per_side)
        side = model.sides.nearest(tiles.shape[-1])
        if side == tiles.shape[-1]:
            return model.forward_heads(tiles)
        heads = model.forward_heads(_resized(tiles, side))
        map_side = outputs.heads.maps.shape[-1] // self.per_side
        of_subcategories = heads.subcategory_maps
        return CamHeads(
            _resized(heads.features, map_side),
            _resized(heads.maps, map_side),
            None if of_subcategories is None else _resized(of_subcategories, map_side),
        )

    def _classified(
        self, maps: Tensor, targets: Tensor, cells: Tensor | None, protein: Tensor | None
    ) -> Tensor:
        return self.image_loss(maps, targets.repeat_interleave(self.per_side**2, dim=0), cells, protein)

    def _difference(self, parts: Tensor, whole: Tensor, targets: Tensor | None) -> Tensor:
        merged = merge_tiles(parts, self.per_side)
        if merged.shape != whole.shape:
            raise InputError(
                f"puzzle: tiles give maps {tuple(merged.shape[2:])} together, the whole field gives "
                f"{tuple(whole.shape[2:])}; take a size that is a multiple of {self.per_side} times the "
                "stride"
            )
        difference = (scaled_cam(merged) - scaled_cam(whole)).abs()
        if self.settings.masked and targets is not None:
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
    return cam / (cam.amax(dim=(-2, -1), keepdim=True) + _MIN_MAXIMUM)
