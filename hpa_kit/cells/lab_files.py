"""The cells of a field as files that other programs take: label maps as OME-TIFF, outlines as GeoJSON.

They lie beside the label maps: ``ID.labels.ome.tif``, ``ID.outlines.geojson``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import numpy as np

from hpa_kit.cells.label_maps import LabelMaps
from hpa_kit.cells.outlines import Polygon, outlines
from hpa_kit.classes import CLASSES
from hpa_kit.config.kinds import Also
from hpa_kit.files import atomic_path, atomic_text

ENDINGS: Mapping[Also, str] = {"ome-tiff": ".labels.ome.tif", "geojson": ".outlines.geojson"}
# Of names of this kit's cells: the same cell has the same one each time, as QuPath wants it.
_OURS = UUID("8a3f2c0e-5c1d-4a57-9a0e-2f4b7c1d6e90")


class Outlines(NamedTuple):
    """Outlines of a field's cells and of their nuclei, in the order of their numbers."""

    cells: list[list[Polygon]]
    nuclei: list[list[Polygon]]


def lab_file(folder: Path, id: str, kind: Also) -> Path:
    """Where a field's file of a kind lies in a folder of label maps."""
    return folder / f"{id}{ENDINGS[kind]}"


def lacks_lab_files(folder: Path, id: str, also: Sequence[Also]) -> bool:
    """Whether one of a field's files is not there."""
    return not all(lab_file(folder, id, kind).is_file() for kind in also)


def write_ome_labels(path: Path, maps: LabelMaps, pixel_size: float | None = None) -> None:
    """Write label maps as an OME-TIFF, atomically.

    Args:
        path: the file.
        maps: nuclei and cells, int32 (H, W).
        pixel_size: micrometres of a pixel, where it is known.

    The file has two channels, ``cells`` and ``nuclei``, uint16, or uint32 where a number needs it, deflated
    without loss.
    """
    import tifffile

    dtype = np.uint16 if maps.cells.max(initial=0) < 2**16 else np.uint32
    about: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": ["cells", "nuclei"]}}
    if pixel_size is not None:
        for axis in "XY":
            about |= {f"PhysicalSize{axis}": pixel_size, f"PhysicalSize{axis}Unit": "µm"}
    planes = np.stack([maps.cells, maps.nuclei]).astype(dtype)
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary, planes, ome=True, photometric="minisblack", compression="zlib", metadata=about
        )


def outlines_of(maps: LabelMaps) -> Outlines:
    """Draw around the cells of a field and their nuclei."""
    nuclei = outlines(maps.nuclei)
    return Outlines(outlines(maps.cells), nuclei + [[]] * (int(maps.cells.max(initial=0)) - len(nuclei)))


def write_geojson(
    path: Path, id: str, shapes: Outlines, measurements: Sequence[Mapping[str, float]] | None = None
) -> None:
    """Write outlines of cells as GeoJSON, RFC 7946, atomically: a collection of features, one for each cell.

    Coordinates are x and y in pixels, (0, 0) being the upper left corner of the field, y downwards. As QuPath
    has it, a feature is an object ``cell`` with its number for a name, its nucleus in ``nucleusGeometry``,
    and measurements; where these hold scores of location classes it is classified as the highest, in the
    colour that the kit gives the class.

    Args:
        path: the file.
        id: the field's.
        shapes: see :func:`outlines_of`.
        measurements: of each cell by name; None for none.
    """
    features = []
    for number, (cell, nucleus) in enumerate(zip(shapes.cells, shapes.nuclei, strict=True), start=1):
        if not cell:
            continue
        feature: dict[str, Any] = {
            "type": "Feature",
            "id": str(uuid5(_OURS, f"{id}:{number}")),
            "geometry": _geometry(cell),
        }
        if nucleus:
            feature["nucleusGeometry"] = _geometry(nucleus)
        own = {} if measurements is None else measurements[number - 1]
        properties: dict[str, Any] = {"objectType": "cell", "name": str(number)}
        scores = [(own[one.name], one) for one in CLASSES if one.name in own]
        if scores:
            best = max(scores, key=lambda pair: pair[0])[1]
            colour = [int(best.colour[place : place + 2], 16) for place in (1, 3, 5)]
            properties["classification"] = {"name": best.name, "color": colour}
        if own:
            properties["measurements"] = dict(own)
        features.append(feature | {"properties": properties})
    atomic_text(path, json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":")))


def _geometry(pieces: Sequence[Polygon]) -> dict[str, Any]:
    coordinates = [[ring.tolist() for ring in piece] for piece in pieces]
    if len(coordinates) == 1:
        return {"type": "Polygon", "coordinates": coordinates[0]}
    return {"type": "MultiPolygon", "coordinates": coordinates}
