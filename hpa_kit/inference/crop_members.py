"""A member that looks at one cell at a time: what it says of the cells of a batch of fields."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

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


class SeenCells(NamedTuple):
    """What a member says of all cells of a batch of fields, float32 (N, 19) logits, and of its fields.

    Scores of the fields are float32 (F, 19), by the cells' logits, pooled as linear softmax; embeddings of
    the cells float32 (N, 256), or without cells where nobody wants them.
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

    settings: MemberSettings
    model: Any
    size: int
    crop_side: int

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
        crops = [one.crops[self.size, self.crop_side] for one in inputs]
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
        embeddings = torch.zeros((0, HIDDEN), device=device)
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
        by_field = zip(logits.split(counts), there.split(counts), strict=True)
        images = [pool_cells(of[None], shown[None]) for of, shown in by_field]
        return SeenCells(logits, with_negative(torch.cat(images)).sigmoid(), embeddings)

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
    fields: Mapping[int, NDArray[np.uint8]],
    cells: NDArray[np.int32] | None,
) -> dict[tuple[int, int], Crops]:
    """The crops that members look at of a field, by the sides of field and crops.

    Args:
        members: who looks.
        fields: {size: the field, uint8 (4, side, side)} of all their sizes.
        cells: its label map, int32 (H, W), of any size; None for a field without one, which has no crops.
    """
    cells = np.zeros((1, 1), np.int32) if cells is None else cells
    n_cells, known, found = int(cells.max(initial=0)), None, {}
    for size, side in sorted({(member.size, member.crop_side) for member in members}):
        small = resized(cells, fields[size].shape[1:])
        shown = np.count_nonzero(np.bincount(small.ravel(), minlength=n_cells + 1)[1:])
        if shown < n_cells and known is None:
            known = cell_places(cells).centre
        found[size, side] = crops_of(fields[size], small, side, n_cells, known)
    return found
