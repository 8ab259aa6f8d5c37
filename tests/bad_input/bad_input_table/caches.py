"""Label maps, stores and journals that are damaged."""

import io
import json
import shutil
import zipfile
import zlib

import cv2
import numpy as np

from bad_input_table.case import INFER, SEGMENT, STORE, Case, nothing
from bad_input_table.world import SIDE, World, cells

GROUP = "Caches, stores and label maps"
UNREADABLE = "label maps: …t0.npz cannot be read: "
FOUND = "; its cells are found again"
WHOLE = "expected a whole zip archive of stored or deflated files; copy or make it again"
AGAIN = "; make it again" + FOUND
NAMES = "expected ID.npz, .png, .npy or .tif, or cellpose's ID_cp_masks.png"
NUMBERS = "expected whole numbers (H, W), that of its cell in each pixel, 0 where there is none"
NOT_OURS = "and hpa-kit did not write it; it is not overwritten: name another folder for label maps"
TUNE = (
    "tune {data} --members {member} --split test --truth {truth} --masks {masks} --out {folder}/a.yaml "
    "--views none --map-size 32 --device cpu --cache "
)
PICKLED = "; of cellpose's pickled _seg.npy nothing is read: have it save masks as png or tif"


def npz(arrays: dict[str, bytes]) -> bytes:
    """A zip of npy members, as they are."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(shape: tuple[int, ...], dtype: str, content: bytes = b"") -> bytes:
    """An array that claims a shape, whatever it holds."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def _maps(content: bytes, ending: str = ".npz"):
    def make(world: World) -> None:
        (world["masks"] / "t0.npz").unlink()
        (world["masks"] / f"t0{ending}").write_bytes(content)

    return make


def _bomb(world: World) -> None:
    _maps(npz({"cells": npy((10_000, 30_000), "|u1", bytes(300_000_000))}))(world)


def _cut_maps(world: World) -> None:
    path = world["masks"] / "t0.npz"
    path.write_bytes(path.read_bytes()[:-40])


def _packed(damage):
    """The label maps of all fields in an archive whose bytes are damaged."""

    def make(world: World) -> None:
        path = world["masks"] / "all.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(world["masks"].glob("*.npz")):
                archive.write(file, file.name)
                file.unlink()
        path.write_bytes(damage(path.read_bytes()))

    return make


def _other_letter(content: bytes) -> bytes:
    """Another letter in the label map of t0."""
    at = content.rindex(b"cells.npy", 0, content.index(b"t1.npz"))
    return content[:at] + b"calls" + content[at + 5 :]


def _saved(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _encoded(ending: str, image: np.ndarray) -> bytes:
    return cv2.imencode(ending, image.astype(np.uint8))[1].tobytes()


def _stored(content: bytes):
    """A store whose field f0 is this."""

    def make(world: World) -> None:
        folder = world["out"] / "32"
        folder.mkdir(parents=True)
        (folder / "f0.field").write_bytes(content)

    return make


def _kept_bomb(world: World) -> None:
    """A stored field, its checksum and images right, that unpacks to 100 MB."""
    from hpa_kit.data.kept_fields import VERSION, origins

    packed = zlib.compress(bytes(100_000_000), 1)
    about = {
        "version": VERSION, "size": 32, "packing": "zlib", "bytes": len(packed),
        "checksum": zlib.crc32(packed), "images": origins(world["train"], "f0", 4),
    }  # fmt: skip
    _stored(b"hpa_kit field\n" + json.dumps(about).encode() + b"\n" + packed)(world)


def _only_pickled(world: World) -> None:
    for path in world["masks"].iterdir():
        path.unlink()
    (world["masks"] / "t0_seg.npy").write_bytes(b"")


def _others_named_as_fields(*parts: str):
    """An npz file of something else under the name of the field f0, or t0."""

    def make(world: World) -> None:
        folder = world["out"].joinpath(*parts)
        folder.mkdir(parents=True)
        for id in ("f0", "t0"):
            (folder / f"{id}.npz").write_bytes(_saved(features=np.zeros((2, 3))))

    return make


def _masks_of_evidence(world: World) -> None:
    """In the place of the label map of t0, evidence of tune."""
    (world["masks"] / "t0.npz").write_bytes(_saved(image_scores=np.zeros(19), logits=np.zeros((2, 19))))


def _label_maps_in_the_cache(world: World) -> None:
    world["out"].mkdir()
    shutil.copy(world["masks"] / "t0.npz", world["out"] / "t0.npz")


CASES = (
    Case(
        GROUP,
        "label maps in the cache of tune",
        _label_maps_in_the_cache,
        TUNE + "{out}",
        "cache: …t0.npz holds info, cells, nuclei, expected evidence of hpa-kit tune; it is not overwritten: "
        "give --cache a folder of its own",
    ),
    Case(
        GROUP,
        "a cache of tune that is a file",
        nothing,
        TUNE + "{features}",
        "cache: …features.npz is a file; expected a folder for evidence of hpa-kit tune",
    ),
    Case(
        GROUP,
        "label maps where features are to go",
        nothing,
        "features {data} --member {member} --out {masks}/t0.npz --device cpu",
        "features: …t0.npz holds info, cells, nuclei; expected a file of hpa-kit features",
    ),
    Case(
        GROUP,
        "evidence of tune in the place of label maps",
        _masks_of_evidence,
        INFER,
        UNREADABLE + "it has no cells, but image_scores, logits; expected cells and, where there are any, "
        "nuclei" + FOUND,
        0,
    ),
    Case(
        GROUP,
        "npz files of others where segment is to write",
        _others_named_as_fields(),
        SEGMENT,
        "segment: …f0.npz holds features, " + NOT_OURS,
    ),
    Case(
        GROUP,
        "npz files of others where predict is to write",
        _others_named_as_fields(),
        "predict {test} --members {member} --label-maps {out} --out {folder}/a.csv --views none "
        "--map-size 32 --device cpu",
        "predict: …t0.npz holds features, " + NOT_OURS,
    ),
    Case(
        GROUP,
        "masks of others where pseudo-labels is to write",
        _others_named_as_fields("masks"),
        "pseudo-labels {data} --members {member} --out {out} --views none --map-size 32 --device cpu",
        "out: …masks holds files that no run of pseudo-labels wrote; give another --out",
    ),
    Case(
        GROUP,
        "label maps of 0 bytes",
        _maps(b""),
        INFER,
        UNREADABLE + "no npz file (0 bytes)" + AGAIN,
        0,
    ),
    Case(GROUP, "truncated label maps", _cut_maps, INFER, UNREADABLE + "no npz file (…)" + AGAIN, 0),
    Case(
        GROUP,
        "label maps of another size",
        _maps(_saved(cells=np.zeros((9, 9), np.int32))),
        INFER,
        "label maps: …t0.npz is 9 x 9 pixels, its field 48 x 48; make it again; its cells are found again",
        0,
    ),
    Case(
        GROUP,
        "label maps of fractions",
        _maps(_saved(cells=np.full((SIDE, SIDE), 0.5))),
        INFER,
        "label maps: …t0.npz: cells holds 0.5; " + NUMBERS + FOUND,
        0,
    ),
    Case(
        GROUP,
        "negative cell numbers",
        _maps(_saved(cells=np.full((SIDE, SIDE), -1))),
        INFER,
        "label maps: …t0.npz: cells holds -1; expected 0 and above; its cells are found again",
        0,
    ),
    Case(
        GROUP,
        "label maps without cells",
        _maps(_saved(nuclei=np.zeros((SIDE, SIDE), np.int32))),
        INFER,
        UNREADABLE + "it has no cells, but nuclei; expected cells and, where there are any, nuclei" + FOUND,
        0,
    ),
    Case(
        GROUP,
        "label maps that are pickled objects",
        _maps(_saved(cells=np.array([{}], object))),
        INFER,
        UNREADABLE + "Object arrays cannot be loaded…" + AGAIN,
        0,
    ),
    Case(
        GROUP,
        "label maps that claim 100,000 x 100,000 pixels",
        _maps(npz({"cells": npy((100_000, 100_000), "<i8")})),
        INFER,
        UNREADABLE + "cells.npy claims 80000000000 bytes, holds 0" + AGAIN,
        0,
    ),
    Case(
        GROUP,
        "label maps that claim to be colours",
        _maps(b"\x89PNG\r\n\x1a\n" + bytes(40), ".png"),
        INFER,
        "label maps: …t0.png is truncated or damaged inside its header; download or copy it again; its "
        "cells are found again",
        0,
    ),
    Case(
        GROUP,
        "label maps in colours",
        _maps(_encoded(".png", np.dstack([cells(), cells() * 2, cells()])), ".png"),
        INFER,
        "label maps: …t0.png is uint8 (48, 48, 3); " + NUMBERS + FOUND,
        0,
    ),
    Case(
        GROUP,
        "a jpg of cells",
        _maps(_encoded(".jpg", cells()), ".png"),
        INFER,
        "label maps: …t0.png is a jpg, which changes the numbers of cells; save it as png or tif" + FOUND,
        0,
    ),
    Case(
        GROUP,
        "a mask that does not tell cells apart",
        _maps(_encoded(".png", (cells() > 0) * 255), ".png"),
        INFER,
        "masks: 1 files of …masks hold one value alone, in 4 pieces: each piece became a cell; " + NUMBERS,
        0,
    ),
    Case(
        GROUP,
        "cellpose's pickled _seg.npy beside label maps",
        _maps(b"", "_seg.npy"),
        INFER,
        "label maps: …masks has none of ID t0, but t0_seg.npy; " + NAMES + PICKLED + FOUND,
        0,
    ),
    Case(
        GROUP,
        "several label maps of one field",
        lambda w: (w["masks"] / "t0.png").write_bytes(b""),
        INFER,
        "masks: …masks holds several label maps of 1 fields, such as t0.npz, t0.png, of which t0.npz counts",
        0,
    ),
    Case(
        GROUP,
        "an archive of label maps that breaks off",
        _packed(lambda content: content[:-50]),
        INFER,
        "archive: …all.zip cannot be read: it breaks off (… bytes); " + WHOLE,
    ),
    Case(
        GROUP,
        "a damaged label map in an archive",
        _packed(_other_letter),
        INFER,
        "archive: …all.zip/t0.npz cannot be read: its bytes are not those that were packed; " + WHOLE + FOUND,
        0,
    ),
    Case(
        GROUP,
        "a folder of masks without any label map",
        _only_pickled,
        INFER,
        "masks: …masks holds no label map, but t0_seg.npy; " + NAMES,
    ),
    Case(
        GROUP,
        "label maps that are a folder",
        lambda w: w.write("file", ""),
        INFER.replace("{masks}", "{file}"),
        "masks: …file is no folder; " + NAMES,
    ),
    Case(
        GROUP,
        "a stored field of 0 bytes is made again",
        _stored(b""),
        STORE,
        "store: …f0.field was not written by this version, or is damaged; made again",
        0,
    ),
    Case(
        GROUP,
        "a stored field of another program is made again",
        _stored(b"something else\n" * 9),
        STORE,
        "store: …f0.field was not written by this version, or is damaged; made again",
        0,
    ),
    Case(
        GROUP,
        "a stored field that unpacks to 100 MB is made again",
        _kept_bomb,
        STORE,
        "store: …f0.field cannot be read: …; made again",
        0,
    ),
    Case(
        GROUP,
        "a journal of other settings is passed over",
        lambda w: (w.root / ".out.partial").write_bytes(b"\0" * 100),
        INFER,
        "…out.partial holds results of other settings; starting anew",
        0,
    ),
    Case(
        GROUP,
        "label maps that unpack to 300 MB",
        _bomb,
        INFER,
        UNREADABLE + "cells.npy claims 300000128 bytes, uint8 (10000, 30000); expected … at most" + AGAIN,
        0,
    ),
)
