"""The original HPA-Cell-Segmentation package as a segmenter, where a user has it installed."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.morphology import remove_small_holes, remove_small_objects
from skimage.transform import rescale

from hpa_kit.cells.published import fingerprint
from hpa_kit.cells.segmenters import Field, OneOrMany, Pair, check_field
from hpa_kit.cells.weights import find_weights, load_published_network
from hpa_kit.errors import InputError

_SHIMMED = Lock()


class OriginalSegmenter(OneOrMany):
    """``hpacellseg``'s own code around the published networks, unchanged but for what keeps it from running.

    The package was written for numpy 1, scikit-image 0.18 and torch 1. During a call, and only then, its
    modules see today's libraries through thin stand-ins: ``rescale(multichannel=…)``, ``np.bool``, sizes of
    ``cv2.resize`` in the order that fields other than square need. It gets networks that are loaded already,
    so that it unpickles and downloads nothing. Its cells wrap at 255 per field, and fields below full size
    lose cells to its fixed area limits; the ``published`` segmenter has neither fault.

    Args:
        weights: folder with both weights files.
        device: ``cuda``, ``cpu`` or a torch device.

    Raises:
        InputError: the package is not installed, or a weights file is missing or cannot be used.
    """

    name = "hpacellseg"
    algorithm = 1  # raised when the same networks would give other label maps

    def __init__(self, weights: str | Path, device: str | torch.device = "cpu") -> None:
        try:
            self._networks: ModuleType = importlib.import_module("hpacellseg.cellsegmentator")
            self._labels: ModuleType = importlib.import_module("hpacellseg.utils")
        except ImportError as error:
            raise InputError(
                f"segmenter: hpacellseg cannot be imported ({error}); put its wheel or checkout into the "
                "dataset for Kaggle, `./build_dataset.sh --hpacellseg PATH`, or install it here, "
                "`pip install --no-deps PATH`; or use the segmenter published, which needs its weights only"
            ) from None
        found = find_weights(weights)
        networks = [load_published_network(found[name]) for name in ("nuclei", "cells")]
        self._fingerprint = fingerprint(*networks)
        with self._today():
            self._segmentator = self._networks.CellSegmentator(
                *networks, device=str(device), padding=True, multi_channel_model=True
            )

    @property
    def settings(self) -> dict[str, Any]:
        """What decides its label maps, to be kept with them."""
        return {"segmenter": self.name, "algorithm": self.algorithm, "weights": self._fingerprint}

    def stream(self, fields: Iterable[Field]) -> Iterator[Pair]:
        """Label any number of fields, one after the other."""
        return map(self._segment, fields)

    def _segment(self, field: Field) -> Pair:
        check_field(field)
        red, _, blue, yellow = field
        with self._today():
            nuclei_maps = self._segmentator.pred_nuclei([blue])
            cell_maps = self._segmentator.pred_cells([[red], [yellow], [blue]])
            nuclei, cells = self._labels.label_cell(nuclei_maps[0], cell_maps[0])
        return np.asarray(nuclei, np.int32), np.asarray(cells, np.int32)

    @contextmanager
    def _today(self) -> Iterator[None]:
        """Today's libraries as the package expects them, in its own modules only."""
        # One call at a time: two would put back each other's stand-ins.
        with _SHIMMED, ExitStack() as stack:
            for module, name, stand_in in (
                (self._networks, "transform", _StandIn(self._networks.transform, rescale=_rescale)),
                (self._networks, "cv2", _StandIn(cv2, resize=_resize)),
                (self._labels, "np", _StandIn(np, bool=np.bool_)),
                (self._labels, "remove_small_objects", _by_size(remove_small_objects, "min_size")),
                (self._labels, "remove_small_holes", _by_size(remove_small_holes, "area_threshold")),
            ):
                stack.enter_context(mock.patch.object(module, name, stand_in))
            yield


class _StandIn:
    """A library with some of its names replaced."""

    def __init__(self, library: Any, **names: Any) -> None:
        self.__dict__.update(names)
        self._library = library

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


def _rescale(image: NDArray[Any], scale: float, multichannel: bool) -> NDArray[np.float64]:
    return rescale(image, scale, channel_axis=-1 if multichannel else None)


def _resize(image: NDArray[Any], size: tuple[int, int], **options: Any) -> NDArray[Any]:
    """``cv2.resize`` takes width first; the package gives rows first."""
    return cv2.resize(image, (size[1], size[0]), **options)


def _by_size(function: Callable[..., Any], limit: str) -> Callable[[NDArray[Any], int], NDArray[Any]]:
    """Give a function of scikit-image that removes what is small the limit under its name of today."""
    if "max_size" in inspect.signature(function).parameters:
        return lambda array, smallest: function(array, max_size=smallest - 1)
    return lambda array, smallest: function(array, **{limit: smallest})
