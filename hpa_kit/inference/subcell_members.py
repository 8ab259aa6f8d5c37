"""SubCell as a member: its crops, cut from a field of full size, and its classes as the competition's."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpa_kit.cells.crops import Crops, scaled_crops
from hpa_kit.classes import N_CLASSES, location_to_class
from hpa_kit.config import EnsembleSettings, MemberSettings, TrainSettings
from hpa_kit.config.kinds import SUBCELL_VARIANTS
from hpa_kit.data import Images
from hpa_kit.data.fields import CHANNELS, find_channels
from hpa_kit.errors import InputError
from hpa_kit.inference.crop_members import CropKey, CropMember
from hpa_kit.models.cell_pooling import with_negative
from hpa_kit.models.subcell import SIDE, SUBCELL_CLASSES
from hpa_kit.resume import BEST
from hpa_kit.training.checkpoint import checkpoint_file, settings_of

log = logging.getLogger(__name__)

LETTERS = {"r": "red", "g": "green", "b": "blue", "y": "yellow"}
# The classes of the competition, each with those of SubCell that it merges; four of these it does not have.
_MERGED = [
    [place for place, name in enumerate(SUBCELL_CLASSES) if location_to_class(name) == index]
    for index in range(N_CLASSES)
]
_SMALLEST = 1e-6  # a probability below has the logit of this one


@dataclass(frozen=True)
class SubCellMember(CropMember):
    """SubCell as it was published, ready to predict cells.

    Attributes:
        size: side of a field in pixels of 0.08 µm where nothing is known of its pixels.
        crop_side: side of the crops in pixels of 0.08 µm, which become 448 of the network's.
        channels: the variant.
        zeroed: whether what is outside the cell is black.
        own_classes: whether it tells of its own 31 classes, not of the competition's 19.
    """

    resizes: ClassVar[bool] = False

    channels: str = SUBCELL_VARIANTS[0]
    zeroed: bool = True
    own_classes: bool = False

    def unmerged(self) -> Self:
        """The same, telling of all its own classes.

        Raises:
            InputError: a head behind it tells of the competition's.
        """
        if self.model.head is not None:
            return super().unmerged()
        return replace(self, own_classes=True)

    @property
    def merged(self) -> bool:
        """Whether it tells of the competition's 19 classes."""
        return not self.own_classes

    @property
    def key(self) -> CropKey:
        """What tells its crops from those of other members."""
        return subcell_key(self.settings, self.crop_side, self.zeroed)

    def cost(self, given_up: int, cells_per_field: float) -> float:
        """Pixels that are read for a field: each cell's crop over the views."""
        return cells_per_field * SIDE**2 * len(self.plan(given_up)[1])

    def check_sides(self) -> None:
        """It takes its crops, which are all of one side."""

    def cut(
        self,
        field: NDArray[np.uint8],
        small: Mapping[int, NDArray[np.uint8]],
        cells: NDArray[np.int32],
        pixel: float | None = None,
    ) -> Crops:
        """The crops that it looks at of a field uint8 (4, H, W) with its label map int32 (H, W).

        Each is a square around the middle of the cell's box, black beyond the field and, where neighbours are
        zeroed, outside the cell's mask, which has grown by 7 pixels of 0.08 µm.
        """
        return scaled_crops(field, cells, self.crop_side, SIDE, self.zeroed, pixel, self.size)

    def whole(self, logits: Tensor) -> Tensor:
        """Logits (N, 31) of its classes -> of the competition's (N, 19): the largest of what each merges."""
        if logits.shape[1] == N_CLASSES:  # of a head, which tells of these
            return logits
        return torch.stack([logits[:, places].amax(dim=1) for places in _MERGED], dim=1)

    @property
    def embedding(self) -> int:
        """Width of its features."""
        return int(self.model.n_features)

    def _look(
        self, pixels: Tensor, masks: Tensor, statistics: Tensor, *, given_up: int, amp: bool
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 31) of the probabilities, of a head its own (N, 19), and features, over the views."""
        crops = pixels[:, [CHANNELS.index(LETTERS[letter]) for letter in self.channels]].float()
        says = self.model.probabilities if self.model.head is None else self.model.logits_of_head
        seen, told = [], []
        for flip in self.plan(given_up)[1]:
            with torch.autocast(crops.device.type, dtype=torch.float16, enabled=amp):
                seen.append(self.model.features(crops.flip(flip) if flip else crops))
                told.append(says(seen[-1]))
        features, mean = torch.stack(seen).mean(dim=0), torch.stack(told).mean(dim=0)
        if self.model.head is None:
            return mean.clamp(_SMALLEST, 1 - _SMALLEST).logit(), features
        return with_negative(mean), features


def subcell_member(settings: MemberSettings, model: Any, trained: TrainSettings) -> SubCellMember:
    """SubCell as the member that its part in an ensemble says."""
    crop = settings.crop or trained.crops.side
    assert crop is not None and trained.subcell is not None
    return SubCellMember(
        settings,
        model,
        settings.size or trained.size,
        crop,
        trained.subcell,
        trained.crops.neighbours != "kept",
    )


def subcell_key(settings: MemberSettings, crop_side: int, zeroed: bool) -> CropKey:
    """What tells crops of SubCell from those of other members."""
    return settings.size, crop_side, zeroed


def colours_of(variant: str) -> tuple[str, ...]:
    """The channels that a variant looks at, as fields have them."""
    return tuple(LETTERS[letter] for letter in variant)


def fitted_to_channels(ensemble: EnsembleSettings, images: Images, ids: Collection[str]) -> EnsembleSettings:
    """Members that look at channels that a folder has, where some of them are variants of SubCell.

    A member that is a folder of converted variants becomes the first of these whose channels at least half of
    the fields have; which one it is is said.

    Args:
        ensemble: the members.
        images: folder of the fields.
        ids: the fields.

    Raises:
        InputError: fields lack what a member looks at.
    """
    by_field = find_channels(images)
    lacking = [
        colour for colour in CHANNELS if 2 * sum(colour in by_field.get(id, ()) for id in ids) < len(ids)
    ]
    found = []
    for member in ensemble.members:
        variants = _variants(member.checkpoint)
        if not variants:
            found.append(member)
            continue
        fitting = [variant for variant in variants if not set(colours_of(variant)) & set(lacking)]
        if not fitting:
            others = [one for one in SUBCELL_VARIANTS if not set(colours_of(one)) & set(lacking)]
            advice = f"variants {', '.join(others)} do without" if others else "all variants look at it"
            raise InputError(
                f"members: {images} has no {' and no '.join(lacking)}, which {', '.join(variants)} of "
                f"{member.checkpoint} looks at; {advice}"
            )
        path = variants[fitting[0]]
        if path != member.checkpoint:
            why = f"{images} has no {' and no '.join(lacking)}" if lacking else "all channels are there"
            log.info(f"members: {member.checkpoint}: variant {fitting[0]}, as {why}")
        found.append(member.model_copy(update={"checkpoint": path}))
    return ensemble.model_copy(update={"members": tuple(found)})


def only_subcell(ensemble: EnsembleSettings) -> bool:
    """Whether all members are SubCell as it was published."""
    return all(settings_of(checkpoint_file(one.checkpoint)).subcell is not None for one in ensemble.members)


def _variants(path: Path) -> dict[str, Path]:
    """The variants of SubCell that lie at a member's path: itself, or the folders in it; in their order."""
    places: Sequence[Path] = [path]
    if path.is_dir() and not (path / BEST).is_file():
        places = sorted(one.parent for one in path.glob(f"*/{BEST}"))
    found = {settings_of(checkpoint_file(place)).subcell: place for place in places}
    return {variant: found[variant] for variant in SUBCELL_VARIANTS if variant in found}
