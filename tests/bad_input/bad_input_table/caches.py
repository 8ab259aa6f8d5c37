"""Label maps, stores and journals that are damaged."""

import io
import json
import zipfile
import zlib

import numpy as np

from bad_input_table.case import INFER, STORE, Case
from bad_input_table.world import SIDE, World

GROUP = "Caches, stores and label maps"
UNREADABLE = "label maps: …t0.npz cannot be read: "
AGAIN = "; make it again; its cells are found again"


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


def _cut_maps(world: World) -> None:
    path = world["masks"] / "t0.npz"
    path.write_bytes(path.read_bytes()[:-40])


def _saved(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


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


MAPS = _saved(cells=np.zeros((SIDE, SIDE), np.int32))
CASES = (
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
        _maps(_saved(cells=np.zeros((SIDE, SIDE)))),
        INFER,
        "label maps: …t0.npz: cells is float64 (48, 48); expected whole numbers (H, W); its cells are "
        "found again",
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
        UNREADABLE + "it has no cells" + AGAIN,
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
        "label maps that are a folder",
        lambda w: w.write("file", ""),
        INFER.replace("{masks}", "{file}"),
        "masks: …file is no folder; expected one with ID.npz or ID.png files",
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
        _maps(npz({"cells": npy((10_000, 30_000), "|u1", bytes(300_000_000))})),
        INFER,
        UNREADABLE + "cells.npy claims 300000128 bytes; expected … at most" + AGAIN,
        0,
    ),
)
