"""Where the cells of a field are."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpa_kit.cells.classical import ClassicalSegmenter
    from hpa_kit.cells.dpn_unet import DPNUnet
    from hpa_kit.cells.kept import FieldCells, kept_or_made
    from hpa_kit.cells.label_maps import LabelMaps, write_label_maps
    from hpa_kit.cells.label_step import label_cells
    from hpa_kit.cells.mask_folder import (
        MaskFolder,
        has_label_maps,
        label_map_ids,
        read_cells,
        read_label_maps,
    )
    from hpa_kit.cells.regions import resized
    from hpa_kit.cells.segmenters import segmenter
    from hpa_kit.cells.weights import load_published_network

# Imported when first asked for: torch and numba take seconds, and reading label maps needs no network.
_HOME = {
    "ClassicalSegmenter": "classical",
    "DPNUnet": "dpn_unet",
    "FieldCells": "kept",
    "LabelMaps": "label_maps",
    "MaskFolder": "mask_folder",
    "has_label_maps": "mask_folder",
    "kept_or_made": "kept",
    "label_cells": "label_step",
    "label_map_ids": "mask_folder",
    "load_published_network": "weights",
    "read_cells": "mask_folder",
    "read_label_maps": "mask_folder",
    "resized": "regions",
    "segmenter": "segmenters",
    "write_label_maps": "label_maps",
}

__all__ = [
    "ClassicalSegmenter",
    "DPNUnet",
    "FieldCells",
    "LabelMaps",
    "MaskFolder",
    "has_label_maps",
    "kept_or_made",
    "label_cells",
    "label_map_ids",
    "load_published_network",
    "read_cells",
    "read_label_maps",
    "resized",
    "segmenter",
    "write_label_maps",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"hpa_kit.cells.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
