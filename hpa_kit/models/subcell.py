"""SubCell as it was published: a vision transformer and classifiers that have learnt from the atlas's cells.

Facts about the network are those of its authors' code, github.com/CellProfiling/SubCellPortable.
"""

import json
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from timm.models import checkpoint_seq
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.config.kinds import SUBCELL, SUBCELL_VARIANTS
from hpa_kit.errors import InputError, one_line
from hpa_kit.models.cell_pooling import with_negative
from hpa_kit.models.crop_net import two_layers
from hpa_kit.resume import BEST

SUBCELL_CLASSES = (
    "Actin filaments", "Aggresome", "Cell Junctions", "Centriolar satellite", "Centrosome",
    "Cytokinetic bridge", "Cytoplasmic bodies", "Cytosol", "Endoplasmic reticulum", "Endosomes",
    "Focal adhesion sites", "Golgi apparatus", "Intermediate filaments", "Lipid droplets", "Lysosomes",
    "Microtubules", "Midbody", "Mitochondria", "Mitotic chromosome", "Mitotic spindle", "Nuclear bodies",
    "Nuclear membrane", "Nuclear speckles", "Nucleoli", "Nucleoli fibrillar center", "Nucleoli rim",
    "Nucleoplasm", "Peroxisomes", "Plasma membrane", "Vesicles", "Negative",
)  # fmt: skip
SIDE = 448  # of the crops that it has learnt from
PUBLISHED_DEPTH = 12
_HEAD_WIDTH, _EPS, _CHECKPOINT = 64, 1e-12, "hpa_kit checkpoint 1"


class SubCellOutput(NamedTuple):
    """What SubCell says of crops: features float32 (B, 1536) and probabilities float32 (B, 31).

    Classes are in the order of :data:`SUBCELL_CLASSES`.
    """

    features: Tensor
    probabilities: Tensor


class GatedPooling(nn.Module):
    """Tokens float (B, T, W), the class token among them -> float (B, heads x W), weighed by gated attention.

    Args:
        width: W.
        inner: width of the attention.
        heads: how many weighted means are joined.
    """

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(width, inner), nn.Linear(width, inner)
        self.weight = nn.Linear(inner, heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool the tokens of each crop."""
        gated = self.value(tokens).tanh() * functional.gelu(self.gate(tokens))
        weights = self.weight(gated).transpose(1, 2).softmax(dim=-1)
        return (weights @ tokens).flatten(1)


class SubCell(nn.Module):
    """Crops of single cells -> features and probabilities, as the authors' code gives them.

    Attributes:
        channels: the variant, one of :data:`SUBCELL_VARIANTS`: its channels in order.
        encoder: timm's vision transformer, whose own ``forward`` interpolates positions in another way than
            SubCell; see :meth:`tokens`.
        n_features: width of the features, 1536 as published.
        head: what reads the competition's classes off the features, where one has learnt that; else None.

    Args:
        channels: the variant.
        width: of the tokens; 768 as published, and 64 for each head of attention.
        depth: blocks, 12 as published.
        hidden: width within the blocks, 3072 as published.
        side: of the crops that it has learnt from; ``patch`` pixels per token.
        pooling: width and heads of the pooling, 512 and 2 as published.
        classifiers: widths of the layers of each classifier behind the features, (512, 256, 31) as published.
    """

    def __init__(
        self,
        channels: str = SUBCELL_VARIANTS[0],
        width: int = 768,
        depth: int = 12,
        hidden: int = 3072,
        side: int = SIDE,
        patch: int = 16,
        pooling: tuple[int, int] = (512, 2),
        classifiers: tuple[tuple[int, ...], ...] = ((512, 256, len(SUBCELL_CLASSES)),),
    ) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.encoder = VisionTransformer(
            img_size=side,
            patch_size=patch,
            in_chans=len(channels),
            num_classes=0,
            global_pool="token",
            embed_dim=width,
            depth=depth,
            num_heads=width // _HEAD_WIDTH,
            mlp_ratio=hidden / width,
            dynamic_img_size=True,
            norm_layer=partial(nn.LayerNorm, eps=_EPS),
        )
        self.pool = GatedPooling(width, *pooling)
        self.n_features = width * pooling[1]
        self.classifiers = nn.ModuleList(_classifier((self.n_features, *widths)) for widths in classifiers)
        self.head: nn.Sequential | None = None

    @classmethod
    def like(cls, channels: str, weights: Mapping[str, Tensor]) -> Self:
        """Build the network that weights of :meth:`state_dict` are of, with numbers of no meaning.

        Raises:
            InputError: they are of no such network.
        """
        try:
            width, n_channels, patch, _ = weights["encoder.patch_embed.proj.weight"].shape
            numbers = {int(name.split(".")[1]) for name in weights if name.startswith("classifiers.")}
            blocks = {int(name.split(".")[2]) for name in weights if name.startswith("encoder.blocks.")}
            options: dict[str, Any] = {
                "width": width,
                "depth": len(blocks),
                "hidden": len(weights["encoder.blocks.0.mlp.fc1.bias"]),
                "side": patch * round((weights["encoder.pos_embed"].shape[1] - 1) ** 0.5),
                "patch": patch,
                "pooling": (len(weights["pool.value.bias"]), len(weights["pool.weight.bias"])),
                "classifiers": tuple(
                    tuple(len(weights[f"classifiers.{number}.{layer}.bias"]) for layer in (0, 2, 4))
                    for number in sorted(numbers)
                ),
            }
        except (LookupError, ValueError, TypeError) as error:
            raise InputError(f"its weights are not those of SubCell ({one_line(error)})") from None
        if n_channels != len(channels):
            raise InputError(f"its weights read {n_channels} channels, but {channels} has {len(channels)}")
        with torch.device("meta"):
            network = cls(channels, **options)
            if "head.1.weight" in weights:
                network.head = two_layers(network.n_features)
        return network.to_empty(device="cpu").eval()

    def positions(self, rows: int, columns: int) -> Tensor:
        """Positions of the class token and of a grid of tokens, (1, 1 + rows x columns, W).

        Interpolated as Hugging Face's ViTModel does it: bicubic, and not smoothed where they get fewer.
        """
        known: Tensor = self.encoder.pos_embed
        side = round((known.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return known
        grid = known[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([known[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def tokens(self, crops: Tensor) -> Tensor:
        """What the encoder makes of crops from 0 to 1: float (B, 1 + tokens, W), the class token first.

        Gradient checkpointing is on where the encoder's ``set_grad_checkpointing`` has set it.

        Args:
            crops: float (B, C, H, W) as :meth:`scaled` gives them; what is left of a side beyond a multiple
                of a token's 16 pixels is not looked at.
        """
        rows, columns = (side // self.patch for side in crops.shape[-2:])
        crops = crops[..., : rows * self.patch, : columns * self.patch]
        found = self.encoder.patch_embed(crops).flatten(1, 2)  # (B, rows, columns, W) before
        found = torch.cat([self.encoder.cls_token.expand(len(crops), -1, -1), found], dim=1)
        found = found + self.positions(rows, columns)
        if self.encoder.grad_checkpointing and torch.is_grad_enabled():
            found = checkpoint_seq(self.encoder.blocks, found)
        else:
            found = self.encoder.blocks(found)
        normed: Tensor = self.encoder.norm(found)
        return normed

    def features(self, crops: Tensor) -> Tensor:
        """Features float32 (B, n_features) of crops of grey levels; see :meth:`forward`.

        Raises:
            InputError: they have other channels, or a side of less than one token.
        """
        if crops.ndim != 4 or crops.shape[1] != len(self.channels) or min(crops.shape[-2:]) < self.patch:
            raise InputError(
                f"SubCell {self.channels}: expected crops (B, {len(self.channels)}, H, W) of {self.patch} "
                f"pixels a side or more, found {tuple(crops.shape)}"
            )
        pooled: Tensor = self.pool(self.tokens(self.scaled(crops)))
        return pooled.float()

    def cell_features(self, crops: Tensor, masks: Tensor | None = None, *_: Tensor) -> Tensor:
        """Crops (B, 3 or 4, H, W), channels in the order of fields -> vectors of cells, as :meth:`features`.

        ``masks`` are not looked at: what is to be black is black in the crops.
        """
        return self.features(crops[:, ["rgby".index(colour) for colour in self.channels]].float())

    def head_logits(self, crops: Tensor) -> Tensor:
        """Crops as :meth:`cell_features` takes them -> logits of cells by the head, float32 (B, 19)."""
        return self.logits_of_head(self.cell_features(crops))

    def logits_of_head(self, features: Tensor) -> Tensor:
        """Features -> logits of cells by the head, float32 (B, 19)."""
        assert self.head is not None
        return with_negative(functional.pad(self.head(features).float(), (0, 1)))

    def probabilities(self, features: Tensor) -> Tensor:
        """Features -> the mean of the classifiers' probabilities, float32 (B, 31)."""
        said = [classifier(features).float().sigmoid() for classifier in self.classifiers]
        return torch.stack(said).mean(dim=0)

    @staticmethod
    def scaled(crops: Tensor) -> Tensor:
        """Crops of grey levels, each from 0 to 1 over all its channels and pixels."""
        crops = crops.float()
        low, high = crops.amin((1, 2, 3), keepdim=True), crops.amax((1, 2, 3), keepdim=True)
        return (crops - low) / (high - low + 1e-6)

    def forward(self, crops: Tensor) -> SubCellOutput:
        """What SubCell says of crops; the classifiers' probabilities are averaged.

        Args:
            crops: grey levels of any scale, float32 (B, C, H, W), channels in the order of ``channels``.

        Raises:
            InputError: as :meth:`features`.
        """
        features = self.features(crops)
        return SubCellOutput(features, self.probabilities(features))


def load_subcell(folder: Path | str) -> SubCell:
    """Read SubCell as ``hpa-kit weights convert`` wrote it, to be evaluated on the CPU.

    Args:
        folder: that ``convert`` wrote, or the file in it.

    Returns:
        the module: float32 (B, C, H, W) grey levels, channels in the order of its ``channels``, any side from
        16 on -> :class:`SubCellOutput`.

    Raises:
        InputError: nothing of the kind is there, or it is damaged.
    """
    path = Path(folder)
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"SubCell: {file} is missing; expected a folder that hpa-kit weights convert wrote")
    try:
        with safe_open(str(file), framework="pt") as opened:
            metadata = opened.metadata() or {}
            backbone = str(json.loads(metadata.get("settings", "{}")).get("backbone"))
            channels = backbone.removeprefix(SUBCELL)
            if (
                metadata.get("hpa_kit") != _CHECKPOINT
                or channels not in SUBCELL_VARIANTS
                or channels == backbone
            ):
                raise InputError("it is no SubCell; expected what hpa-kit weights convert wrote")
            weights: dict[str, Tensor] = {
                name.removeprefix("model."): opened.get_tensor(name)
                for name in list(opened.keys())
                if name.startswith("model.")
            }
        network = SubCell.like(channels, weights)
        network.load_state_dict(weights)
        return network
    except InputError as error:
        raise InputError(f"SubCell: {file}: {error}") from None
    except (
        SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise InputError(f"SubCell: {file} is damaged: {reason}") from None


def _classifier(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
