"""Fields as networks read them: the first channels, normalised."""

from typing import Literal

import torch
from torch import Tensor, nn

from hpa_kit.errors import InputError

# ImageNet's statistics; yellow takes those of blue, as the 15th-place solution does.
_MEAN = (0.485, 0.456, 0.406, 0.406)
_STD = (0.229, 0.224, 0.225, 0.225)
# Of 255: about the noise of a channel that shows nothing, which must not be blown up to a signal.
_LEAST_SPREAD = 4.0
_NAMES = ("red", "green", "blue", "yellow")

Contrast = Literal["field", "fixed"]


class ContrastNorm(nn.Module):
    """Fields, uint8 or float 0–255 (B, 4 or in_channels, H, W) -> float (B, in_channels, H, W), normalised.

    Args:
        in_channels: 4 for red, green, blue, yellow; 3 leaves yellow out. Inputs may have 4 either way.
        contrast: ``field`` gives each channel of each field its own mean and spread, so that a dim protein
            looks like a bright one (instance normalisation of the input, as the competition's 7th place did);
            ``fixed`` takes ImageNet's statistics for all, as the 15th place did.

    Raises:
        InputError: ``in_channels`` is neither 3 nor 4.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int = 4, contrast: Contrast = "field") -> None:
        super().__init__()
        if in_channels not in (3, 4):
            raise InputError(f"in_channels: {in_channels} is not 3 (red, green, blue) or 4 (and yellow)")
        self.in_channels = in_channels
        self.contrast = contrast
        # Constants, so not part of the saved weights.
        self.register_buffer("mean", _per_channel(_MEAN[:in_channels]), persistent=False)
        self.register_buffer("std", _per_channel(_STD[:in_channels]), persistent=False)

    def forward(self, fields: Tensor) -> Tensor:
        """Normalise a batch of fields.

        Raises:
            InputError: the batch has another number of axes, or too few channels.
        """
        if fields.ndim != 4 or fields.shape[1] < self.in_channels:
            names = ", ".join(_NAMES[: self.in_channels])
            raise InputError(
                f"fields: input {tuple(fields.shape)} is not (B, {self.in_channels}, H, W); "
                f"the network reads {names}"
            )
        x = fields[:, : self.in_channels].to(self.mean.dtype)
        if self.contrast == "field":
            spread, mean = torch.std_mean(x, dim=(-2, -1), keepdim=True, correction=0)
            return (x - mean) / (spread + _LEAST_SPREAD)
        return (x - self.mean) / self.std


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).mul(255).reshape(1, -1, 1, 1)
