"""A member that looks at one cell at a time: what it says of the cells of a batch of fields."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpa_kit.cells import resized
from hpa_kit.cells.crops import Crops, crops_of
from hpa_kit.classes import N_CLASSES
from hpa_kit.config import MemberSettings
from hpa_kit.devices import is_out_of_memory
from hpa_kit.errors import InputError
from hpa_kit.inference.prediction import FieldInputs
from hpa_kit.inference.views import FLIPS
from hpa_kit.models import Sides
from hpa_kit.models.cell_pooling import pool_cells, with_negative
from hpa_kit.models.crop_net import HIDDEN
from hpa_kit.scoring.inputs import cell_places

log = logging.getLogger(__name__)

_LEAST = 8  # crops at once: where memory runs out with so few, they are not what fills it
_NEVER = -1e4  # the logit of a number that no pixel has; such a cell is scored 0


CropKey = tuple[Any, ...]  # sides of the field and of the crops, and what else tells crops apart


class SeenCells(NamedTuple):
    """What a member says of all cells of a batch of fields, float32 (N, 19) logits, and of its fields.

    Scores of the fields are float32 (F, 19), by the cells' logits, pooled as linear softmax; embeddings of
    the cells float32 (N, width), or without cells where nobody wants them.
    """

    logits: Tensor
    scores: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class CropMember:
    """A member ready to predict cells.

    Attributes:
        settings: its part in the ensemble.
        model: the network, a :class:`~hpa_kit.models.CropNet`.
        size: side of the fields that its crops are cut from.
        crop_side: side of the crops.
    """

    has_maps: ClassVar[bool] = False
    resizes: ClassVar[bool] = True  # cuts its crops out of the field at its size

    settings: MemberSettings
    model: Any
    size: int
    crop_side: int

    @property
    def embedding(self) -> int:
        """Width of what it knows of a cell before it tells of classes."""
        return HIDDEN

    @property
    def key(self) -> CropKey:
        """What tells its crops from those of other members."""
        return self.size, self.crop_side

    @property
    def merged(self) -> bool:
        """Whether it tells of the competition's 19 classes."""
        return True

    def unmerged(self) -> Self:
        """The same, telling of SubCell's own classes.

        Raises:
            InputError: it is another network.
        """
        raise InputError(
            f"classes: 31 are SubCell's; member {self.settings.checkpoint} tells of the competition's 19"
        )

    def plan(self, given_up: int = 0) -> tuple[tuple[float, ...], tuple[tuple[int, ...], ...]]:
        """One scale, that of the crops, and the flips of the views; 2 gives the flips up."""
        return (1.0,), FLIPS if self.settings.views != "none" and given_up < 2 else FLIPS[:1]

    def cost(self, given_up: int, cells_per_field: float) -> float:
        """Pixels that are read for a field: each cell's crop over the views."""
        return cells_per_field * self.crop_side**2 * len(self.plan(given_up)[1])

    def check_sides(self) -> None:
        """Find out whether the network takes its crops.

        Raises:
            InputError: it does not.
        """
        sides: Sides = self.model.sides
        try:
            sides.check(self.crop_side)
        except InputError as error:
            raise InputError(f"member {self.settings.checkpoint}: {error}") from None

    def other_sides(self) -> None:
        """Nothing to say: it looks at crops of one side."""

    def predict_in_steps(
        self,
        inputs: Sequence[FieldInputs],
        device: torch.device,
        at_once: int,
        given_up: int,
        amp: bool,
        embed: bool = False,
    ) -> tuple[SeenCells, int]:
        """Predict all cells of fields, fewer at once where memory runs out; how many fitted comes with it."""
        crops = [one.crops[self.key] for one in inputs]
        while True:
            try:
                seen = self.predict(crops, device, at_once=at_once, given_up=given_up, amp=amp, embed=embed)
                return seen, at_once
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or at_once <= _LEAST:
                    raise
            # Outside the except block, where the error no longer holds on to the tensors.
            at_once //= 2
            log.warning(f"members: out of memory on {device}; going on with {at_once} crops per step")
            if device.type == "cuda":
                torch.cuda.empty_cache()

    def predict(
        self,
        fields: Sequence[Crops],
        device: torch.device,
        *,
        at_once: int,
        given_up: int = 0,
        amp: bool = False,
        embed: bool = False,
    ) -> SeenCells:
        """Look at all cells of fields, so many crops at once whatever field they are of.

        Logits are averaged over the views; Negative's then comes from the others'. So are embeddings, where
        they are wanted.
        """
        embeddings = torch.zeros((0, self.embedding), device=device)
        counts = [len(one.pixels) for one in fields]
        if not sum(counts):
            logits = torch.zeros((0, N_CLASSES), device=device)
            there = torch.zeros(0, dtype=torch.bool, device=device)
        else:
            pixels = torch.from_numpy(np.concatenate([one.pixels for one in fields]))
            masks = torch.from_numpy(np.concatenate([one.masks for one in fields]))
            statistics = torch.from_numpy(np.repeat([one.statistics for one in fields], counts, axis=0))
            there = (masks > 0).flatten(1).any(dim=1).to(device)
            parts = zip(*(tensor.split(at_once) for tensor in (pixels, masks, statistics)), strict=True)
            found = [
                self._look(*(tensor.to(device) for tensor in part), given_up=given_up, amp=amp)
                for part in parts
            ]
            logits = torch.where(there[:, None], torch.cat([logits for logits, _ in found]), _NEVER)
            if embed:
                embeddings = torch.cat([embedded for _, embedded in found])
        by_field = zip(self.whole(logits).split(counts), there.split(counts), strict=True)
        images = [pool_cells(of[None], shown[None]) for of, shown in by_field]
        scores = with_negative(torch.cat(images)).sigmoid()
        return SeenCells(self.whole(logits) if self.merged else logits, scores, embeddings)

    def cut(
        self,
        field: NDArray[np.uint8],
        small: Mapping[int, NDArray[np.uint8]],
        cells: NDArray[np.int32],
        pixel: float | None = None,
    ) -> Crops:
        """The crops that it looks at of a field.

        Args:
            field: uint8 (4, H, W).
            small: {size: the field, uint8 (4, side, side)}, its size among them.
            cells: the label map, int32, of any size.
            pixel: micrometres of the field's pixels where they are known; ``small`` goes by them already.
        """
        n_cells, known = int(cells.max(initial=0)), None
        reduced = resized(cells, small[self.size].shape[1:])
        shown = np.count_nonzero(np.bincount(reduced.ravel(), minlength=n_cells + 1)[1:])
        if shown < n_cells:
            known = cell_places(cells).centre
        return crops_of(small[self.size], reduced, self.crop_side, n_cells, known)

    def whole(self, logits: Tensor) -> Tensor:
        """What the network says of cells -> logits (N, 19)."""
        return logits

    def _look(
        self, pixels: Tensor, masks: Tensor, statistics: Tensor, *, given_up: int, amp: bool
    ) -> tuple[Tensor, Tensor]:
        """Logits and embeddings of crops, averaged over the views."""
        crops = pixels.float().contiguous(memory_format=torch.channels_last)
        logits: list[Tensor] = []
        embedded: list[Tensor] = []
        flips = self.plan(given_up)[1]
        for flip in flips:
            views = (crops.flip(flip), masks.flip(flip)) if flip else (crops, masks)
            with torch.autocast(crops.device.type, dtype=torch.float16, enabled=amp):
                embedded.append(self.model.embed(self.model.prepare(*views, statistics)))
                logits.append(self.model.classify_embedded(embedded[-1]).float())
        return with_negative(_mean(logits)), _mean([one.float() for one in embedded])


def _mean(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / len(parts)


def cut_for(
    members: Sequence[CropMember],
    field: NDArray[np.uint8],
    small: Mapping[int, NDArray[np.uint8]],
    cells: NDArray[np.int32] | None,
    pixel: float | None = None,
) -> dict[CropKey, Crops]:
    """The crops that members look at of a field, by their keys.

    Args:
        members: who looks.
        field: uint8 (4, H, W).
        small: {size: the field, uint8 (4, side, side)} of all sizes of members that resize it.
        cells: its label map, int32 (H, W); None for a field without one, which has no crops.
        pixel: micrometres of the field's pixels where they are known.
    """
    cells = np.zeros(field.shape[1:], np.int32) if cells is None else cells
    by_key = {member.key: member for member in members}
    return {key: member.cut(field, small, cells, pixel) for key, member in by_key.items()}
