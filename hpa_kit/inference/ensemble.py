"""What the members say of a field together, and how an ensemble does with less when time is short."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpa_kit.cells import resized
from hpa_kit.classes import N_CLASSES
from hpa_kit.config import EnsembleSettings, MemberSettings, Views
from hpa_kit.config.kinds import DEFAULT_MAP_SIZE, DEFAULT_VIEWS
from hpa_kit.data import CHANNELS, resize_field
from hpa_kit.devices import is_out_of_memory
from hpa_kit.errors import InputError
from hpa_kit.inference.prediction import FieldInputs, FieldMaps
from hpa_kit.inference.views import LoadedMember, load, resized_maps
from hpa_kit.training.checkpoint import checkpoint_file, settings_of

if TYPE_CHECKING:
    from hpa_kit.inference.crop_members import CropMember

log = logging.getLogger(__name__)

Fallback = Literal["views", "members", "map_size"]

FALLBACKS: tuple[Fallback, ...] = ("views", "members", "map_size")
MIN_MAP_SIZE = 128  # cells of a few pixels tell nothing
# What a pixel of one kind of maps costs, for each member that gives them, beside a pixel that a member reads:
# 0.7 of it by resnet10t and efficientnet_b0, 0.3 by resnet50. What scoring takes however small the maps are,
# in their pixels: 380² by the rule best, 330² by cam_share, hardly anything by quantile. All on a processor,
# by tests/benchmarks/test_bench_maps.py; what is measured in a run counts more.
MAP_PIXEL, SCORING_PIXELS = 0.5, 256**2
# Crops of a step, of one field or several; and cells that a field is taken to have before any was seen.
CROPS, CELLS_PER_FIELD = 128, 20.0


class QualityLevel(NamedTuple):
    """How much an ensemble does for a field.

    Attributes:
        views: kinds of test-time views given up: 0 none, 1 the scales, 2 the flips too.
        members: how many members are asked, those of largest weight.
        map_size: side of the maps.
    """

    views: int
    members: int
    map_size: int

    @property
    def scoring_cost(self) -> float:
        """Pixels of a map, and what they do not change: what the time of scoring a field grows with."""
        return SCORING_PIXELS + self.map_size**2


def channels_needed(members: Sequence[MemberSettings]) -> Collection[str]:
    """Channels that a field must have to be predicted: those that some member reads.

    Raises:
        InputError: a checkpoint cannot be read.
    """
    needed: set[str] = set()
    for member in members:
        trained = settings_of(checkpoint_file(member.checkpoint))
        if trained.subcell is None:
            needed |= {*CHANNELS[: trained.in_channels]}
            continue
        from hpa_kit.inference.subcell_members import colours_of

        needed |= {*colours_of(trained.subcell)}
    return needed


class Ensemble:
    """Members that predict the same fields, by weight.

    Scores and maps are weighted sums, each divided by the weight of the members that gave them: a member of
    mode ``cam`` gives maps only, one of mode ``pred`` scores only. What one member says is told in
    :meth:`hpa_kit.inference.views.LoadedMember.predict`; together this is how the competition's 15th place
    made its maps. Members that look at single cells say logits of these in the place of maps.

    Attributes:
        level: how much is done from the next :meth:`predict` on; one of :meth:`levels`.
        broken: batches in a row, up to the last, of which nothing could be predicted.

    Args:
        members: run folders or checkpoints, which weigh the same, or members with settings of their own.
        views: of run folders and checkpoints: ``none``, ``flips`` (as is, horizontal, vertical) or ``auto``
            (classifiers below 1024 px: the flips at 1, 1.2 and 1.4 times the member's size; others: the
            flips).
        map_size: side of the maps that come out.
        batch: fields per step; halved when memory runs out.
        device: where the members run.
        amp: half precision on a GPU.
        class_maps, logit_maps: which maps are wanted; those that are not come out without pixels.
        merged: False wants logits of cells of SubCell's 31 classes, by members that are SubCell.
        embeddings: whether those of cells are wanted, which networks of crops give.

    Raises:
        InputError: a member cannot be loaded, or none gives scores, or none gives maps.
    """

    def __init__(
        self,
        members: Sequence[Path | MemberSettings],
        views: Views = DEFAULT_VIEWS,
        map_size: int = DEFAULT_MAP_SIZE,
        batch: int = 8,
        device: str | torch.device = "cpu",
        *,
        amp: bool = True,
        class_maps: bool = True,
        logit_maps: bool = True,
        merged: bool = True,
        embeddings: bool = False,
    ) -> None:
        settings = EnsembleSettings(members=tuple(_with_settings(member, views) for member in members))
        self.device = torch.device(device)
        self.amp = amp and self.device.type == "cuda"
        self.map_size, self.batch = map_size, batch
        self.class_maps, self.logit_maps, self.embeddings = class_maps, logit_maps, embeddings
        self.members = [load(member, self.device) for member in settings.members]
        if not merged:
            self.members = [member.unmerged() for member in self.members]
        self.level = QualityLevel(0, len(self.members), map_size)
        self.crops_per_step, self._cells_seen, self._fields_seen, self.broken = CROPS, 0, 0, 0

    def levels(self, order: Sequence[Fallback] = FALLBACKS) -> list[QualityLevel]:
        """All levels, from full down to least, each less than the one before.

        Args:
            order: what is given up first: ``views`` (scales, then flips), ``members`` (of least weight first,
                as long as scores and maps are both given), ``map_size`` (halved down to 128).
        """
        least = len(self._leaving()) - 1
        smaller = [self.map_size >> k for k in range(1, self.map_size.bit_length())]
        levels: dict[Fallback, list[int]] = {
            "views": [k for k in (1, 2) if any(one.plan(k) != one.plan(k - 1) for one in self.members)],
            "members": [len(self.members) - 1 - k for k in range(least + 1)],
            "map_size": [side for side in smaller if side >= MIN_MAP_SIZE],
        }
        found = [QualityLevel(0, len(self.members), self.map_size)]
        for fallback in order:
            for level in levels[fallback]:
                found.append(found[-1]._replace(**{fallback: level}))
        return found

    def cost(self, level: QualityLevel) -> float:
        """What the members' time grows with: pixels that they read over all views, and those of their maps.

        Views count with the sides that they have, which may be others than were wanted. The maps' are weighed
        by :data:`MAP_PIXEL`. Of crops as many are read as fields had cells so far, on average.
        """
        pixels = 0.0
        cells = self._cells_seen / self._fields_seen if self._fields_seen else CELLS_PER_FIELD
        for member in self._staying(level):
            if not isinstance(member, LoadedMember):
                pixels += member.cost(level.views, max(cells, 1.0))
                continue
            scales, flips = member.plan(level.views)
            pixels += sum(member.side(scale) ** 2 for scale in scales) * len(flips)
            kinds = member.settings.gives_maps * (self.class_maps + self.logit_maps)
            pixels += MAP_PIXEL * kinds * level.map_size**2
        return pixels

    def inputs(
        self,
        field: NDArray[np.uint8],
        cells: NDArray[np.int32] | None = None,
        zoom: float = 1.0,
        pixel: float | None = None,
    ) -> FieldInputs:
        """A field uint8 (4, H, W), and its label map int32 (H, W), -> what the members look at of it.

        A field that is ``zoom`` times wider than those that they know is so many times larger for them, too;
        ``pixel`` is micrometres of its pixels, where they are known.
        """
        sizes = {member.size for member in self.members if member.resizes}
        fields = {size: resize_field(field, max(1, round(size * zoom))) for size in sizes}
        with_maps = [member for member in self.members if isinstance(member, LoadedMember)]
        small_cells = None
        if cells is not None and any(member.pooling is not None for member in with_maps):
            small_cells = resized(cells, (self.map_size, self.map_size))
        small = {member.size: fields[member.size] for member in with_maps}
        if len(with_maps) == len(self.members):
            return FieldInputs(small, small_cells)
        from hpa_kit.inference.crop_members import cut_for

        by_crops = [member for member in self.members if not isinstance(member, LoadedMember)]
        crops = cut_for(by_crops, field, fields, cells, pixel)
        n_cells = len(next(iter(crops.values())).pixels)
        self._cells_seen, self._fields_seen = self._cells_seen + n_cells, self._fields_seen + 1
        return FieldInputs(small, small_cells, crops)

    @property
    def all_have_maps(self) -> bool:
        """Whether no member predicts single cells by crops, of which there are no maps."""
        return all(member.has_maps for member in self.members)

    def refuse_map_rule(self, rule: str) -> None:
        """Find out whether a rule that looks at class maps has any; that some members have none is said.

        Raises:
            InputError: no member gives any.
        """
        if self.all_have_maps:
            return
        if not any(one.has_maps and one.settings.gives_maps for one in self.members):
            raise InputError(
                f"members: rule {rule} looks at class maps, which networks of crops do not give; take one of "
                "logits, such as best, or a member with maps beside"
            )
        log.warning(f"members: rule {rule} looks at class maps: of networks of crops image scores count only")

    def __call__(
        self, fields: Sequence[NDArray[np.uint8]], cells: Sequence[NDArray[np.int32]] | None = None
    ) -> list[FieldMaps]:
        """Fields uint8 (4, H, W) of any sizes, and their label maps, -> their maps, in order.

        Members that learnt from cells score images by the cells; without label maps a field counts as one.
        """
        maps = [None] * len(fields) if cells is None else cells
        return self.predict([self.inputs(field, of) for field, of in zip(fields, maps, strict=True)])

    def predict(self, inputs: Sequence[FieldInputs]) -> list[FieldMaps]:
        """Fields as :meth:`inputs` gives them -> their maps, in order.

        Raises:
            InputError: memory runs out with a single field.
        """
        return self._by_steps(inputs, self._staying(self.level))

    look = predict  # what it was called before

    def predict_apart(
        self, inputs: Sequence[FieldInputs], places: Sequence[Collection[int]]
    ) -> list[dict[int, FieldMaps]]:
        """Ask members each for itself, whatever its mode and weight.

        Args:
            inputs: of fields, as :meth:`inputs` gives them.
            places: of the members that are asked about each field.

        Returns:
            {place: what this member says} of each field, in order.

        Raises:
            InputError: memory runs out with a single field.
        """
        found: list[dict[int, FieldMaps]] = [{} for _ in inputs]
        for place, member in enumerate(self.members):
            mine = [number for number, asked in enumerate(places) if place in asked]
            whole = replace(member, settings=member.settings.model_copy(update={"mode": "both"}))
            said = self._by_steps([inputs[number] for number in mine], [whole])
            for number, maps in zip(mine, said, strict=True):
                found[number][place] = maps
        return found

    def _by_steps(
        self, inputs: Sequence[FieldInputs], members: "Sequence[LoadedMember | CropMember]"
    ) -> list[FieldMaps]:
        """What members say together, so many fields at a time as there is memory for."""
        found: list[FieldMaps] = []
        while len(found) < len(inputs):
            some = _alike(inputs[len(found) : len(found) + self.batch])
            try:
                found += self._together(some, members)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the except block, where the error no longer holds on to the tensors.
            if len(some) == 1:
                raise InputError(
                    f"members: {self.device} has too little memory for one field at "
                    f"{max(member.size for member in members)} px; use fewer views or smaller members"
                )
            self.batch = len(some) // 2
            log.warning(
                f"members: out of memory on {self.device}; going on with {self.batch} fields per step"
            )
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return found

    @torch.inference_mode()
    def _together(
        self, inputs: Sequence[FieldInputs], members: "Sequence[LoadedMember | CropMember]"
    ) -> list[FieldMaps]:
        level, count = self.level, len(inputs)
        sides = {member.size for member in members if isinstance(member, LoadedMember)}
        batches = {side: self._batch([one.fields[side] for one in inputs]) for side in sides}
        maps = [one.cells for one in inputs if one.cells is not None]
        cells = torch.from_numpy(np.stack(maps)).to(self.device) if len(maps) == count else None
        # Of those that tell of cells: by maps, and by crops.
        of_maps, of_crops = (
            sum(one.settings.weight for one in members if one.settings.gives_maps and one.has_maps == maps)
            for maps in (True, False)
        )
        side = level.map_size if of_maps or not of_crops else 0
        scores, cell_logits = _Sum(count, N_CLASSES), _Sum(0, N_CLASSES)
        class_maps, logit_maps = (
            _Sum(count, N_CLASSES, side * wanted, side * wanted)
            for wanted in (self.class_maps, self.logit_maps)
        )
        embedded: list[Tensor] = []
        for member in members:
            weight = member.settings.weight
            if not isinstance(member, LoadedMember):
                of_cells, self.crops_per_step = member.predict_in_steps(
                    inputs, self.device, self.crops_per_step, level.views, self.amp, self.embeddings
                )
                embedded.append(of_cells.embeddings)
                if member.settings.gives_scores:
                    scores.add(of_cells.scores, weight)
                if member.settings.gives_maps:
                    cell_logits.add(of_cells.logits, weight)
                continue
            seen = member.predict(batches[member.size], cells, given_up=level.views, amp=self.amp)
            if member.settings.gives_scores:
                scores.add(seen.scores, weight)
            if member.settings.gives_maps and self.class_maps:
                class_maps.add(resized_maps(seen.class_maps, side, side), weight)
            if member.settings.gives_maps and self.logit_maps:
                logit_maps.add(resized_maps(seen.logit_maps, side, side), weight)
        parts = (part.mean().float().cpu().numpy() for part in (scores, class_maps, logit_maps))
        found = [FieldMaps(*field) for field in zip(*parts, strict=True)]
        if not of_crops:
            return found
        counts = [len(next(iter(one.crops.values())).pixels) for one in inputs]
        logits, *vectors = (
            np.split(values.float().cpu().numpy(), np.cumsum(counts)[:-1])
            for values in (cell_logits.mean(), *(embedded if self.embeddings else ()))
        )
        share = of_crops / (of_crops + of_maps)
        return [
            maps._replace(cell_logits=own, cell_weight=share, embeddings=tuple(of[k] for of in vectors))
            for k, (maps, own) in enumerate(zip(found, logits, strict=True))
        ]

    def _staying(self, level: QualityLevel) -> "list[LoadedMember | CropMember]":
        leaving = self._leaving()[: len(self.members) - level.members]
        return [member for place, member in enumerate(self.members) if place not in leaving]

    def _leaving(self) -> list[int]:
        """Places of the members that can be given up, least weight first, of equal ones the last first."""
        staying, leaving = list(range(len(self.members))), []
        # A rule of class maps needs a member that gives them; any other needs one that tells of cells.
        needed = self.class_maps and any(one.has_maps for one in self.members)
        for place in sorted(staying, key=lambda place: (self.members[place].settings.weight, -place)):
            others = [self.members[other] for other in staying if other != place]
            cells = any(one.settings.gives_maps and (one.has_maps or not needed) for one in others)
            if cells and any(one.settings.gives_scores for one in others):
                staying.remove(place)
                leaving.append(place)
        return leaving

    def _batch(self, fields: Sequence[NDArray[np.uint8]]) -> Tensor:
        batch = torch.from_numpy(np.stack(fields))
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return batch.float().contiguous(memory_format=torch.channels_last)


def _alike(inputs: Sequence[FieldInputs]) -> Sequence[FieldInputs]:
    """The first of some fields that members look at by the same sides; a lab's may cover more or less."""
    sides = [{size: field.shape for size, field in one.fields.items()} for one in inputs]
    return inputs[: next((k for k, one in enumerate(sides) if one != sides[0]), len(inputs))]


class _Sum:
    """A weighted sum that is divided by the weight it was given; zeros where it was given nothing."""

    def __init__(self, *shape: int) -> None:
        self._shape, self._weight = shape, 0.0
        self._total: Tensor | None = None

    def add(self, values: Tensor, weight: float) -> None:
        weighted = values * weight
        self._total = weighted if self._total is None else self._total + weighted
        self._weight += weight

    def mean(self) -> Tensor:
        return torch.zeros(self._shape) if self._total is None else self._total / self._weight


def _with_settings(member: Path | str | MemberSettings, views: Views) -> MemberSettings:
    if isinstance(member, MemberSettings):
        return member
    return MemberSettings(checkpoint=Path(member), views=views)
