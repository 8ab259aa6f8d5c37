"""Where the pixels of a network's maps lie, seen by their gradients."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

LOOKS = 2


def wake(network: nn.Module) -> None:
    """Let every branch of a network count: some are multiplied by nearly nothing before they have learnt."""
    for name, weight in network.named_parameters():
        if (weight.ndim == 1 and "weight" in name) or "gamma" in name or "scale" in name:
            nn.init.ones_(weight)


def beside(maps: Callable[[Tensor], Tensor], side: int) -> float:
    """How far map pixels lie beside their places at most, in map pixels, by what of a field they see.

    A map pixel is taken to lie in the middle of the energy of its gradient, as far as that reaches to both
    sides alike. Places change evenly along a side, so those of the outermost pixels follow from the others'.
    """
    torch.manual_seed(0)
    seen: dict[int, Tensor] = {}
    for _ in range(LOOKS):
        field = torch.randn(1, 4, side, side, requires_grad=True)
        found = maps(field)
        n = found.shape[-1]
        weights = torch.randn(found.shape[1])
        for place in {1, n // 2, n - 2}:
            (gradient,) = torch.autograd.grad(
                (found[0, :, place, place] * weights).sum(), field, retain_graph=True
            )
            energy = (gradient[0].double() / gradient.abs().max()).square().sum(0)
            seen[place] = seen.get(place, torch.zeros(())) + energy
    wide, pixels = side / n, torch.arange(side) + 0.5
    offsets = []
    for place, energy in seen.items():
        expected = (place + 0.5) * wide
        along = (energy.sum(0) + energy.sum(1)) * ((pixels - expected).abs() < min(expected, side - expected))
        offsets.append(float((along * pixels).sum() / along.sum() - expected) / wide)
    line = np.polyfit(list(seen), offsets, min(1, len(seen) - 1))
    return float(np.abs([*np.polyval(line, [0, n - 1]), *offsets]).max())
