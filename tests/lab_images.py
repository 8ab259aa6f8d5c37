"""Images as labs have them, for tests to read: OME-TIFF, OME-Zarr of both layouts, plain tif."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

NAMES = ("Microtubules", "protein", "DAPI", "Calnexin ER")  # red, green, blue, yellow


def write_ome(
    path: Path,
    planes: NDArray[Any],
    names: tuple[str, ...] = NAMES,
    pixel_size: float | None = None,
    axes: str = "CYX",
    **options: Any,
) -> None:
    """Write an OME-TIFF whose channels bear names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"axes": axes, "Channel": {"Name": list(names)}}
    if pixel_size is not None:
        for axis in "XY":
            about |= {f"PhysicalSize{axis}": pixel_size, f"PhysicalSize{axis}Unit": "µm"}
    options = {"photometric": "minisblack", **options}
    tifffile.imwrite(path, planes, ome=True, metadata=about, **options)


def write_zarr(
    path: Path,
    planes: NDArray[Any],
    layout: int = 3,
    names: tuple[str, ...] = NAMES,
    pixel_size: float | None = None,
) -> None:
    """Write an OME-Zarr image (C, Y, X) of zarr's layout 2 or 3, with a level of half the size."""
    zarr = pytest.importorskip("zarr", reason="zarr is not installed: pip install 'hpa-kit[lab]'")
    if int(zarr.__version__.partition(".")[0]) < layout:
        pytest.skip(f"zarr {zarr.__version__} does not write layout {layout}")
    group = zarr.open_group(str(path), mode="w", zarr_format=layout)
    levels = []
    for level, scale in (("0", 1), ("1", 2)):
        small = planes[:, ::scale, ::scale]
        chunks = (1, -(-small.shape[1] // 2), small.shape[2])
        group.create_array(level, shape=small.shape, chunks=chunks, dtype=small.dtype)[:] = small
        size = (pixel_size or 1) * scale
        levels.append(
            {"path": level, "coordinateTransformations": [{"type": "scale", "scale": [1, size, size]}]}
        )
    unit = {} if pixel_size is None else {"unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, *({"name": one, "type": "space", **unit} for one in "yx")]
    about = {
        "multiscales": [{"axes": axes, "datasets": levels}],
        "omero": {"channels": [{"label": name} for name in names]},
    }
    group.attrs.update(about if layout == 2 else {"ome": {"version": "0.5", **about}})


def made_up(height: int = 24, width: int = 40, seed: int = 0) -> NDArray[np.uint8]:
    """Four channels of noise, red, green, blue and yellow."""
    return np.random.default_rng(seed).integers(0, 256, (4, height, width), np.uint8)
