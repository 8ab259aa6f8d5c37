"""Groups of settings of training that are about cells: learnt from, looked at one by one, found."""

from typing import Any, Literal

from pydantic import Field

from hpa_kit.config.base import Group
from hpa_kit.config.kinds import CellPooling


class CellSettings(Group):
    """Learning from cells: a field shows a class where one of its cells does."""

    pooling: Literal["auto", "field", "cells"] = Field(
        default="auto",
        description="where a cam's image logits come from: field, the mean of the maps; cells, what its "
        "cells show; auto, cells where masks are given",
    )
    how: CellPooling = Field(
        default="linear",
        alias="cell_pooling",
        description="how image logits come from cells: linear (softmax), noisy-or, max, attention, lse",
    )
    consistency: float = Field(
        default=0.0,
        ge=0,
        description="weight of the term by which cells, or map pixels, say the same in a field that was cut "
        "and mixed with another; 0 is off, 1 the 7th place's",
    )


class CropSettings(Group):
    """A network that looks at one cell at a time."""

    side: int | None = Field(
        default=None,
        ge=32,
        le=1024,
        alias="crop_size",
        description="side of a crop in pixels of the field at its size; by default what holds most cells",
    )
    neighbours: Literal["kept", "faded", "zeroed"] = Field(
        default="zeroed", description="what becomes of other cells, and of what is in no cell, in a crop"
    )
    mask: bool = Field(
        default=True, alias="mask_channel", description="the cell's mask as one more channel of its crop"
    )
    mix: Literal["none", "mixup", "cutmix"] = Field(
        default="none", alias="crop_mix", description="crops of a batch mixed with one another"
    )
    image_weight: float = Field(
        default=0.1,
        gt=0,
        alias="image_label_weight",
        description="weight of the loss where cells have image labels only, no pseudo labels",
    )


class CellNetworkSettings(Group):
    """Networks that find nuclei and cells."""

    border_weight: float = Field(
        default=2.0,
        gt=0,
        description="of cells: weight of pixels between two cells that touch, where others have 1",
    )


def refuse_what_finds_no_cells(settings: Any) -> None:
    """Refuse settings of a network cells with which it could not learn, or that it would not look at.

    Raises:
        ValueError: which, and why.
    """
    if settings.masks is None:
        raise ValueError("network cells needs masks, a folder of label maps, which it learns")
    if settings.pseudo_labels is not None:
        raise ValueError(
            "network cells takes no pseudo_labels: it learns where cells are, not what they show"
        )
    if settings.store is not None:
        raise ValueError("network cells takes no store, whose fields are of another scale; leave it out")
    if settings.size % 32 or settings.size > 2048:
        below = min(max(settings.size // 32 * 32, 32), 2048)
        raise ValueError(f"network cells needs a size that is a multiple of 32, 2048 at most; take {below}")
