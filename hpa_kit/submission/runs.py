"""Masks as runs of pixels, column by column: the compiled loops behind mask strings and overlaps.

A set of masks of one field is three int64 arrays: ``starts`` and ``ends`` (runs of foreground, flat
column-major pixel numbers, end not included) and ``offsets`` (n + 1): the runs of mask k are
``starts[offsets[k]:offsets[k + 1]]``, rising and apart. The stored form is COCO's compressed one (cocoapi,
``rleToString``): counts of background and foreground in turn, background first; from the fourth on each is
stored as the difference to the count two before it; low 5 bits first, bit 6 says that more follow; plus 48.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.jit import njit

# What `decode_counts` can find wrong with one mask; 0 is nothing.
COUNT_FAULTS = (
    "",
    "its runs hold a byte that is no run code",
    "its runs break off in the middle of a number",
    "one of its runs has a negative or absurd length",
    "its runs are longer than the field has pixels",
    "its runs are shorter than the field has pixels",
)
_BAD_BYTE, _BROKEN_OFF, _BAD_LENGTH, _TOO_LONG, _TOO_SHORT = range(1, 6)


class Runs(NamedTuple):
    """Foreground runs of the masks of one field; see the module."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    offsets: NDArray[np.int64]


@njit
def _put_number(number, out, at):  # type: ignore[no-untyped-def]
    while True:
        code = number & 31
        number >>= 5
        # The sign is bit 5 of the last group: stop where what is left repeats it.
        done = number == -1 if code & 16 else number == 0
        out[at] = code + 48 if done else (code | 32) + 48
        at += 1
        if done:
            return at


@njit
def encode_counts(starts, ends, offsets, pixels, out, bounds):  # type: ignore[no-untyped-def]
    """Write every mask's counts into ``out``; mask k becomes ``out[bounds[k]:bounds[k + 1]]``."""
    at = 0
    bounds[0] = 0
    for mask in range(len(offsets) - 1):
        position = 0
        last_gap = 0
        last_length = 0
        first = offsets[mask]
        for run in range(first, offsets[mask + 1]):
            gap = starts[run] - position
            length = ends[run] - starts[run]
            position = ends[run]
            index = 2 * (run - first)
            at = _put_number(gap - last_gap if index > 2 else gap, out, at)
            at = _put_number(length - last_length if index > 1 else length, out, at)
            last_gap = gap
            last_length = length
        if position < pixels:
            index = 2 * (offsets[mask + 1] - first)
            gap = pixels - position
            at = _put_number(gap - last_gap if index > 2 else gap, out, at)
        bounds[mask + 1] = at


@njit
def _decode_one(data, begin, end, pixels, starts, ends, at):  # type: ignore[no-untyped-def]
    """Runs of one mask from ``data[begin:end]`` into ``starts`` and ``ends`` from ``at``; (next, fault)."""
    position = 0
    before = 0  # the count two before the one that is read
    last = 0
    index = 0
    first = at
    while begin < end:
        number = 0
        shift = 0
        more = True
        while more:
            if begin == end:
                return first, _BROKEN_OFF
            code = np.int64(data[begin]) - 48
            begin += 1
            if code < 0 or code > 63:
                return first, _BAD_BYTE
            if shift > 50:
                return first, _BAD_LENGTH
            number |= (code & 31) << shift
            shift += 5
            more = (code & 32) != 0
            if not more and code & 16:
                number |= np.int64(-1) << shift
        if index > 2:
            number += before
        if number < 0:
            return first, _BAD_LENGTH
        if number > pixels - position:
            return first, _TOO_LONG
        if index % 2 == 1 and number > 0:
            # A background run of no length joins its neighbours; cocoapi reads that too.
            if at > first and ends[at - 1] == position:
                ends[at - 1] = position + number
            else:
                starts[at] = position
                ends[at] = position + number
                at += 1
        position += number
        before = last
        last = number
        index += 1
    if position < pixels:
        return first, _TOO_SHORT
    return at, 0


@njit
def decode_counts(data, bounds, pixels, starts, ends, offsets, faults):  # type: ignore[no-untyped-def]
    """Read masks ``data[bounds[k]:bounds[k + 1]]`` into runs; ``faults[k]`` indexes ``COUNT_FAULTS``.

    A mask with a fault gets no runs. ``starts`` and ``ends`` need room for half as many runs as there are
    bytes, rounded up per mask.
    """
    at = 0
    offsets[0] = 0
    for mask in range(len(bounds) - 1):
        at, fault = _decode_one(data, bounds[mask], bounds[mask + 1], pixels, starts, ends, at)
        faults[mask] = fault
        offsets[mask + 1] = at


@njit
def fill_runs(starts, ends, flat):  # type: ignore[no-untyped-def]
    """Set the pixels of the runs in ``flat``, a column-major bool map."""
    for run in range(len(starts)):
        flat[starts[run] : ends[run]] = True


@njit
def _areas(starts, ends, offsets):  # type: ignore[no-untyped-def]
    areas = np.zeros(len(offsets) - 1, np.int64)
    for mask in range(len(areas)):
        for run in range(offsets[mask], offsets[mask + 1]):
            areas[mask] += ends[run] - starts[run]
    return areas


@njit
def _common(starts, ends, a, a_stop, b, b_stop):  # type: ignore[no-untyped-def]
    """Pixels that the runs a…a_stop and b…b_stop share: one walk along both."""
    total = 0
    while a < a_stop and b < b_stop:
        low = max(starts[a], starts[b])
        high = min(ends[a], ends[b])
        if high > low:
            total += high - low
        if ends[a] < ends[b]:
            a += 1
        else:
            b += 1
    return total


@njit
def overlaps(starts, ends, offsets, n_left):  # type: ignore[no-untyped-def]
    """IoU of each of the first ``n_left`` masks with each other mask: float64 (n_left, n - n_left).

    Two empty masks have IoU 0.
    """
    areas = _areas(starts, ends, offsets)
    n_right = len(areas) - n_left
    found = np.zeros((n_left, n_right))
    for left in range(n_left):
        a, a_stop = offsets[left], offsets[left + 1]
        for column in range(n_right):
            right = n_left + column
            b, b_stop = offsets[right], offsets[right + 1]
            if a == a_stop or b == b_stop or ends[a_stop - 1] <= starts[b] or ends[b_stop - 1] <= starts[a]:
                continue
            common = _common(starts, ends, a, a_stop, b, b_stop)
            found[left, column] = common / (areas[left] + areas[right] - common)
    return found
