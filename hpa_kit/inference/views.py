"""One member over its test-time views: what it says of a batch of fields."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.nn import functional

from hpa_kit.classes import NEGATIVE
from hpa_kit.config import CellPooling, MemberSettings, TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.models import Sides
from hpa_kit.models.cell_pooling import pooled_logits
from hpa_kit.scoring.cam_share import FLOOR_SCORE
from hpa_kit.scoring.mean_logit import MIN_PROBABILITY
from hpa_kit.training import load_member

if TYPE_CHECKING:
    from hpa_kit.inference.crop_members import CropMember

# Axes that a view is flipped along: as it is, horizontally, vertically.
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,))
SCALES = (1.0, 1.2, 1.4)
# Members from this input side on get the flips only, as the 15th place had it: larger still costs much.
LARGE_SIDE = 1024
# A segmentation member says a class is in the field where any pixel is above this.
SHOWN = 0.01


class Seen(NamedTuple):
    """What a member says: scores (B, 19), class maps in [0, 1] and logit maps (B, 19, h, w), float32."""

    scores: Tensor
    class_maps: Tensor
    logit_maps: Tensor


class _Views(NamedTuple):
    """Views of one scale, flipped back and averaged: scores (B, 19); CAMs or probabilities; raw maps."""

    scores: Tensor
    maps: Tensor
    raw: Tensor


@dataclass(frozen=True)
class LoadedMember:
    """A member ready to predict fields.

    Attributes:
        settings: its part in the ensemble.
        model: the network; its ``forward_maps`` gives raw maps (B, 19, h, w).
        size: side of the fields it reads.
        segments: whether it is a segmentation network; else it is a classifier with CAMs.
        pooling: how a classifier that learnt from cells has its image logits from theirs; None for others.
    """

    has_maps: ClassVar[bool] = True
    resizes: ClassVar[bool] = True  # looks at the whole field at its size

    settings: MemberSettings
    model: Any
    size: int
    segments: bool
    pooling: CellPooling | None = None

    def plan(self, given_up: int = 0) -> tuple[tuple[float, ...], tuple[tuple[int, ...], ...]]:
        """Scales and flips of the views, after giving up 0, 1 (the scales) or 2 (the flips too) kinds.

        Of scales at which the network looks at the same side there is one.
        """
        flips = FLIPS if self.settings.views != "none" and given_up < 2 else FLIPS[:1]
        sides: dict[int, float] = {}
        for scale in self._scales(given_up):
            sides.setdefault(self.side(scale), scale)
        return tuple(sides.values()), flips

    def side(self, scale: float) -> int:
        """The side of the views of a scale: as wanted, or the nearest that the network takes."""
        sides: Sides = self.model.sides
        return sides.nearest(int(self.size * scale))

    def unmerged(self) -> NoReturn:
        """Refuse to tell of SubCell's classes.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"classes: 31 are SubCell's; member {self.settings.checkpoint} tells of the competition's 19"
        )

    def check_sides(self) -> None:
        """Find out which sides the network takes before it looks at any field.

        Raises:
            InputError: it does not take its size.
        """
        sides: Sides = self.model.sides
        try:
            sides.check(self.size)
        except InputError as error:
            raise InputError(f"member {self.settings.checkpoint}: {error}") from None
        for scale in self._scales(0):
            self.side(scale)

    def other_sides(self) -> str | None:
        """A line on views whose sides are not those that were wanted; None where all are."""
        sides: Sides = self.model.sides
        wanted = [int(self.size * scale) for scale in self._scales(0)]
        refused = [side for side in wanted if not sides.takes(side)]
        if not refused:
            return None
        looked_at = [self.side(scale) for scale in self.plan()[0][1:]]
        return (
            f"member {self.settings.checkpoint}: {sides.name} takes no fields of {_listed(refused)} px; "
            + (f"views of {_listed(looked_at)} px instead" if looked_at else "flips only")
        )

    def _scales(self, given_up: int) -> tuple[float, ...]:
        scaled = self.settings.views == "auto" and not self.segments and self.size < LARGE_SIDE
        return SCALES if scaled and given_up < 1 else SCALES[:1]

    def predict(
        self, batch: Tensor, cells: Tensor | None = None, *, given_up: int = 0, amp: bool = False
    ) -> Seen:
        """Look at a batch of fields.

        A classifier's score is the mean of the views' sigmoids; its CAMs are flipped back, averaged, resized
        to the largest view's and averaged, classes scored below 0.01 are zeroed and the others divided by
        their maximum. A segmentation network's class maps are its sigmoids, flipped back and averaged,
        without the 20th; its score is 1 where any pixel is above 0.01; its logit maps are their logits. All
        this is how the competition's 15th place had it, who had no logit maps.

        A classifier that learnt from cells scores images by theirs, pooled; its map of Negative is 0, and its
        score what the others leave.

        Args:
            batch: float 0 to 255 (B, 4, size, size); where fields cover more or less than those that it knows
                the side is as many times the size, and so is that of the views.
            cells: their label maps, integers (B, H, W); without them a field counts as one cell.
            given_up: as for :meth:`plan`.
            amp: half precision.
        """
        scales, flips = self.plan(given_up)
        by_scale = []
        zoom = 1.0 if batch.shape[-1] == self.size else (batch.shape[-1] + 1e-6) / self.size
        for scale in scales:
            side = self.side(scale * zoom)
            view = resized_maps(batch, side, side)
            by_scale.append(_averaged([self._view(view, flip, amp, cells) for flip in flips]))
        height, width = by_scale[-1].maps.shape[-2:]
        scores, maps, raw = _averaged(
            [
                _Views(
                    one.scores, resized_maps(one.maps, height, width), resized_maps(one.raw, height, width)
                )
                for one in by_scale
            ]
        )
        if self.segments:
            shown = (maps > SHOWN).any(-1).any(-1).float()
            return Seen(shown, maps, maps.logit(MIN_PROBABILITY))
        return Seen(scores, scaled_cams(scores, maps), raw)

    def _view(self, batch: Tensor, flip: tuple[int, ...], amp: bool, cells: Tensor | None) -> _Views:
        with torch.autocast(batch.device.type, dtype=torch.float16, enabled=amp):
            raw = self.model.forward_maps(batch.flip(flip) if flip else batch)
        raw = raw.float()
        scores = raw.mean((-2, -1)).sigmoid()
        raw = raw.flip(flip) if flip else raw
        if self.pooling is not None:
            raw[:, NEGATIVE] = 0
            whole = torch.ones((len(raw), 1, 1), dtype=torch.long, device=raw.device)
            scores = pooled_logits(raw, whole if cells is None else cells, self.pooling).sigmoid()
        return _Views(scores, raw.sigmoid() if self.segments else raw.relu(), raw)


def load(settings: MemberSettings, device: torch.device) -> "LoadedMember | CropMember":
    """Load a member, and find out whether it takes all that it will look at.

    Raises:
        InputError: it cannot be loaded, says nothing of cells, or cannot look at fields of its size.
    """
    model, trained, _ = load_member(settings.checkpoint, device, networks=("cam", "unet", "crops"))
    member = member_of(settings, model.to(memory_format=torch.channels_last), trained)
    member.check_sides()
    return member


def member_of(settings: MemberSettings, model: Any, trained: TrainSettings) -> "LoadedMember | CropMember":
    """A network that was trained so, as the member that its part in an ensemble says."""
    size = settings.size or trained.size
    if trained.network == "crops":
        if trained.subcell is not None:
            from hpa_kit.inference.subcell_members import subcell_member

            return subcell_member(settings, model, trained)
        from hpa_kit.inference.crop_members import CropMember

        assert trained.crops.side is not None
        return CropMember(settings, model, size, trained.crops.side)
    pooling = trained.cells.how if trained.pools_cells else None
    return LoadedMember(settings, model, size, segments=trained.network == "unet", pooling=pooling)


def _listed(sides: Sequence[int]) -> str:
    return " and ".join(map(str, sides))


def scaled_cams(scores: Tensor, cams: Tensor) -> Tensor:
    """CAMs -> class maps in [0, 1]: classes with a score below 0.01 at 0, the others by their own maximum.

    Args:
        scores: (B, 19).
        cams: (B, 19, h, w), not below 0.
    """
    kept = cams * (scores >= FLOOR_SCORE)[:, :, None, None]
    return kept / (kept.amax((-2, -1), keepdim=True) + 1e-5)


def resized_maps(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (B, C, h, w) of another size, bilinear."""
    if maps.shape[-2:] == (height, width):
        return maps
    return functional.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


def _averaged(views: list[_Views]) -> _Views:
    means = []
    for parts in zip(*views, strict=True):
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        means.append(total / len(parts))
    return _Views(*means)
