"""OME-Zarr images, of the layouts of zarr 2 and 3: which folder is one, and what it holds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpa_kit.data.images import AGAIN
from hpa_kit.data.lab_images import (
    LAB,
    UNITS,
    LabImage,
    LabInfo,
    as_channels,
    index_of,
    lengths_of,
    square,
)
from hpa_kit.errors import InputError, one_line

ZARR_ENDINGS = (".ome.zarr", ".zarr")


def zarr_kind(folder: Path) -> str:
    """Tell what an OME-Zarr folder is: ``image``, ``group`` of images such as a plate or well, or nothing."""
    if not any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        return ""
    return "image" if "multiscales" in _attributes(folder) else "group"


def _attributes(folder: Path) -> Mapping[str, Any]:
    """What OME says of a group, of layouts of zarr 2 and 3; nothing where that cannot be read."""
    for name in ("zarr.json", ".zattrs"):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        own = content.get("attributes", {}) if name == "zarr.json" and isinstance(content, dict) else content
        found = own.get("ome", own) if isinstance(own, dict) else None
        if isinstance(found, dict):
            return found
    return {}


def zarr_image(path: Path, where: str) -> LabImage:
    """Open an OME-Zarr image; see :func:`~hpa_kit.data.lab_images.open_lab_image`.

    Raises:
        InputError: it is damaged, or zarr is not installed.
    """
    try:
        about = _attributes(path)["multiscales"][0]
        level = about["datasets"][0]
        place = (path / str(level["path"])).resolve()
        if not place.is_relative_to(path.resolve()):
            raise ValueError(f"its planes are in {level['path']}")
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{where} is damaged: it does not say where its planes are ({one_line(error)}); {AGAIN}"
        ) from None
    try:
        import zarr
    except ImportError:
        raise InputError(f"{where} is OME-Zarr, which zarr reads; it is missing: {LAB}") from None
    try:
        stored: Any = zarr.open_array(str(place), mode="r")
        shape = tuple(int(side) for side in stored.shape)
        axes = _zarr_axes(about, len(shape))
        lengths = lengths_of(axes, shape, where)
        names = _zarr_names(_attributes(path), lengths.get("C", 1))
        pixel_size = _zarr_pixel(about, level, axes)
    except InputError:
        raise
    except Exception as error:  # zarr raises many kinds on damaged folders; all mean the same here
        raise InputError(f"{where} is damaged: no readable OME-Zarr ({one_line(error)}); {AGAIN}") from None
    info = LabInfo(
        *(lengths["Y"], lengths["X"], str(stored.dtype), lengths.get("C", 1), names, pixel_size),
        *(lengths.get("Z", 1), lengths.get("T", 1)),
    )

    def plane(channel: int, depth: int) -> NDArray[Any]:
        try:
            return np.asarray(stored[index_of(as_channels(axes, shape), channel, depth)])
        except Exception as error:
            raise InputError(f"{where} is damaged: {one_line(error)}; {AGAIN}") from None

    return LabImage(info, plane)


def _zarr_axes(about: Mapping[str, Any], n: int) -> str:
    """The axes of an image, a letter each; versions that do not name them have all five."""
    named = about.get("axes") or list("tczyx")[-n:]
    return "".join(str(one["name"] if isinstance(one, dict) else one)[:1].upper() for one in named)


def _zarr_names(attributes: Mapping[str, Any], n: int) -> tuple[str, ...]:
    channels = (attributes.get("omero") or {}).get("channels") or []
    names = tuple(str(one.get("label") or "") for one in channels)
    return names if len(names) == n and any(names) else ()


def _zarr_pixel(about: Mapping[str, Any], level: Mapping[str, Any], axes: str) -> float | None:
    """Micrometres of a pixel: the scales of the image and of its level, in the units of the axes."""
    scale = np.ones(len(axes))
    steps = [*(about.get("coordinateTransformations") or []), *(level.get("coordinateTransformations") or [])]
    scales = [step["scale"] for step in steps if step.get("type") == "scale"]
    for one in scales:
        scale = scale * np.asarray(one, float)
    named = [one for one in about.get("axes") or [] if isinstance(one, dict)]
    units = {str(one["name"])[:1].upper(): UNITS.get(str(one.get("unit", "")), 0.0) for one in named}
    return square([scale[axes.index(axis)] * units.get(axis, 0.0) for axis in "XY"]) if scales else None
