"""Kinds of values that several settings share."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from hpa_kit.classes import N_CLASSES
from hpa_kit.config.base import Settings, nearest


def split_text(value: Any) -> Any:
    """Text such as ``0,2,7`` -> its parts; anything else as it is, for the kind itself to check."""
    return value.split(",") if isinstance(value, str) else value


def whole_number(value: Any) -> Any:
    """Text that is a whole number -> the number, for kinds that take no text; anything else as it is."""
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else value


def several(value: Any) -> Any:
    """One path in place of a tuple of them -> a tuple."""
    return (value,) if isinstance(value, str | Path) else value


def scales_are_auto(value: Any) -> Any:
    """The views' name on the command line, where they are called after what ``auto`` adds -> ``auto``."""
    return "auto" if value == "scales" else value


def shard_exists(settings: Any) -> Any:
    """Settings whose ``shard`` is one of their ``shards``; to be checked when both are there."""
    if settings.shard >= settings.shards:
        raise ValueError(f"shard {settings.shard} is not one of {settings.shards} shards, which count from 0")
    return settings


COLOURS = ("red", "green", "blue", "yellow")  # of a field, in its order
# Fields as the atlas has them, which networks and segmenters know: micrometres of a pixel, pixels of a side.
PIXEL_SIZE, FIELD_SIDE = 0.08, 2048


def channel_places(text: str) -> dict[str, str]:
    """Where a lab's images have the channels of a field, as ``--channels`` says it.

    Args:
        text: ``red=2,green=0,blue=3,yellow=1``, in any order, some left out; a first letter stands for its
            colour. A place is a number that counts from 0, the name that the image itself gives a channel, or
            ``none`` for red or yellow that were not imaged.

    Returns:
        {colour: place}, places as they were given.

    Raises:
        ValueError: it is no such text.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, place = (word.strip() for word in part.partition("="))
        colour = next((one for one in COLOURS if name.lower() in (one, one[0])), None)
        if colour is None or not place:
            raise ValueError(
                "expected red=PLACE,green=PLACE,blue=PLACE,yellow=PLACE, a place being a number from 0 on, a "
                "name in the image, or none"
            )
        if colour in found:
            raise ValueError(f"{colour} stands twice")
        if place.lower() == "none" and colour in ("green", "blue"):
            raise ValueError(f"{colour} cannot be none: protein and nuclei are what is looked at")
        found[colour] = place
    return found


def known_channels(value: str) -> str:
    """The text of ``--channels``, which can be read."""
    channel_places(value)
    return value


# Names that settings take; :func:`hpa_kit.inference.add_rule` adds to them.
RULE_NAMES = ["best", "cam_share", "mean_logit", "mean_logit_negative", "cell_logit", "quantile", "copied"]


def known_rule(value: str) -> str:
    """The name of a rule that is there when settings are made.

    Raises:
        ValueError: there is none of that name; the nearest one is named.
    """
    return _known("rule", value, RULE_NAMES, "hpa_kit.inference.add_rule")


# Names of segmenters that settings take; :func:`hpa_kit.cells.add_segmenter` adds to them.
SEGMENTER_NAMES = ["auto", "published", "classical", "hpacellseg"]


def known_segmenter(value: str) -> str:
    """The name of a segmenter that is there when settings are made.

    Raises:
        ValueError: there is none of that name; the nearest one is named.
    """
    return _known("segmenter", value, SEGMENTER_NAMES, "hpa_kit.cells.add_segmenter")


def _known(kind: str, value: str, names: list[str], adds: str) -> str:
    """A name that is among those that are there; a function adds others."""
    if value not in names:
        raise ValueError(
            f"there is no such {kind}{nearest(value, names)}; one of your own has to be added first ({adds})"
        )
    return value


ClassIndex = Annotated[int, Field(ge=0, lt=N_CLASSES)]
Classes = Annotated[tuple[ClassIndex, ...], BeforeValidator(split_text)]
FieldSide = Annotated[int, Field(ge=64, le=3072)]
# 14 is that of DINOv2's patches; timm's transformers have the one of their patches only.
Stride = Annotated[Literal[8, 14, 16, 32], BeforeValidator(whole_number)]
Rule = Annotated[str, AfterValidator(known_rule)]
Form = Literal["mean_share", "max_share", "mean", "max"]
StrideBy = Literal["cut", "dilate", "both"]
Normalisation = Literal["field", "fixed", "joint"]
# The variants of SubCell, by the channels that each looks at, in its order: r microtubules, y ER, b nucleus,
# g the protein. A network whose backbone is SUBCELL and a variant is SubCell as it was published.
SUBCELL, SUBCELL_VARIANTS = "SubCell ", ("rybg", "rbg", "ybg", "bg")

# How image logits come from those of cells; see hpa_kit.models.cell_pooling.
CellPooling = Literal["linear", "noisy-or", "max", "attention", "lse"]
# Which cells count for the labels of their image.
CellBag = Literal["protein", "all"]
InChannels = Annotated[Literal[3, 4], BeforeValidator(whole_number)]
# The 15th place's modes of sampling external fields; -1 takes all.
ExternalMode = Annotated[int, Field(ge=-1, le=6), BeforeValidator(whole_number)]
Split = Literal["train", "test"]
# auto: the flips at 1, 1.2 and 1.4 times the size for classifiers below 1024 px, the flips for all others.
Views = Annotated[Literal["auto", "none", "flips"], BeforeValidator(scales_are_auto)]
SegmenterName = Annotated[str, AfterValidator(known_segmenter)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")]
Paths = Annotated[tuple[Path, ...], BeforeValidator(several)]


def trainable_part(value: str) -> str:
    """What of a backbone learns: ``whole``, ``frozen``, or ``last:N`` blocks.

    Raises:
        ValueError: it is none of these.
    """
    if value not in ("whole", "frozen") and re.fullmatch(r"last:[1-9][0-9]{0,3}", value) is None:
        raise ValueError("expected whole, frozen or last:N, such as last:4")
    return value


Trainable = Annotated[str, AfterValidator(trainable_part)]
LayerDecay = Annotated[float, Field(gt=0, le=1)]

# Names of timm's transformers, whose weights are ruined by learning rates that convolutions need.
_TRANSFORMERS = re.compile(r"(samvit|vit|deit3?|beit(v2)?|eva(02)?|cait|xcit|swin(v2)?)_")
_PATCH = re.compile(r"_patch(8|14|16|32)(_|\b)")
# Peak learning rates by what is learnt: all of a network from random weights, or its new layers only; all of
# one that is pre-trained, of convolutions and of tokens.
LR, LR_PRETRAINED, LR_TRANSFORMER = 2e-3, 5e-4, 1e-4


def defaults_of_backbone(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``stride``, ``size`` and ``lr`` is not given -> its default, where that hangs on the backbone.

    Args:
        values: settings by name that are given.

    Returns:
        ``stride``, that of a transformer's patches; ``size``, at 14 px the largest multiple within the usual
        512; ``lr``, where the backbone starts with pretrained weights that learn.
    """
    found: dict[str, Any] = {}
    name = str(values.get("backbone", ""))
    patch = _PATCH.search(name) if _TRANSFORMERS.match(name) else None
    if patch is not None:
        found["stride"] = int(patch[1])
    if str(values.get("stride", found.get("stride"))) == "14":
        found["size"] = 504
    if values.get("pretrained") is not None and values.get("trainable") != "frozen":
        found["lr"] = LR_TRANSFORMER if _TRANSFORMERS.match(name) else LR_PRETRAINED
    return {key: value for key, value in found.items() if key not in values}


# Networks of which all learns at one rate, and that compute nothing again on the way back.
NOT_FINE_TUNED = ("unet", "head", "cells")
# How cells are scored where neither options, nor an ensemble's YAML, nor a notebook's parameters say it.
DEFAULT_RULE: Rule = "best"
DEFAULT_FORM: Form = "mean_share"
DEFAULT_VIEWS: Views = "flips"
DEFAULT_MAP_SIZE = 512
DEFAULT_SEGMENTER: SegmenterName = "auto"

# Further files of a field's cells, beside its label maps.
Also = Literal["ome-tiff", "geojson"]
Alsos = Annotated[tuple[Also, ...], BeforeValidator(split_text)]

# What commands that write label maps say of their options.
ALSO = (
    "further files of each field's cells beside its label maps: ome-tiff (label maps), geojson (outlines, "
    "for QuPath and napari), or both; docs/formats.md"
)
PACK = (
    "keep label maps in zip archives of 1100, which --masks takes as they are, in place of a file per field"
)
# What commands that find cells say of theirs.
WEIGHTS = "networks that find cells: folder of the two published ones, or run of train --network cells"


def local_workers(address: str) -> int | None:
    """How many workers of this machine a cluster's address asks for; None where it is another address.

    Raises:
        ValueError: it asks for no number of them.
    """
    name, _, number = address.partition(":")
    if name != "local":
        return None
    if re.fullmatch(r"[1-9][0-9]{0,2}", number) is None:
        raise ValueError("expected local:N, N from 1 to 999, such as local:4")
    return int(number)


def known_cluster(value: str) -> str:
    """The address of a cluster: ``local:N``, a scheduler's, or else a file's path.

    Raises:
        ValueError: it is no address.
    """
    scheme, slashes, rest = value.partition("://")
    if slashes and (scheme not in ("tcp", "tls") or re.fullmatch(r"\S+:[0-9]+", rest) is None):
        raise ValueError("expected local:N, tcp://HOST:PORT, tls://HOST:PORT, or a scheduler's file")
    if not value or "\0" in value:
        raise ValueError("expected local:N, tcp://HOST:PORT, or a scheduler's file")
    local_workers(value)
    return value


class ClusterSettings(Settings):
    """What commands share whose fields a cluster may do."""

    cluster: Annotated[str, AfterValidator(known_cluster)] | None = Field(
        None,
        description="have the workers of a Dask cluster do the fields: local:N processes of this machine, "
        "tcp://HOST:PORT of a scheduler, or its file; docs/cluster.md",
    )


class ImageSettings(Settings):
    """What all commands share that read fields: how images of other layouts than the competition's are."""

    channels: Annotated[str, AfterValidator(known_channels)] | None = Field(
        None,
        description="where a lab's images have the four channels: red=2,green=0,blue=3,yellow=1, by place "
        "from 0 on or by name, none for what was not imaged (default: by the names in them); "
        "docs/formats.md",
    )
    pixel_size: float | None = Field(
        None,
        ge=0,
        le=100,
        description="micrometres of a pixel; 0 takes fields as they are, whatever they cover (default: what "
        "a lab's image says)",
    )
    stack: Literal["refuse", "max"] = Field(
        "refuse", description="images of several planes in depth: refuse them, or take their maximum, max"
    )
