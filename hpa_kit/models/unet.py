"""The segmentation network of stage 2: fields -> one map per class, and one of what is no cell."""

import math
from functools import lru_cache, partial
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpa_kit.classes import N_CLASSES
from hpa_kit.config import Normalisation, StrideBy
from hpa_kit.errors import InputError
from hpa_kit.models.backbones import check_name, without_classifier
from hpa_kit.models.field_net import Normaliser
from hpa_kit.models.pretrained import Weights, load_backbone_weights
from hpa_kit.models.sides import Sides, reason_of

# The location classes, and last the pixels that are in no cell.
N_CHANNELS = N_CLASSES + 1
# Fields are padded to multiples of this, which every encoder can halve five times.
_STEP = 32
_TIMM = "tu-"
# Channels after each step up of the library's default decoder, from the deepest on.
_DECODER = (256, 128, 64, 32, 16)
# What part of a field's pixels shows a class, roughly: where the head starts.
_SHOWN = 0.05


class SegmentationNet(nn.Module):
    """Fields -> logits per pixel: a U-Net with the default decoder of segmentation_models_pytorch.

    The sigmoids of the first 19 channels are class maps; the last channel says where there is no cell.

    Before it is trained each class is unlikely in every pixel, the last channel open: most classes are rare,
    and hundreds of updates would go into learning just that (Lin and others, Focal Loss, 2017).

    Args:
        encoder: a timm model name, with or without ``tu-`` in front, or another encoder's name in
            segmentation_models_pytorch; where both know a name, timm's network is built.
        in_channels: 4 for red, green, blue, yellow; 3 leaves yellow out. Inputs may have 4 either way.
        pretrained: None (random weights), path of the encoder's local weights, or ``"download"``: the only
            value with which a connection is opened. timm's encoders only.
        normalisation: how fields are normalised, see :class:`~hpa_kit.models.Normaliser`.
        n_classes: channels that come out, such as 19 classes and one for no cell.
        stride: input pixels per pixel of the encoder's deepest maps: 32, 16 or 8. The decoder steps up from
            there with the channels that the default one has at that resolution.
        stride_by: how strides 8 and 16 are had, as for a :class:`~hpa_kit.models.backbones.Backbone`, so that
            the encoder can be the backbone of a classifier and start with its weights: ``cut``, ``dilate`` or
            ``both``.
        size: side of the fields that it learns from, which an encoder of one side is made for; None for any.

    Attributes:
        sides: which sides of fields it takes.

    Raises:
        InputError: segmentation_models_pytorch is not installed, the encoder is unknown, gives no maps that
            a U-Net can use, or not with that stride or of that size, or the weights do not fit.
    """

    def __init__(
        self,
        encoder: str = "resnet50",
        in_channels: int = 4,
        pretrained: Weights = None,
        normalisation: Normalisation = "field",
        n_classes: int = N_CHANNELS,
        stride: int = 32,
        stride_by: StrideBy = "cut",
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.input = Normaliser(in_channels, normalisation)
        self.n_classes = n_classes
        name = _full_name(encoder)
        shape = _shape_options(encoder, stride, stride_by)
        options, self.sides = _plan(name, in_channels, n_classes, tuple(shape.items()), size)
        self.network = _library().Unet(**options)
        _start_unlikely(self.network)
        if pretrained is not None:
            _load_encoder(self.network.get_submodule("encoder"), name, in_channels, pretrained)

    @property
    def in_channels(self) -> int:
        """Channels that are read: 3 or 4."""
        return self.input.in_channels

    def forward(self, fields: Tensor) -> Tensor:
        """Fields, uint8 or float 0–255 (B, 4 or in_channels, H, W) -> logits (B, n_classes, H, W).

        Raises:
            InputError: the encoder cannot look at fields of this size.
        """
        for side in set(fields.shape[-2:]):
            self.sides.check(side)
        return _framed(self.network, self.input(fields))

    def forward_maps(self, fields: Tensor) -> Tensor:
        """Fields (B, 4 or in_channels, H, W) -> logits of the location classes only (B, 19, H, W)."""
        return self(fields)[:, :N_CLASSES]


def _full_name(encoder: str) -> str:
    """The encoder's name as segmentation_models_pytorch wants it: with ``tu-`` where it is timm's."""
    plain = encoder.removeprefix(_TIMM)
    if encoder != plain or plain not in _own_names() or timm.is_model(plain):
        check_name(plain)
        return _TIMM + plain
    return plain


def _own_names() -> list[str]:
    names: list[str] = _library().encoders.get_encoder_names()
    return names


def _library() -> Any:
    """segmentation_models_pytorch, which only this network needs."""
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise InputError(
            f"unet: segmentation_models_pytorch cannot be imported ({error}); install "
            "segmentation-models-pytorch, on Kaggle from the wheels of this kit's dataset"
        ) from None
    return segmentation_models_pytorch


def _shape_options(encoder: str, stride: int, stride_by: StrideBy) -> dict[str, Any]:
    """How deep the U-Net is, and to which stride its encoder is dilated."""
    if stride == 32 and stride_by == "both":
        raise InputError(f"backbone: {encoder} has stride 16 without its last stage; use stride_by cut")
    depth = {"cut": int(math.log2(stride)), "dilate": 5, "both": 4}[stride_by]
    dilated = {} if stride_by == "cut" or stride == 32 else {"output_stride": stride}
    return {"encoder_depth": depth, "decoder_channels": _DECODER[-depth:], **dilated}


@lru_cache(maxsize=64)
def _plan(
    name: str, in_channels: int, n_classes: int, shape: tuple[tuple[str, Any], ...], size: int | None
) -> tuple[dict[str, Any], Sides]:
    """The library's options for a U-Net, and the sides of fields that it takes with them.

    Raises:
        InputError: it cannot be had with that encoder, or not for fields of that size.
    """
    plain = name.removeprefix(_TIMM)
    common = {"encoder_name": name, "encoder_weights": None, "in_channels": in_channels, "classes": n_classes}
    fault, refusing = "", None
    for encoder in _encoder_options(name, size):
        options = {**common, **dict(shape), **encoder}
        try:
            sides = Sides(
                plain, partial(_FramedUnet, options), in_channels, 1, encoder.get("img_size", 2 * _STEP)
            )
        except InputError:
            raise
        except Exception as error:  # of every kind
            fault = reason_of(error)
            continue
        if sides.n_features and (size is None or sides.takes(size)):
            return options, sides
        if sides.n_features:
            refusing = sides
        fault = sides.fault(sides.built_for)
    if refusing is not None and size is not None:
        refusing.check(size)
    raise InputError(f"backbone: {plain} cannot be the encoder of a U-Net: {fault}")


class _FramedUnet(nn.Module):
    """A U-Net as :class:`SegmentationNet` runs it."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.network: nn.Module = _library().Unet(**options)

    def forward(self, x: Tensor) -> Tensor:
        return _framed(self.network, x)


def _framed(network: nn.Module, x: Tensor) -> Tensor:
    """Run a U-Net on normalised fields (B, C, H, W), padded to what can be halved often enough."""
    height, width = x.shape[-2:]
    top, left = -height % _STEP // 2, -width % _STEP // 2
    padding = (left, -width % _STEP - left, top, -height % _STEP - top)
    if any(padding):
        # The border's pixels over again: zeros would look like a field's mean, and reflecting cannot pad
        # small fields.
        x = functional.pad(x, padding, mode="replicate")
    logits: Tensor = network(x)
    return logits[..., top : top + height, left : left + width]


def _start_unlikely(network: nn.Module) -> None:
    head: Any = network.get_submodule("segmentation_head.0")
    with torch.no_grad():
        head.bias[:N_CLASSES] = math.log(_SHOWN / (1 - _SHOWN))


def _encoder_options(name: str, size: int | None) -> list[dict[str, Any]]:
    """Transformers made for one input size are told to take others, each family by its own option."""
    plain = name.removeprefix(_TIMM).partition(".")[0]
    config = timm.get_pretrained_cfg(plain, allow_unregistered=True) if name.startswith(_TIMM) else None
    if config is None or not config.fixed_input_size:
        return [{}]
    made_for = [] if size is None else [{"img_size": -(-size // _STEP) * _STEP}]
    return [{"strict_img_size": False}, {"dynamic_img_size": True}, {}, *made_for]


def _load_encoder(encoder: nn.Module, name: str, in_channels: int, pretrained: Weights) -> None:
    """Put local or timm's weights into a timm encoder.

    The encoder lacks timm's last layers and calls some of the others by other names, with ``_`` for ``.``:
    so the whole network is filled first, where what does not fit is listed, and its weights are handed over.
    """
    if not name.startswith(_TIMM):
        raise InputError(
            f"pretrained: {name} is no timm encoder, so its weights cannot be fitted to {in_channels} "
            "channels; train it without, or choose a timm encoder"
        )
    plain = name.removeprefix(_TIMM)
    whole = without_classifier(plain, in_chans=in_channels)
    load_backbone_weights(whole, plain, in_channels, str(pretrained))
    state = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    wanted = encoder.state_dict()
    found = {key: state.get(key.removeprefix("model.").replace(".", "_")) for key in wanted}
    lacking = [key for key, value in found.items() if value is None or value.shape != wanted[key].shape]
    if lacking:
        raise InputError(f"pretrained: {pretrained} lacks weights of the encoder: {', '.join(lacking)}")
    encoder.load_state_dict({key: value for key, value in found.items() if value is not None})
