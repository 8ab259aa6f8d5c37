"""The network of HPA-Cell-Segmentation: a U-Net on DPN-92."""

from collections.abc import Mapping
from typing import Self

import timm
import torch
from torch import Tensor, nn

from hpa_kit.errors import InputError

ENCODER_CHANNELS = (64, 336, 704, 1552, 2688)
ENCODER_BLOCKS = {2: 3, 3: 4, 4: 20, 5: 3}
STRIDE = 32


class _Upsample(nn.Module):
    """Nearest x2, 3x3 convolution, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class _Bottleneck(nn.Module):
    """Concatenation with the encoder's skip, 3x3 convolution, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, padding=1), nn.ReLU(inplace=True))

    def forward(self, decoded: Tensor, skip: Tensor) -> Tensor:
        return self.seq(torch.cat([decoded, skip], dim=1))


class DPNUnet(nn.Module):
    """U-Net on DPN-92 as HPA-Cell-Segmentation published it, for its nuclei and its cell weights alike.

    Modules are named as in the published files, so their weights fit without renaming. The encoder is timm's
    ``dpn92``, which is the same network. Input: float (B, 3, H, W), H and W multiples of 32, normalised as
    the published networks expect. Output: logits (B, 3, H, W): unused, border, foreground; softmax comes
    after.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks = timm.create_model("dpn92", pretrained=False, num_classes=0).features
        first = blocks.conv1_1
        self.encoder_stages = nn.ModuleList([nn.Sequential(first.conv, first.bn)])
        for stage, count in ENCODER_BLOCKS.items():
            layers = [getattr(blocks, f"conv{stage}_{number}") for number in range(1, count + 1)]
            if stage == 2:
                layers.insert(0, nn.MaxPool2d(3, stride=2, padding=1))
            if stage == 5:
                layers.append(blocks.conv5_bn_ac)
            self.encoder_stages.append(nn.Sequential(*layers))
        c = ENCODER_CHANNELS
        self.decoder_stages = nn.ModuleList([_Upsample(c[level + 1], c[level]) for level in range(4)])
        self.bottlenecks = nn.ModuleList([_Bottleneck(channels) for channels in reversed(c[:-1])])
        self.last_upsample = _Upsample(c[0], c[0])
        self.final = nn.Sequential(nn.Conv2d(c[0], 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, 3, H, W) -> logits (B, 3, H, W)."""
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % STRIDE or x.shape[3] % STRIDE:
            found = tuple(x.shape)
            raise InputError(f"DPNUnet: input {found}; expected (B, 3, H, W), sides multiples of {STRIDE}")
        skips = []
        for stage in self.encoder_stages:
            x = stage(x)
            # A stage ends with its residual and its dense path; skips and the next stage take both as one.
            x = torch.cat(x, dim=1) if isinstance(x, tuple) else x
            skips.append(x)
        x = skips.pop()
        for decode, join in zip(reversed(self.decoder_stages), self.bottlenecks, strict=True):
            x = join(decode(x), skips.pop())
        return self.final(self.last_upsample(x))

    @classmethod
    def from_published_state(cls, state_dict: Mapping[str, Tensor], source: str = "weights") -> Self:
        """Build the network, in evaluation mode, around published weights.

        Args:
            state_dict: the published names and tensors, ``module.`` before each name or not; float tensors of
                any precision, kept as float32.
            source: what to call the weights in an error.

        Raises:
            InputError: names or shapes are not this network's; the first few that differ are listed.
        """
        with torch.device("meta"):
            network = cls()
        given = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
        wanted = network.state_dict()
        faults = [f"{name} is missing" for name in wanted if name not in given]
        faults += [f"{name} is not of this network" for name in given if name not in wanted]
        faults += [
            f"{name} has shape {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in given and given[name].shape != tensor.shape
        ]
        if faults:
            more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
            listed = f"{'; '.join(faults[:3])}{more}"
            raise InputError(f"{source}: not the weights of HPA-Cell-Segmentation's network: {listed}")
        network.load_state_dict(
            {name: given[name].to(tensor.dtype).contiguous() for name, tensor in wanted.items()}, assign=True
        )
        return network.eval()
