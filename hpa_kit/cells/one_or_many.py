"""What all segmenters share: one field or a list of them, through one stream."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.regions import LabelMap

Field = NDArray[np.uint8]
Pair = tuple[LabelMap, LabelMap]


class OneOrMany(ABC):
    """A segmenter that is called with a field or a list of fields and works through its own ``stream``."""

    @abstractmethod
    def stream(self, fields: Iterable[Field]) -> Iterator[Pair]:
        """Pairs of label maps for any number of fields of any sizes, in their order, a few at a time."""

    @overload
    def __call__(self, fields: Field) -> Pair: ...
    @overload
    def __call__(self, fields: Sequence[Field]) -> list[Pair]: ...
    def __call__(self, fields: Field | Sequence[Field]) -> Pair | list[Pair]:
        """One field uint8 (4, H, W) -> nuclei and cells, int32 (H, W); several -> a list of pairs."""
        if isinstance(fields, np.ndarray) and fields.ndim == 3:
            (pair,) = self.stream([fields])
            return pair
        return list(self.stream(fields))
