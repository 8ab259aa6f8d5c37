"""Image logits from cells: class maps -> one logit per cell and class -> what the image shows.

The head of a CAM classifier is linear, so the mean of a class map in a cell is that cell's logit. A network
that learns image labels through its cells is told that one of them shows the class, not that all do.
"""

import torch
from torch import Tensor
from torch.nn import functional

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.config import CellPooling

_NEVER = -1e4  # the logit of what no cell shows; finite in half precision
_TINY = torch.finfo(torch.float32).tiny
_GREEN = 1  # the protein's channel
_GROUND = 0.05  # part of a field's pixels that are taken to be without protein
_ENOUGH = 0.25  # part of the richest cell's protein with which a cell may be what a label is about


def cell_shares(cells: Tensor, grid: tuple[int, int], n_cells: int | None = None) -> Tensor:
    """How much of each cell lies in each pixel of a map that covers the same field.

    Args:
        cells: label maps, integers (B, H, W), 0 background and 1…n.
        grid: height and width of the map in pixels.
        n_cells: rows to make; by default the largest number in ``cells``.

    Returns:
        float32 (B, n, h × w): of cells with any pixel the sum is 1, of others 0.
    """
    # Of a label map that is coarser than the map every pixel counts as several.
    finer = [-(-side // of) for side, of in zip(grid, cells.shape[1:], strict=True)]
    for axis, times in enumerate(finer, start=1):
        cells = cells.repeat_interleave(times, dim=axis) if times > 1 else cells
    batch, height, width = cells.shape
    if n_cells is None:
        n_cells = int(cells.max()) if cells.numel() else 0
    device = cells.device
    # The map's pixel in which the centre of a label map's pixel lies.
    rows = (torch.arange(height, device=device) * 2 + 1) * grid[0] // (2 * height)
    columns = (torch.arange(width, device=device) * 2 + 1) * grid[1] // (2 * width)
    places = rows[:, None] * grid[1] + columns
    n_places = grid[0] * grid[1]
    fields = torch.arange(batch, device=device)[:, None, None] * (n_cells + 1)
    flat = ((fields + cells.long()) * n_places + places).flatten()
    counts = torch.bincount(flat, minlength=batch * (n_cells + 1) * n_places)
    areas = counts.reshape(batch, n_cells + 1, n_places)[:, 1:].float()
    return areas / areas.sum(dim=2, keepdim=True).clamp_min(1)


def mean_in_cells(maps: Tensor, shares: Tensor) -> Tensor:
    """Class maps (B, C, h, w) and :func:`cell_shares` (B, n, h × w) -> cell logits, float32 (B, n, C)."""
    with torch.autocast(maps.device.type, enabled=False):
        return shares @ maps.float().flatten(2).transpose(1, 2)


def cells_with_protein(fields: Tensor, cells: Tensor) -> Tensor:
    """Tell which cells hold enough of the protein to be what a label of their image is about.

    What a cell holds is the root of the mean square of what the protein's channel has above the field's
    ground, by which a few bright spots are as much as a faint whole; a quarter of what the field's richest
    cell holds is enough.

    Args:
        fields: uint8 (B, 4 or 3, H, W), red, green, blue and yellow.
        cells: label maps, integers (B, H, W), 0 background and 1…n.

    Returns:
        bool (B, n); in a field without any protein all cells hold enough.
    """
    # In whole numbers: their sums are the same in any order.
    green = fields[:, _GREEN].flatten(1).long()
    n_pixels = green.shape[1]
    ground = green.kthvalue(1 + int(_GROUND * (n_pixels - 1)), dim=1, keepdim=True).values
    places = cells.flatten(1).long()
    squares, pixels = green.new_zeros((2, len(green), int(places.max()) + 1))
    squares.scatter_add_(1, places, (green - ground).clamp_min(0) ** 2)
    pixels.scatter_add_(1, places, torch.ones_like(green))
    held = (squares / pixels.clamp_min(1)).sqrt()[:, 1:]
    return held >= _ENOUGH * held.amax(dim=1, keepdim=True) if held.shape[1] else held.bool()


def pool_cells(logits: Tensor, there: Tensor, pooling: CellPooling = "linear") -> Tensor:
    """Cell logits -> image logits, as one of the usual poolings of multiple-instance learning.

    With p the cells' probabilities: ``linear`` softmax Σp² / Σp; ``noisy-or`` 1 − Π(1 − p); ``max`` the
    largest; ``attention`` Σ softmax(logits) p; ``lse`` the logarithm of the mean of the logits' exponentials.
    All are worked out in logarithms, so that probabilities near 0 and 1 keep their digits and gradients.

    Args:
        logits: float (B, n, C) of cells.
        there: bool (B, n), which cells there are; a field without any gets a logit that says no.
        pooling: which one.

    Returns:
        float32 (B, C).

    Source: Wang, Li and Metze, A Comparison of Five MIL Pooling Functions (2019, arXiv 1810.09050).
    """
    shown = there.any(dim=1)[:, None]
    if not logits.shape[1]:
        return logits.float().sum(dim=1) + _NEVER  # a sum of nothing, which has a gradient: of 0
    # Where there is no cell at all any numbers do, as long as they have a finite gradient.
    counted = (there | ~shown)[:, :, None]
    z = logits.float()

    def sum_over(values: Tensor) -> Tensor:
        return values.masked_fill(~counted, float("-inf")).logsumexp(dim=1)

    yes, no = functional.logsigmoid(z), functional.logsigmoid(-z)
    if pooling == "linear":
        found = sum_over(2 * yes) - sum_over(yes + no)
    elif pooling == "noisy-or":
        none = no.masked_fill(~counted, 0).sum(dim=1).clamp_max(-_TINY)
        found = torch.log(-torch.expm1(none)).clamp_min(_NEVER) - none
    elif pooling == "max":
        found = z.masked_fill(~counted, float("-inf")).amax(dim=1)
    elif pooling == "attention":
        found = sum_over(z + yes) - sum_over(z + no)
    else:
        found = sum_over(z) - counted.sum(dim=1).log()
    return torch.where(shown, found, _NEVER)


def with_negative(logits: Tensor) -> Tensor:
    """Logits (..., 19) with that of Negative such that its probability is 1 − the largest of the others'."""
    others = torch.cat([logits[..., :NEGATIVE], logits[..., NEGATIVE + 1 :]], dim=-1)
    logits = logits.clone()
    logits[..., NEGATIVE] = -others.amax(dim=-1)
    return logits


def pooled_logits(
    maps: Tensor,
    cells: Tensor,
    pooling: CellPooling = "linear",
    protein: Tensor | None = None,
    shown: Tensor | None = None,
) -> Tensor:
    """Class maps (B, C, h, w) and label maps (B, H, W) -> image logits, float32 (B, C), pooled over cells.

    Of the 19 location classes Negative's comes from the others'.

    Args:
        maps, cells, pooling: see :func:`pool_cells`.
        protein: which cells count for classes that their image shows, bool (B, n): what hardly holds any of
            the protein is not what a label is about. By default all count, as they do for other classes.
        shown: labels (B, C), where ``protein`` is given.
    """
    shares = cell_shares(cells, (maps.shape[-2], maps.shape[-1]))
    of_cells, there = mean_in_cells(maps, shares), shares.any(dim=2)
    logits = pool_cells(of_cells, there, pooling)
    if protein is not None and shown is not None:
        rich = there & protein[:, : shares.shape[1]]
        # Where those that hold enough have no pixel of the map, the others count.
        rich = torch.where(rich.any(dim=1, keepdim=True), rich, there)
        logits = torch.where(shown > 0, pool_cells(of_cells, rich, pooling), logits)
    return with_negative(logits) if maps.shape[1] == N_CLASSES else logits
