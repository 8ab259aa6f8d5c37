"""What is prepared of a field before the members see it, and what came of it afterwards."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells import FieldCells, resized
from hpa_kit.flow import Failure, attempt
from hpa_kit.scoring import FieldEvidence
from hpa_kit.scoring.inputs import CellPlaces, cell_places

if TYPE_CHECKING:
    from hpa_kit.cells.crops import Crops

T = TypeVar("T")
Field = NDArray[np.uint8]
Size = tuple[int, int]  # height and width in pixels


class FieldInputs(NamedTuple):
    """What members look at of one field.

    Attributes:
        fields: {size of the member: uint8 (4, side, side)}; the side is the size, but for a lab's fields that
            are wider or narrower than those that members know.
        cells: int32 (m, m), its label map, where a member looks at that; None for a field without one.
        crops: crops of its cells, by the keys of the members that look at these.
    """

    fields: Mapping[int, Field]
    cells: NDArray[np.int32] | None = None
    crops: "Mapping[tuple[Any, ...], Crops]" = MappingProxyType({})


class FieldMaps(NamedTuple):
    """What the members say of one field; see :class:`~hpa_kit.scoring.functions.FieldEvidence`.

    Embeddings are float32 (n, 256), of its cells by each network of crops in turn, where they are wanted.
    """

    image_scores: NDArray[np.float32]
    class_maps: NDArray[np.float32]
    logit_maps: NDArray[np.float32]
    cell_logits: NDArray[np.float32] | None = None
    cell_weight: float = 0.0
    embeddings: tuple[NDArray[np.float32], ...] = ()


# Of one field: what the members say together, what each says by its place, or why there is nothing.
Said = FieldMaps | dict[int, FieldMaps] | Failure
GREEN = 1


@dataclass(frozen=True)
class PreparedField:
    """What inference needs of a field; small, as nothing of its full size is kept.

    Attributes:
        id: the field's ID.
        size: its height and width in pixels.
        inputs: what the members look at.
        cells, nuclei: int32 (m, m), the label maps at the class maps' scale.
        green: float32 (m, m), 0 to 255.
        places: of its cells at full size.
        details: what was made of the full size for the caller, such as mask strings.
        made: whether its cells had to be found.
    """

    id: str
    size: Size
    inputs: FieldInputs
    cells: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    green: NDArray[np.float32]
    places: CellPlaces
    details: Any
    made: bool

    @property
    def n_cells(self) -> int:
        """How many cells it has."""
        return len(self.places.area)

    def evidence(self, says: FieldMaps) -> FieldEvidence:
        """What a scoring function may look at, where the members say this."""
        return FieldEvidence(
            image_scores=says.image_scores,
            class_maps=says.class_maps,
            logit_maps=says.logit_maps,
            cell_logits=says.cell_logits,
            cell_weight=says.cell_weight,
            cells=self.cells,
            nuclei=self.nuclei,
            green=self.green,
            n_cells=self.n_cells,
            places=self.places,
        )


class Made(NamedTuple):
    """What was made of a prediction, as it is kept.

    Attributes:
        id: the field's ID.
        result: any text or bytes, or why there is none.
        facts: what else is known of the field, as JSON holds it.
    """

    id: str
    result: str | bytes | Failure
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Prediction:
    """What came of a field.

    Attributes:
        id: the field's ID.
        field: what was prepared of it.
        says: what the members say of it together.
        each: {place: what this member says}, where members were asked each for itself.
        failure: why there is nothing; then all of the above is empty.
        seconds: that it took by part; parts overlap.
    """

    id: str
    field: PreparedField | None = None
    says: FieldMaps | None = None
    each: Mapping[int, FieldMaps] = dataclasses.field(default_factory=dict)
    failure: Failure | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, field: PreparedField, said: Said, seconds: Mapping[str, float]) -> "Prediction":
        """What came of a field that was prepared."""
        if isinstance(said, Failure):
            return cls(field.id, failure=said)
        if isinstance(said, FieldMaps):
            return cls(field.id, field, said, seconds=seconds)
        return cls(field.id, field, each=said, seconds=seconds)

    def result(self, function: Callable[..., T], *arguments: object) -> T | Failure:
        """What a function makes of this prediction, or why there is nothing."""
        return attempt(function, self, *arguments) if self.failure is None else self.failure

    def made(self, result: str | bytes | Failure, scoring: float, **facts: object) -> Made:
        """Tell what was made of this prediction, with what is kept beside it.

        Args:
            result: any text or bytes, or why there is none.
            scoring: seconds that it took.
            facts: what else is known of the field, as JSON holds it.
        """
        if isinstance(result, Failure):
            return Made(self.id, result, {})
        field = self.prepared
        known = {"made": field.made, "actual": field.size, "cells": field.n_cells}
        return Made(self.id, result, known | {"seconds": {**self.seconds, "scoring": scoring}} | facts)

    @property
    def prepared(self) -> PreparedField:
        """The field of a prediction that did not fail."""
        assert self.field is not None, self.failure
        return self.field

    @property
    def evidence(self) -> FieldEvidence:
        """What a scoring function may look at, of a prediction that did not fail."""
        assert self.says is not None, self.failure
        return self.prepared.evidence(self.says)


def prepare(
    id: str, found: FieldCells, map_size: int, inputs: FieldInputs | None = None, details: Any = None
) -> PreparedField:
    """Make a field small: label maps and green at the maps' scale, a square whatever it is.

    Args:
        id: the field's ID.
        found: the field with its label maps.
        map_size: side of the members' maps.
        inputs: what the members look at of it.
        details: what else is kept of its full size.
    """
    shape = (map_size, map_size)
    green = cv2.resize(found.field[GREEN].astype(np.float32), shape, interpolation=cv2.INTER_LINEAR)
    return PreparedField(
        id=id,
        size=(found.field.shape[1], found.field.shape[2]),
        inputs=inputs or FieldInputs({}),
        cells=resized(found.maps.cells, shape),
        nuclei=resized(found.maps.nuclei, shape),
        green=np.asarray(green),
        places=cell_places(found.maps.cells),
        details=details,
        made=found.made,
    )
