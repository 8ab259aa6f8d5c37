"""Segmenters of a user's own: a function of a field, by a name that ``--segmenter`` takes."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from hpa_kit.cells.classical import ClassicalSegmenter
from hpa_kit.cells.regions import relabel
from hpa_kit.cells.segmenters import BUILT_IN, Field, OneOrMany, Pair, check_field
from hpa_kit.config.kinds import SEGMENTER_NAMES
from hpa_kit.errors import InputError

# A field -> its cells, or its nuclei and its cells.
Finds = Callable[[Field], NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]]

_OWN: dict[str, "OwnSegmenter"] = {}


def add_segmenter(name: str, find: Finds, settings: Mapping[str, Any] | None = None) -> None:
    """Add a segmenter of your own: settings, ensembles' YAML and ``--segmenter`` take its name from now on.

    Call it before settings with that name are made. Adding one of your own again replaces it.

    Args:
        name: what to call it.
        find: a field, uint8 (4, H, W), red green blue yellow -> its cells, whole numbers (H, W), 0 where
            there is none; or a pair of nuclei and cells, in which only the cells' numbers count. Nuclei that
            it does not give are found in the blue channel. It is called by one thread for each device.
        settings: what else decides its label maps, as JSON holds it, such as the version of a model: it is
            kept with them, and where it changes they are made again, as where the file changes in which
            ``find`` stands.

    Raises:
        InputError: the kit has one of that name.
    """
    if name in BUILT_IN:
        raise InputError(f"segmenter: {name!r} is one of the kit's own; give yours another name")
    _OWN[name] = OwnSegmenter(name, find, {"segmenter": name, "code": _code(find), **(settings or {})})
    if name not in SEGMENTER_NAMES:
        SEGMENTER_NAMES.append(name)


def own_segmenters(name: str) -> dict[str, "OwnSegmenter"]:
    """Give the segmenter of a name, by it, where it was added here; for :func:`take_segmenters`."""
    return {name: _OWN[name]} if name in _OWN else {}


def take_segmenters(segmenters: Mapping[str, "OwnSegmenter"]) -> None:
    """Add those that were added in another process, with the settings that they have there."""
    _OWN.update(segmenters)
    SEGMENTER_NAMES.extend(name for name in segmenters if name not in SEGMENTER_NAMES)


class OwnSegmenter(OneOrMany):
    """A function that finds cells, as the commands call segmenters.

    Attributes:
        name: by which it was added.
        settings: what decides its label maps, to be kept with them.
    """

    def __init__(self, name: str, find: Finds, settings: dict[str, Any]) -> None:
        self.name, self.settings, self._find = name, settings, find

    def stream(self, fields: Iterable[Field]) -> Iterator[Pair]:
        """Label any number of fields, one after the other."""
        return map(self._segment, fields)

    def _segment(self, field: Field) -> Pair:
        check_field(field)
        found = self._find(field)
        pair = found if isinstance(found, tuple) else (ClassicalSegmenter().find_nuclei(field), found)
        if len(pair) != 2:
            raise InputError(
                f"segmenter {self.name}: gives {len(pair)} arrays; expected cells, or nuclei and cells"
            )
        nuclei, cells = (self._checked(np.asarray(one), field) for one in pair)
        cells = relabel(cells)
        return np.where(nuclei != 0, cells, np.int32(0)), cells

    def _checked(self, labels: NDArray[Any], field: Field) -> NDArray[Any]:
        if labels.shape != field.shape[1:] or labels.dtype.kind not in "bui" or labels.min(initial=0) < 0:
            raise InputError(
                f"segmenter {self.name}: gives {labels.dtype} {labels.shape}; expected whole numbers from 0 "
                f"on, {field.shape[1:]}"
            )
        return labels


def own_segmenter(name: str) -> OwnSegmenter:
    """Give a segmenter that was added by its name.

    Raises:
        InputError: none was.
    """
    if name not in _OWN:
        raise InputError(f"segmenter: {name!r} has not been added here (hpa_kit.cells.add_segmenter)")
    return _OWN[name]


def _code(find: Finds) -> str:
    """A fingerprint of the file in which a function stands; another in each process where it was typed in."""
    module = sys.modules.get(getattr(find, "__module__", ""))
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else uuid4().hex
