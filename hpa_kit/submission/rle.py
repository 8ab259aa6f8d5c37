"""Mask strings: base64 of zlib of COCO's compressed run lengths, as the competition wants them."""

import base64
import binascii
import itertools
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpa_kit.errors import InputError
from hpa_kit.submission.runs import COUNT_FAULTS, Runs, decode_counts, encode_counts, fill_runs

_MAX_PIXELS = 2**31


def encode_label_map(label_map: ArrayLike) -> dict[int, str]:
    """Encode the masks of all cells of a label map, in one pass over its pixels.

    Args:
        label_map: (H, W), any integer dtype or bool, any memory order; 0 is background, every other number
            a cell. Numbers may have gaps and may be huge.

    Returns:
        {cell number: mask string}, rising; empty where there is no cell. The strings are those of
        pycocotools' ``encode``, zlib level 9 and base64.

    Raises:
        InputError: not two dimensions, not integers, or a negative number.
    """
    labels = np.asarray(label_map)
    if labels.ndim != 2:
        raise InputError(
            f"label map: expected two dimensions (H, W), found shape {labels.shape}; pass one field"
        )
    if labels.dtype.kind not in "biu":
        raise InputError(
            f"label map: expected integers or bool, found {labels.dtype}; convert it with astype(np.int32)"
        )
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    if labels.size == 0:
        return {}
    starts, values = _label_changes(labels)
    if values.min() < 0:
        raise InputError(
            f"label map: cell number {values.min()} is negative; expected 0 for background, then 1 to n"
        )
    ends = np.append(starts[1:], labels.size)
    order = np.argsort(values, kind="stable")
    order = order[np.searchsorted(values[order], 0, side="right") :]
    cells, first = np.unique(values[order], return_index=True)
    runs = Runs(starts[order], ends[order], np.append(first, len(order)).astype(np.int64))
    return dict(zip(cells.tolist(), _pack(runs, labels.size), strict=True))


def encode_mask(mask: ArrayLike) -> str:
    """Encode one mask.

    Args:
        mask: (H, W) bool, or integers of which everything but 0 is foreground; any memory order. Empty masks
            are legal.

    Raises:
        InputError: not two dimensions, no pixels, or not bool or integers.
    """
    foreground = np.asarray(mask)
    if foreground.dtype.kind not in "biu":
        raise InputError(
            f"mask: expected bool or integers, found {foreground.dtype}; compare it with a threshold first"
        )
    if foreground.size == 0:
        raise InputError(f"mask: shape {foreground.shape} has no pixels")
    strings = encode_label_map(foreground != 0)
    if strings:
        return strings[1]
    nothing = np.zeros(0, np.int64)
    return _pack(Runs(nothing, nothing, np.zeros(2, np.int64)), foreground.size)[0]


def decode_mask(string: str | bytes, height: int, width: int) -> NDArray[np.bool_]:
    """Read one mask string.

    Args:
        string: as `encode_mask` gives it, str or bytes.
        height: rows of the field in pixels.
        width: columns of the field in pixels.

    Returns:
        bool (height, width), column-major in memory.

    Raises:
        InputError: not base64, not zlib, damaged runs, or runs of another size than height × width.
    """
    runs, faults = mask_runs([string], height, width)
    if faults[0]:
        raise InputError(
            f"mask string {_short(string)}: {faults[0]}; expected a mask of {height} x {width} pixels"
        )
    flat = np.zeros(int(height) * int(width), dtype=bool)
    fill_runs(runs.starts, runs.ends, flat)
    return flat.reshape(int(width), int(height)).T


def mask_runs(strings: Sequence[str | bytes], height: int, width: int) -> tuple[Runs, list[str]]:
    """Decode several mask strings of one field into runs, and tell what is wrong with each.

    Args:
        strings: n mask strings.
        height: rows of the field in pixels.
        width: columns of the field in pixels.

    Returns:
        The runs, none for a damaged string, and n texts: empty, or what is wrong.

    Raises:
        InputError: a height or width that no field has.
    """
    pixels = _pixels(height, width)
    counts, faults = [], []
    for string in strings:
        try:
            counts.append(_unpack(string, pixels))
            faults.append("")
        except _DamagedMaskError as error:
            counts.append(b"")
            faults.append(str(error))
    bounds = np.cumsum([0, *map(len, counts)], dtype=np.int64)
    room = int(bounds[-1]) // 2
    runs = Runs(np.empty(room, np.int64), np.empty(room, np.int64), np.zeros(len(bounds), np.int64))
    codes = np.zeros(len(counts), np.int64)
    decode_counts(np.frombuffer(b"".join(counts), np.uint8), bounds, pixels, runs, codes)
    used = runs.offsets[-1]
    faults = [fault or COUNT_FAULTS[code] for fault, code in zip(faults, codes.tolist(), strict=True)]
    return Runs(runs.starts[:used].copy(), runs.ends[:used].copy(), runs.offsets), faults


def _label_changes(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.integer]]:
    """Column-major pixel numbers where a run of one label starts, and those labels."""
    height, width = labels.shape
    if labels.flags.f_contiguous:
        flat = labels.T.reshape(-1)
        starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
        return starts.astype(np.int64), flat[starts]
    # Rows are compared with rows, which is how memory lies; the few changes are then put in column order.
    rows, columns = np.divmod(np.flatnonzero(labels[1:] != labels[:-1]), width)
    tops = np.flatnonzero(labels[0, 1:] != labels[-1, :-1]) + 1
    starts = np.concatenate([[0], columns * height + rows + 1, tops * height]).astype(np.int64)
    starts.sort()
    return starts, labels[starts % height, starts // height]


def _pack(runs: Runs, pixels: int) -> list[str]:
    """Runs of n masks -> n mask strings."""
    n_masks = len(runs.offsets) - 1
    bytes_per_number = pixels.bit_length() // 5 + 1  # groups of 5 bits, the sign among them
    out = np.empty(bytes_per_number * (2 * len(runs.starts) + n_masks), np.uint8)
    bounds = np.empty(n_masks + 1, np.int64)
    encode_counts(runs, pixels, out, bounds)
    data = out[: bounds[-1]].tobytes()
    edges = bounds.tolist()
    return [
        binascii.b2a_base64(zlib.compress(data[start:end], 9), newline=False).decode("ascii")
        for start, end in itertools.pairwise(edges)
    ]


class _DamagedMaskError(ValueError):
    """What is wrong with a mask string, to be said with where it stands."""


def _unpack(string: str | bytes, pixels: int) -> bytes:
    """Compressed run lengths of a mask string."""
    if not isinstance(string, str | bytes):
        raise _DamagedMaskError(f"it is {type(string).__name__}, expected text")
    try:
        packed = base64.b64decode(string, validate=True)
    except ValueError:  # binascii.Error is one; so is text beyond ASCII
        raise _DamagedMaskError("it is not base64") from None
    unzip = zlib.decompressobj()
    # Every sane run list is shorter than this: a run's bytes grow with the logarithm of its length.
    limit = 2 * pixels + 64
    try:
        data = unzip.decompress(packed, limit)
    except zlib.error:
        raise _DamagedMaskError("it is not zlib data") from None
    if len(data) >= limit:
        raise _DamagedMaskError(COUNT_FAULTS[4])
    if not unzip.eof:
        raise _DamagedMaskError("its zlib data break off")
    if unzip.unused_data:
        raise _DamagedMaskError("bytes follow its zlib data")
    return data


def _pixels(height: int, width: int) -> int:
    for name, side in (("height", height), ("width", width)):
        if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 1:
            raise InputError(f"mask {name}: expected a whole number of pixels from 1 on, found {side!r}")
    if int(height) * int(width) > _MAX_PIXELS:
        raise InputError(f"mask size {height} x {width}: expected at most {_MAX_PIXELS} pixels")
    return int(height) * int(width)


def _short(string: object) -> str:
    text = repr(string)
    return text if len(text) <= 32 else f"{text[:28]}…{text[-1]}"
