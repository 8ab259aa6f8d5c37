"""Who finds the cells: segmenters by name, all with one interface."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

from hpa_kit.cells.classical import ClassicalSegmenter
from hpa_kit.cells.one_or_many import Field, Pair
from hpa_kit.config import nearest
from hpa_kit.devices import pick_device
from hpa_kit.errors import InputError

log = logging.getLogger(__name__)


class Segmenter(Protocol):
    """A field, uint8 (4, H, W) -> nuclei and cells, int32 (H, W); a list of fields -> a list of pairs."""

    @property
    def name(self) -> str:
        """The name by which :func:`segmenter` knows it."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its label maps, to be kept with them; neither paths nor how fast it works."""

    @overload
    def __call__(self, fields: Field) -> Pair: ...
    @overload
    def __call__(self, fields: Sequence[Field]) -> list[Pair]: ...
    def stream(self, fields: Iterable[Field]) -> Iterator[Pair]:
        """Pairs for any number of fields of any sizes, in their order, a few in memory at a time."""


def segmenter_for(name: str, weights: str | Path | None) -> str:
    """The segmenter that a name stands for: ``auto`` is published with weights, classical without."""
    return name if name != "auto" else "classical" if weights is None else "published"


@dataclass(frozen=True)
class _Wanted:
    weights: str | Path | None
    device: str
    batch: int
    workers: int


def segmenter(
    name: str = "auto",
    weights: str | Path | None = None,
    device: str = "cpu",
    batch: int = 4,
    workers: int = 2,
) -> Segmenter:
    """The segmenter of a name.

    Args:
        name: ``classical`` needs no weights; ``published`` runs HPA-Cell-Segmentation's networks and
            ``hpacellseg`` its own package, both with its weights; ``auto`` is published where weights are
            given and classical elsewhere, and the log says which.
        weights: folder of HPA-Cell-Segmentation's weights.
        device: of the networks: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        batch: fields of one size that go through the networks together.
        workers: threads of what is not the networks' work.

    Raises:
        InputError: the name is unknown, or weights or device are needed and missing or unusable.
    """
    if name not in ("auto", *_MAKERS):
        raise InputError(f"segmenter: unknown name {name!r}{nearest(name, ('auto', *_MAKERS))}")
    chosen = segmenter_for(name, weights)
    if name == "auto":
        log.info(
            "segmenter: %s (%s)", chosen, "no weights given" if weights is None else f"weights in {weights}"
        )
    return _MAKERS[chosen](_Wanted(weights, device, batch, workers))


def _classical(wanted: _Wanted) -> Segmenter:
    return ClassicalSegmenter(workers=wanted.workers)


def _published(wanted: _Wanted) -> Segmenter:
    from hpa_kit.cells.published import PublishedSegmenter

    weights = _given(wanted.weights, "published")
    return PublishedSegmenter(weights, pick_device(wanted.device), wanted.batch, wanted.workers)


def _hpacellseg(wanted: _Wanted) -> Segmenter:
    from hpa_kit.cells.original import OriginalSegmenter

    return OriginalSegmenter(_given(wanted.weights, "hpacellseg"), pick_device(wanted.device))


def _given(weights: str | Path | None, name: str) -> str | Path:
    if weights is None:
        raise InputError(
            f"segmenter: {name} needs the folder of HPA-Cell-Segmentation's weights; give it as weights, or "
            "use the segmenter classical"
        )
    return weights


_MAKERS: dict[str, Callable[[_Wanted], Segmenter]] = {
    "classical": _classical,
    "published": _published,
    "hpacellseg": _hpacellseg,
}
