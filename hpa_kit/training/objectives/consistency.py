"""Consistency: cells say the same of themselves when part of their field is another's."""

import torch
from torch import Tensor

from hpa_kit.classes import NEGATIVE
from hpa_kit.models import focal_loss
from hpa_kit.models.cell_pooling import cell_shares, mean_in_cells
from hpa_kit.training.objectives.base import Losses
from hpa_kit.training.objectives.cam import ForwardOutputs

_SMALLEST, _LARGEST = 0.3, 0.7  # sides of the box that is cut out, in parts of the field's


class Consistency:
    """The cross-entropy of what is seen of a mixed field against what was said of the same parts unmixed.

    A box of each field is replaced by the same box of another of the batch (CutMix, Yun et al. 2019, arXiv
    1905.04899). Cells that the box's border does not cut, of either field, are to keep the probabilities that
    they had in their own field, through which no gradient flows. Without label maps pixels of the class maps
    take the cells' place.

    Args:
        weight: of the loss; the competition's 7th place took 1.
    """

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, outputs: ForwardOutputs) -> Losses:
        plain, cells, model = outputs.heads.maps, outputs.batch.cells, outputs.model
        height, width = outputs.normalised.shape[-2:]
        inside = _box(height, width, outputs.normalised.device)
        mixed = torch.where(inside, outputs.normalised.roll(1, 0), outputs.normalised)
        seen = model.forward_heads(mixed.contiguous(memory_format=torch.channels_last)).maps
        grid = (seen.shape[-2], seen.shape[-1])
        if cells is None:
            covered = cell_shares(inside[None].long(), grid, 1)[0, 0].reshape(grid) > 0
            outside = cell_shares(~inside[None], grid, 1)[0, 0].reshape(grid) > 0
            before = torch.where(covered, plain.roll(1, 0), plain)
            whole = (covered ^ outside).expand(len(plain), *grid).flatten()
            return self._loss(_as_rows(seen)[whole], _as_rows(before)[whole])
        moved = cells.roll(1, 0)
        stays, comes = _untouched(cells, ~inside), _untouched(moved, inside)
        said, known = [], []
        for kept, of in ((stays, plain), (comes, plain.roll(1, 0))):
            shares = cell_shares(kept, grid)
            there = shares.any(dim=2)
            said.append(mean_in_cells(seen, shares)[there])
            known.append(mean_in_cells(of, shares)[there])
        return self._loss(torch.cat(said), torch.cat(known))

    def _loss(self, logits: Tensor, known: Tensor) -> Losses:
        """The loss of logits (n, 19) against those that are to be kept."""
        if not len(logits):
            return {"consistency": logits.sum()}
        targets = known[:, :NEGATIVE].detach().float().sigmoid()
        return {"consistency": self.weight * focal_loss(logits[:, :NEGATIVE], targets, gamma=0)}


def _box(height: int, width: int, device: torch.device) -> Tensor:
    """A box at a random place, bool (H, W); drawn by torch's generator, which a resumed run continues."""
    sides = _SMALLEST + (_LARGEST - _SMALLEST) * torch.rand(2)
    box_height, box_width = int(sides[0] * height), int(sides[1] * width)
    top = int(torch.randint(height - box_height + 1, ()))
    left = int(torch.randint(width - box_width + 1, ()))
    inside = torch.zeros((height, width), dtype=torch.bool, device=device)
    inside[top : top + box_height, left : left + box_width] = True
    return inside


def _untouched(cells: Tensor, kept: Tensor) -> Tensor:
    """Label maps (B, H, W) in which only cells are left that lie wholly in what is kept, bool (H, W)."""
    n_cells = int(cells.max()) + 1
    fields = torch.arange(len(cells), device=cells.device)[:, None, None] * n_cells
    numbers = cells.long() + fields
    cut = torch.zeros(len(cells) * n_cells, dtype=torch.bool, device=cells.device)
    cut[numbers[~kept.expand_as(numbers)]] = True
    return torch.where(cut[numbers], 0, cells.long())


def _as_rows(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) -> (B × h × w, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)
