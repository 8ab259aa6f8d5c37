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
def encode_counts(runs, pixels, out, bounds):  # type: ignore[no-untyped-def]
    """Write every mask's counts into ``out``; mask k becomes ``out[bounds[k]:bounds[k + 1]]``."""
    at = 0
    bounds[0] = 0
    for mask in range(len(runs.offsets) - 1):
        position = 0
        last_gap = 0
        last_length = 0
        first = runs.offsets[mask]
        stop = runs.offsets[mask + 1]
        for run in range(first, stop):
            gap = runs.starts[run] - position
            length = runs.ends[run] - runs.starts[run]
            position = runs.ends[run]
            # Gap and length of run k are counts 2k and 2k + 1; differences start at the fourth count.
            at = _put_number(gap - last_gap if run > first + 1 else gap, out, at)
            at = _put_number(length - last_length if run > first else length, out, at)
            last_gap = gap
            last_length = length
        if position < pixels:
            gap = pixels - position
            at = _put_number(gap - last_gap if stop > first + 1 else gap, out, at)
        bounds[mask + 1] = at


@njit
def _get_number(data, at):  # type: ignore[no-untyped-def]
    """The number that starts at byte ``at``: (number, where the next starts, fault)."""
    number = np.int64(0)
    shift = 0
    while at < len(data):
        code = np.int64(data[at]) - 48
        at += 1
        if code < 0 or code > 63:
            return number, at, _BAD_BYTE
        if shift > 50:
            return number, at, _BAD_LENGTH
        number |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                number |= np.int64(-1) << shift
            return number, at, 0
    return number, at, _BROKEN_OFF


@njit
def _decode_one(data, pixels, starts, ends):  # type: ignore[no-untyped-def]
    """Runs of one mask from its bytes into ``starts`` and ``ends``: (how many, fault)."""
    n_runs = 0
    position = 0
    before = 0  # the count two before the one that is read
    last = 0
    index = 0
    at = 0
    while at < len(data):
        count, at, fault = _get_number(data, at)
        if fault:
            return 0, fault
        if index > 2:
            count += before
        if count < 0:
            return 0, _BAD_LENGTH
        if count > pixels - position:
            return 0, _TOO_LONG
        if index % 2 == 1 and count > 0:
            # A background run of no length joins its neighbours; cocoapi reads that too.
            if n_runs == 0 or ends[n_runs - 1] < position:
                starts[n_runs] = position
                n_runs += 1
            ends[n_runs - 1] = position + count
        position += count
        before = last
        last = count
        index += 1
    return (0, _TOO_SHORT) if position < pixels else (n_runs, 0)


@njit
def decode_counts(data, bounds, pixels, runs, faults):  # type: ignore[no-untyped-def]
    """Read masks ``data[bounds[k]:bounds[k + 1]]`` into ``runs``; ``faults[k]`` indexes ``COUNT_FAULTS``.

    A mask with a fault gets no runs. ``runs.starts`` and ``runs.ends`` need room for half as many runs as
    there are bytes.
    """
    at = 0
    runs.offsets[0] = 0
    for mask in range(len(bounds) - 1):
        own = data[bounds[mask] : bounds[mask + 1]]
        n_runs, faults[mask] = _decode_one(own, pixels, runs.starts[at:], runs.ends[at:])
        at += n_runs
        runs.offsets[mask + 1] = at


@njit
def fill_runs(starts, ends, flat):  # type: ignore[no-untyped-def]
    """Set the pixels of the runs in ``flat``, a column-major bool map."""
    for run in range(len(starts)):
        flat[starts[run] : ends[run]] = True


@njit
def _areas(runs):  # type: ignore[no-untyped-def]
    areas = np.zeros(len(runs.offsets) - 1, np.int64)
    for mask in range(len(areas)):
        for run in range(runs.offsets[mask], runs.offsets[mask + 1]):
            areas[mask] += runs.ends[run] - runs.starts[run]
    return areas


@njit
def _common(starts, ends, other_starts, other_ends):  # type: ignore[no-untyped-def]
    """Pixels that two masks share: one walk along the runs of both."""
    total = 0
    a = 0
    b = 0
    while a < len(starts) and b < len(other_starts):
        low = max(starts[a], other_starts[b])
        high = min(ends[a], other_ends[b])
        if high > low:
            total += high - low
        if ends[a] < other_ends[b]:
            a += 1
        else:
            b += 1
    return total


@njit
def overlaps(left, right):  # type: ignore[no-untyped-def]
    """Measure the IoU of every mask of ``left`` (n) with every mask of ``right`` (m): float64 (n, m).

    Two empty masks have IoU 0.
    """
    left_areas = _areas(left)
    right_areas = _areas(right)
    found = np.zeros((len(left_areas), len(right_areas)))
    for row in range(len(left_areas)):
        starts = left.starts[left.offsets[row] : left.offsets[row + 1]]
        ends = left.ends[left.offsets[row] : left.offsets[row + 1]]
        for column in range(len(right_areas)):
            others = right.starts[right.offsets[column] : right.offsets[column + 1]]
            other_ends = right.ends[right.offsets[column] : right.offsets[column + 1]]
            if len(starts) == 0 or len(others) == 0 or ends[-1] <= others[0] or other_ends[-1] <= starts[0]:
                continue
            common = _common(starts, ends, others, other_ends)
            found[row, column] = common / (left_areas[row] + right_areas[column] - common)
    return found
