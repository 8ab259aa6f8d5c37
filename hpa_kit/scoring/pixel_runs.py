"""Sums over the cells of a label map, by runs of pixels.

A run is a stretch of pixels, in memory order, of one cell and all inside or all outside its nucleus. A label
map is cut into runs once; then every class map is read once, from start to end, whatever the number of cells.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.jit import njit

_LANES = 8  # pixels the processor takes at a time
_INFINITY = 0x7F800000  # its bits as a float32


class Runs(NamedTuple):
    """Runs of a flattened label map: ``part`` = 2 * (cell - 1), + 1 inside the nucleus."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    part: NDArray[np.int64]


class MapSums(NamedTuple):
    """Per class and cell, outside and inside the nucleus, each (classes, n, 2).

    Pixels above the floor, pixels from the high value on, and the sum of the values above the floor.
    """

    positive: NDArray[np.int64]
    high: NDArray[np.int64]
    total: NDArray[np.float64]


def find_runs(cells: NDArray[np.int32], nuclei: NDArray[np.int32] | None = None) -> Runs:
    """Cut a label map into runs, background left out.

    Args:
        cells: int32 (h, w), C order.
        nuclei: int32 (h, w), C order; above 0 where there is a nucleus, whatever its number.
    """
    flat = cells.ravel()
    inside = np.zeros(1, np.int32) if nuclei is None else nuclei.ravel()
    arrays = np.empty((3, _walk_runs(flat, inside, np.empty((3, 0), np.int64))), np.int64)
    _walk_runs(flat, inside, arrays)
    return Runs(*arrays)


def all_finite(values: NDArray[np.float32]) -> bool:
    """Whether no value is NaN or infinite, in one pass and without an array of answers."""
    return bool(_largest_bits(values.reshape(-1).view(np.int32)) < _INFINITY)


def areas(runs: Runs, n_cells: int) -> NDArray[np.int64]:
    """Pixels of every cell, outside and inside its nucleus: (n, 2)."""
    lengths = np.bincount(runs.part, weights=runs.stop - runs.start, minlength=2 * n_cells)
    return lengths.astype(np.int64).reshape(n_cells, 2)


def sum_maps(
    maps: NDArray[np.float32], classes: NDArray[np.int64], runs: Runs, n_cells: int, floor: float, high: float
) -> MapSums:
    """Count and add the values of class maps in every cell.

    Args:
        maps: float32 (19, h, w), C order.
        classes: which of the maps to read.
        runs: of a label map (h, w).
        n_cells: number of cells.
        floor: values up to here are nothing.
        high: value from which a pixel counts as high.
    """
    shape = (len(classes), 2 * n_cells)
    sums = MapSums(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape))
    _add_maps(maps.reshape(len(maps), -1), classes, runs, np.float32(floor), np.float32(high), sums)
    by_cell = (len(classes), n_cells, 2)
    return MapSums(sums.positive.reshape(by_cell), sums.high.reshape(by_cell), sums.total.reshape(by_cell))


def peaks(
    maps: NDArray[np.float32], classes: NDArray[np.int64], runs: Runs, n_cells: int, floor: float
) -> NDArray[np.float64]:
    """The highest value above the floor of class maps in every cell: (classes, n), 0 where there is none.

    Takes what :func:`sum_maps` takes.
    """
    highest = np.zeros((len(classes), n_cells), np.float32)
    _raise_peaks(maps.reshape(len(maps), -1), classes, runs, highest)
    return np.where(highest > np.float32(floor), highest, 0).astype(np.float64)


def sum_plane(plane: NDArray[np.float32], runs: Runs, n_cells: int) -> NDArray[np.float64]:
    """Add one plane's values in every cell: (n,)."""
    sums = np.zeros(2 * n_cells)
    _add_plane(plane.ravel(), runs, sums)
    return sums.reshape(n_cells, 2).sum(axis=1)


@njit
def _largest_bits(bits):  # type: ignore[no-untyped-def]
    # Without its sign, a float's bits grow with its value; infinity and NaN come last.
    largest = np.int32(0)
    for i in range(len(bits)):
        largest = max(largest, bits[i] & np.int32(0x7FFFFFFF))
    return largest


@njit
def _walk_runs(cells, nuclei, runs):  # type: ignore[no-untyped-def]
    """Count the runs; write them too where ``runs`` has room. One nucleus pixel stands for no nuclei."""
    write = runs.shape[1] > 0
    without = nuclei.size == 1 and cells.size != 1
    run = -1
    previous = -1
    for i in range(cells.size):
        part = -1
        if cells[i] > 0:
            inside = nuclei[0 if without else i] > 0
            part = 2 * (np.int64(cells[i]) - 1) + inside
        if part != previous:
            if write and previous >= 0:
                runs[1, run] = i
            if part >= 0:
                run += 1
                if write:
                    runs[0, run] = i
                    runs[2, run] = part
            previous = part
    if write and previous >= 0:
        runs[1, run] = cells.size
    return run + 1


@njit(fastmath={"reassoc", "contract", "nsz"})
def _add_maps(maps, classes, runs, floor, high, sums):  # type: ignore[no-untyped-def]
    # No branch in the inner loop, and whole blocks of pixels with those beyond the run's end masked out: both
    # let the compiler take several pixels at a time.
    for k in range(len(classes)):
        plane = maps[classes[k]]
        for run in range(len(runs.start)):
            length = runs.stop[run] - runs.start[run]
            blocks = (length + _LANES - 1) // _LANES * _LANES
            pixels = plane[runs.start[run] : runs.start[run] + blocks]
            n_positive = np.int32(0)
            n_high = np.int32(0)
            added = 0.0
            for i in range(len(pixels)):
                is_inside = i < length
                is_positive = (pixels[i] > floor) & is_inside
                n_positive += np.int32(is_positive)
                n_high += np.int32((pixels[i] >= high) & is_inside)
                added += pixels[i] if is_positive else 0.0
            part = runs.part[run]
            sums.positive[k, part] += n_positive
            sums.high[k, part] += n_high
            sums.total[k, part] += added


@njit(fastmath={"nnan", "nsz"})
def _raise_peaks(maps, classes, runs, highest):  # type: ignore[no-untyped-def]
    for k in range(len(classes)):
        plane = maps[classes[k]]
        for run in range(len(runs.start)):
            peak = np.float32(0)
            for i in range(runs.start[run], runs.stop[run]):
                peak = max(peak, plane[i])
            cell = runs.part[run] // 2
            highest[k, cell] = max(highest[k, cell], peak)


@njit(fastmath={"reassoc", "contract", "nsz"})
def _add_plane(plane, runs, sums):  # type: ignore[no-untyped-def]
    for run in range(len(runs.start)):
        added = 0.0
        for i in range(runs.start[run], runs.stop[run]):
            added += plane[i]
        sums[runs.part[run]] += added
