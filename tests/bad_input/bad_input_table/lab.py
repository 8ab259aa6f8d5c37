"""A lab's images that cannot be used, and what is asked of them that cannot be."""

import json

import numpy as np
import tifffile

from bad_input_table.case import Case
from bad_input_table.world import SIDE, World

GROUP = "A lab's images"
SEGMENT = "segment {folder} --out {out} --segmenter classical --device cpu"
PREDICT = "predict {folder} --members {member} --out {out} --map-size 32 --views none --device cpu"
LOST = "segment: 1 of 1 fields could not be segmented, the others are in …: p1/f; first: fields: "
IMAGE = LOST + "…f.ome.tif (ID p1/f) "
AGAIN = "; download or copy it again"
NAMES = ["tubulin", "protein", "DAPI", "ER"]
PLANES = np.random.default_rng(0).integers(0, 255, (4, SIDE, SIDE), np.uint8)


def _path(world: World):
    path = world["folder"] / "p1" / "f.ome.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _image(planes: np.ndarray = PLANES, axes: str = "CYX", names=NAMES, size: float = 0.0):
    """An OME-TIFF, in a plate of its own."""

    def make(world: World) -> None:
        about = {"axes": axes, "Channel": {"Name": names}} if names else {"axes": axes}
        if size:
            about |= {"PhysicalSizeX": size, "PhysicalSizeY": size}
        tifffile.imwrite(_path(world), planes, ome=True, photometric="minisblack", metadata=about)

    return make


def _bytes(content: bytes):
    return lambda world: _path(world).write_bytes(content)


def _cut(world: World) -> None:
    _image()(world)
    _path(world).write_bytes(_path(world).read_bytes()[:-2000])


def _two_images(world: World) -> None:
    with tifffile.TiffWriter(_path(world), ome=True) as tif:
        for _ in range(2):
            tif.write(PLANES, photometric="minisblack", metadata={"axes": "CYX"})


def _zarr(world: World) -> None:
    folder = world["folder"] / "p1" / "f.zarr"
    folder.mkdir(parents=True)
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [{"axes": ["c", "y", "x"]}]}))


def _nan(world: World) -> None:
    planes = PLANES.astype(np.float32)
    planes[1, 3, 4] = np.nan
    _image(planes)(world)


CASES = (
    Case(GROUP, "an OME-TIFF of 0 bytes", _bytes(b""), SEGMENT, IMAGE + "is empty (0 bytes)" + AGAIN),
    Case(
        GROUP,
        "a web page named tif, in a plate",
        _bytes(b"<!DOCTYPE html><html>Sign in</html>"),
        SEGMENT,
        IMAGE + "is a web page; expected a tif or OME-TIFF",
    ),
    Case(
        GROUP,
        "a tif that says nothing of use",
        _bytes(b"II*\0" + bytes(60)),
        SEGMENT,
        IMAGE + "is damaged: no readable tif (…)" + AGAIN,
    ),
    Case(
        GROUP,
        "a truncated OME-TIFF",
        _cut,
        SEGMENT,
        IMAGE + "is truncated: its end is missing" + AGAIN,
    ),
    Case(
        GROUP,
        "a tif of two images",
        _two_images,
        SEGMENT,
        IMAGE + "holds 2 images; expected one, of one field; save each alone",
    ),
    Case(
        GROUP,
        "channels without names",
        _image(names=None),
        SEGMENT,
        IMAGE + "has no red, green, blue, yellow; found 4 without names; say which is which: "
        "--channels red=…,green=…,blue=…,yellow=…, by place from 0 on or by name",
    ),
    Case(
        GROUP,
        "a channel that was not imaged",
        _image(PLANES[:3], names=NAMES[:3]),
        SEGMENT,
        IMAGE + "has no yellow; found 0 'tubulin', 1 'protein', 2 'DAPI'; say which is which: --channels "
        "red=…,green=…,blue=…,yellow=…, by place from 0 on or by name, or yellow=none where it was not "
        "imaged",
    ),
    Case(
        GROUP,
        "a place that no channel has",
        _image(),
        SEGMENT + " --channels red=0,green=1,blue=2,yellow=4",
        IMAGE + "has no channel 4, which is to be yellow; found 0 'tubulin', 1 'protein', 2 'DAPI', 3 'ER'",
    ),
    Case(
        GROUP,
        "channels in another form",
        _image(),
        SEGMENT + " --channels 0,1,2,3",
        "hpa-kit segment: channels: expected red=PLACE,green=PLACE,blue=PLACE,yellow=PLACE, a place being a "
        "number from 0 on, a name in the image, or none, found '0,1,2,3'",
    ),
    Case(
        GROUP,
        "channels given for the competition's files",
        lambda world: None,
        "segment {data} --out {out} --segmenter classical --device cpu --channels red=0",
        "data: …test holds ID_red.png and so on, whose names say their channels; leave channels out",
    ),
    Case(
        GROUP,
        "planes in depth",
        _image(np.stack([PLANES] * 3, axis=1), "CZYX"),
        SEGMENT,
        IMAGE + "holds 3 planes in depth; expected one; --stack max takes the maximum over them",
    ),
    Case(
        GROUP,
        "points of time",
        _image(np.stack([PLANES] * 3), "TCYX"),
        SEGMENT,
        IMAGE + "holds 3 points of time; expected one; each is a field of its own",
    ),
    Case(
        GROUP,
        "values that are no numbers",
        _nan,
        SEGMENT,
        LOST + "…f.ome.tif (green of ID p1/f) holds values that are no numbers; save it without them",
    ),
    Case(
        GROUP,
        "values beyond 16 bits",
        _image(PLANES.astype(np.uint32) * 2**16),
        SEGMENT,
        LOST
        + "…f.ome.tif (red of ID p1/f) holds values up to 1…e+07; expected 65535 at most, or fractions of 1",
    ),
    Case(
        GROUP,
        "complex values",
        _image(PLANES.astype(np.complex64)),
        SEGMENT,
        IMAGE + "holds complex64 values; expected numbers",
    ),
    Case(
        GROUP,
        "an OME-Zarr that does not say where its planes are",
        _zarr,
        SEGMENT,
        LOST + "…f.zarr (ID p1/f) is damaged: it does not say where its planes are ('datasets')" + AGAIN,
    ),
    Case(
        GROUP,
        "a scale at which a field is no field",
        _image(size=0.08),
        PREDICT,
        "predict: no field of …folder could be used; the first: fields: ID p1/f in …folder covers 4 µm, 0.08 "
        "µm a pixel; networks know 164 µm and take 0.125 to 8 times that; give its pixel_size, 0 to take it "
        "as it is, or other images",
    ),
    Case(
        GROUP,
        "label maps of plates, to be packed",
        _image(),
        SEGMENT + " --pack",
        "segment: label maps of IDs with folders in them, such as p1/…, are not packed; leave pack out",
    ),
    Case(
        GROUP,
        "a table of a kind that is not written",
        _image(),
        "predict {folder} --members {member} --out {out}.xlsx",
        "predict: …out.xlsx cannot be written; expected .csv, .parquet or .h5ad, found .xlsx",
    ),
)
