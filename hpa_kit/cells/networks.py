"""The networks that find cells, in the published form: one for nuclei and one for cells, on any encoder."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hpa_kit.cells.dpn_unet import STRIDE, DPNUnet
from hpa_kit.cells.weights import PUBLISHED_NAMES, find_weights, load_published_network, read_weights
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_tensors
from hpa_kit.resume import BEST

PUBLISHED_BACKBONE = "dpn92"
# Side of a 2048 px field at the published networks' scale.
NETWORK_SIDE = 512
# Of the inputs' three channels: of microtubules, ER and nuclei, or three times the nuclei.
MEAN = (124 / 255, 117 / 255, 104 / 255)
STD = 1 / (0.0167 * 255)
# The channels of a field that are microtubules, ER and nuclei.
INPUTS = (0, 3, 2)
N_CHANNELS = 3  # that come out: unused, which is the background, border, foreground
_WIDTHS = {16: 256, 8: 128, 4: 64, 2: 32, 1: 16}  # channels of a decoder at each stride
_FORMAT = "hpa_kit cell network"


class CellUnet(nn.Module):
    """A U-Net of the published form on any encoder of timm that has maps at strides up to 32.

    It steps up as the published one does, nearest and with a convolution before and after each of the
    encoder's maps is joined, but with batch norm, which lets it learn from random weights in minutes, and
    with few channels where there are many pixels. Input and output are those of
    :class:`~hpa_kit.cells.dpn_unet.DPNUnet`.

    Args:
        backbone: a timm model name.

    Raises:
        InputError: timm has no such network, or it has no maps for a U-Net.
    """

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.encoder = _encoder(backbone)
        info = self.encoder.feature_info
        *skips, width = info.channels()
        stride = info.reduction()[-1]
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        while stride > 1:
            stride //= 2
            before, width = width, _WIDTHS[stride]
            self.up.append(_convolved(before, width))
            if skips:
                self.join.append(_convolved(width + skips.pop(), width))
        self.final = nn.Conv2d(width, N_CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, 3, H, W), sides multiples of 32 -> logits (B, 3, H, W)."""
        *skips, x = self.encoder(x)
        for level, up in enumerate(self.up):
            x = up(_twice(x))
            if skips:
                x = self.join[level](torch.cat([x, skips.pop()], dim=1))
        logits: Tensor = self.final(x)
        return logits


def _encoder(name: str) -> Any:
    """A timm network that gives the maps of its stages, each of twice the stride of the one before.

    Raises:
        InputError: there is none of that name, or it has no such maps.
    """
    try:
        encoder = timm.create_model(name, pretrained=False, features_only=True, in_chans=3)
        strides = encoder.feature_info.reduction()
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:  # timm's own
        raise InputError(
            f"backbone: {name} cannot be the encoder of a U-Net: {' '.join(str(error).split())}"
        ) from None
    doubled = all(after == 2 * before for before, after in pairwise(strides))
    if not doubled or len(strides) < 3 or strides[0] > 4 or strides[-1] > STRIDE:
        raise InputError(
            f"backbone: {name} has maps at strides {strides}; a U-Net for cells needs each twice the one "
            "before, the first 2 or 4, the last 32 at most, as resnet18 has them"
        )
    return encoder


def _convolved(in_channels: int, out_channels: int) -> nn.Module:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _twice(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="nearest")


def cell_network(backbone: str) -> "DPNUnet | CellUnet":
    """Build one network with random weights: for ``dpn92`` exactly the published one.

    Raises:
        InputError: timm has no such network, or it has no maps for a U-Net.
    """
    return DPNUnet() if backbone == PUBLISHED_BACKBONE else CellUnet(backbone)


class CellNetworks(nn.Module):
    """Both networks: fields -> logits of nuclei and of cells.

    Args:
        nuclei, cells: of the published form, as :func:`cell_network` builds them.
        side: of a field of 2048 px at their scale, in pixels.
        own: whether this kit has trained them.
    """

    def __init__(
        self, nuclei: nn.Module, cells: nn.Module, side: int = NETWORK_SIDE, own: bool = False
    ) -> None:
        super().__init__()
        self.nuclei, self.cells, self.side, self.own = nuclei, cells, side, own

    def forward(self, fields: Tensor) -> Tensor:
        """Fields, uint8 or float 0-255 (B, 4 or 3, H, W), at the networks' scale -> (B, 2, 3, H, W).

        Args:
            fields: red, green, blue and, else 0, yellow; sides multiples of 32.

        Returns:
            logits of nuclei, then of cells: unused, border, foreground.
        """
        x = fields.to(self._precision()) / 255
        if x.shape[1] == 3:
            x = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
        x = x[:, list(INPUTS)]
        return torch.stack([self.nuclei(normalised(x[:, [2, 2, 2]])), self.cells(normalised(x))], dim=1)

    def _precision(self) -> torch.dtype:
        return next(self.parameters()).dtype


def normalised(images: Tensor) -> Tensor:
    """Images in [0, 1] (B, 3, H, W) as the published networks expect them."""
    return (images - images.new_tensor(MEAN)[:, None, None]) / STD


def load_networks(weights: str | Path) -> CellNetworks:
    """Read both networks, ready to infer, float32, on the CPU; nothing of a file is run or downloaded.

    Args:
        weights: folder of HPA-Cell-Segmentation's weights, or of those that :func:`write_networks` wrote; or
            a run of ``hpa-kit train --network cells``, or its checkpoint.

    Raises:
        InputError: a file is missing or damaged, or of another network.
    """
    weights = Path(weights)
    run = weights / BEST if weights.is_dir() else weights
    if run.is_file():
        return _of_run(run)
    found = find_weights(weights)
    (nuclei, side, own), (cells, other, _) = (_of_file(found[name]) for name in ("nuclei", "cells"))
    if side != other:
        raise InputError(
            f"weights: the nuclei network in {weights} is for fields of {side} px, the cell network of "
            f"{other}; take both from one run"
        )
    return CellNetworks(nuclei, cells, side, own).eval()


def write_networks(networks: CellNetworks, backbone: str, folder: Path) -> list[Path]:
    """Write each network as a safetensors file that :func:`load_networks` finds in the folder.

    Those on DPN-92 at the published scale have the published files' names and fit wherever these do.
    """
    published = backbone == PUBLISHED_BACKBONE and networks.side == NETWORK_SIDE
    paths = []
    for name, network in (("nuclei", networks.nuclei), ("cells", networks.cells)):
        path = folder / f"{PUBLISHED_NAMES[name][0 if published else -1]}.safetensors"
        about = {"network": _FORMAT, "backbone": backbone, "side": str(networks.side)}
        atomic_tensors(path, network.state_dict(), about)
        paths.append(path)
    return paths


def trained_here(path: Path) -> bool:
    """Whether a file of one network is of :func:`write_networks`.

    Raises:
        InputError: it is named as safetensors, and is no whole file of such.
    """
    return path.suffix == ".safetensors" and _metadata(path).get("network") == _FORMAT


def _of_file(path: Path) -> tuple[nn.Module, int, bool]:
    """One network, its side, and whether this kit has trained it."""
    if not trained_here(path):
        return load_published_network(path), NETWORK_SIDE, False
    about = _metadata(path)
    network = cell_network(about["backbone"])
    _fill(network, read_weights(path), path)
    return network, int(about["side"]), True


def _of_run(path: Path) -> CellNetworks:
    """Both networks of a checkpoint, whose form :mod:`hpa_kit.training.checkpoint` decides."""
    about = _metadata(path)
    try:
        settings = json.loads(about["settings"])
        kind, backbone, side = settings["network"], settings["backbone"], int(settings["size"])
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"weights: {path} is no checkpoint of hpa-kit train; expected a run of --network cells, or the "
            "folder of both published networks"
        ) from None
    if kind != "cells":
        raise InputError(
            f"weights: {path} is a network {kind}, which finds no cells; expected a run of --network cells"
        )
    networks = CellNetworks(cell_network(backbone), cell_network(backbone), side, own=True)
    tensors = read_weights(path)
    kept = next(
        (name for name in ("swa.", "ema.", "model.") if any(key.startswith(name) for key in tensors)), ""
    )
    own = {key.removeprefix(kept): value for key, value in tensors.items() if key.startswith(kept)}
    _fill(networks, own, path)
    return networks.eval()


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(str(path), framework="np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"weights: {path} is no whole safetensors file ({error})") from None


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"weights: {path} does not fit its network: {reason}") from None
