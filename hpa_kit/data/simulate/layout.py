"""Where the cells of a synthetic field lie: label maps of cells and nuclei.

Each cell is a star-shaped outline around its nucleus. A pixel goes to the cell in whose outline it lies
deepest, so neighbours that meet share a border, as in a crowded culture, and lonely cells keep their own
outline.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected

from hpa_kit.data.simulate.draw import Canvas, smooth_noise

# Lengths are given in pixels of a 2048 field and multiplied by the field's unit.
_DIRECTIONS = 256


class CellLine(NamedTuple):
    """How the cells of one culture look."""

    cells: tuple[int, int]  # least and most cells of a full field
    nucleus: float  # mean radius of a nucleus
    reach: float  # radius of a cell over that of its nucleus
    stretch: float  # length over width of a cell
    ragged: float  # unevenness of the outline
    tails: int  # most protrusions of a cell
    aligned: float  # 1: all cells point the same way
    crowd: float  # 0: evenly spread, 1: in groups


CELL_LINES = (
    CellLine((12, 24), 97, 2.5, 1.45, 0.13, 3, 0.2, 0.1),  # spread out, as U-2 OS
    CellLine((18, 32), 89, 2.3, 1.25, 0.09, 1, 0.2, 0.2),  # cobbles, as A-431
    CellLine((28, 46), 76, 2.7, 1.15, 0.08, 0, 0.1, 0.0),  # confluent, as HaCaT
    CellLine((12, 24), 91, 2.3, 2.6, 0.10, 2, 0.8, 0.1),  # spindles, as fibroblasts
    CellLine((9, 22), 84, 1.7, 1.15, 0.12, 2, 0.0, 0.7),  # small ones in groups, as HAP1
    CellLine((8, 15), 112, 3, 1.5, 0.14, 3, 0.3, 0.0),  # large and flat, as U-251 MG
)


class Outlines(NamedTuple):
    """The cells before they are drawn; arrays of n, lengths in pixels."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    angle: NDArray[np.float64]  # long axis of cell and nucleus
    long: NDArray[np.float64]  # half axes of the nucleus
    short: NDArray[np.float64]
    dent: NDArray[np.float64]  # (n, 2) depth and direction of a dent in the nucleus
    reach: NDArray[np.float64]  # (n, directions) distance from the centre to the outline
    mitotic: NDArray[np.bool_]


class Layout(NamedTuple):
    """Drawn cells. Cell k of the label maps is row k - 1 of ``outlines``."""

    cells: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    outlines: Outlines
    unit: float  # pixels per pixel of a full field


def field_unit(height: int, width: int) -> float:
    """Pixels of this field per pixel of a 2048 one.

    A smaller field is a reduced copy. Below 512 it shows fewer cells, somewhat larger, so that what a nucleus
    holds is still seen.
    """
    side = float(np.sqrt(height * width))
    return side / 2048 * min(2.1, max(1.0, (512 / side) ** 0.33))


def make_layout(
    height: int, width: int, mitotic_part: float, rng: np.random.Generator, unit: float | None = None
) -> Layout:
    """Draw the cells of one field.

    Args:
        height, width: size of the canvas in pixels.
        mitotic_part: part of the cells that divide; above 0 at least one does.
        rng: source of everything random.
        unit: pixels per pixel of a full field; by default :func:`field_unit` of the canvas.
    """
    unit = field_unit(height, width) if unit is None else unit
    shape = (height, width)
    while True:
        line = CELL_LINES[rng.integers(len(CELL_LINES))]
        layout = _draw(_outlines(line, shape, unit, mitotic_part, rng), shape, unit, rng)
        if len(layout.outlines.y) and (mitotic_part == 0 or layout.outlines.mitotic.any()):
            return layout


def _outlines(
    line: CellLine, shape: tuple[int, int], unit: float, mitotic_part: float, rng: np.random.Generator
) -> Outlines:
    room = shape[0] * shape[1] / (2048 * unit) ** 2
    count = max(3, round(int(rng.integers(line.cells[0], line.cells[1] + 1)) * room))
    radii = line.nucleus * unit * rng.lognormal(0, 0.12, count)
    places, radius = _centres(radii, shape, line.crowd, rng)
    y, x = places.T
    kept = len(radius)
    direction = rng.uniform(0, np.pi)
    angle = np.where(
        rng.random(kept) < line.aligned, direction + rng.normal(0, 0.2, kept), rng.uniform(0, np.pi, kept)
    )
    oval = np.minimum(1 + np.abs(rng.normal(0.15, 0.15, kept)) + 0.3 * (line.stretch - 1), 1.8)
    mitotic = np.zeros(kept, dtype=np.bool_)
    if mitotic_part > 0:
        mitotic[rng.permutation(kept)[: max(1, round(mitotic_part * kept))]] = True
    long, short = radius * np.sqrt(oval), radius / np.sqrt(oval)
    reach = np.stack([_reach(line, float(size), rng) for size in radius])
    # A dividing cell rounds up around its plate of chromosomes.
    reach[mitotic] = 1.7 * radius[mitotic, None]
    long, short = np.where(mitotic, 0.95 * radius, long), np.where(mitotic, 0.33 * radius, short)
    deep = np.where(rng.random(kept) < 0.15, rng.uniform(0.2, 0.6, kept), 0) * ~mitotic
    dent = np.stack([deep, rng.choice([0.5, 1.5], kept) * np.pi + rng.normal(0, 0.3, kept)], axis=1)
    return Outlines(y, x, angle, long, short, dent, reach, mitotic)


def _centres(
    radii: NDArray[np.float64], shape: tuple[int, int], crowd: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places for nuclei that do not overlap: the loneliest of some candidates, or in a crowd the closest.

    Returns:
        (n, 2) rows and columns and the radii (n,) of the nuclei that found a place; the first always does.
    """
    places = np.zeros((0, 2))
    placed = np.zeros(0)
    for radius in radii:
        candidates = rng.random((24, 2)) * shape
        gaps = np.linalg.norm(candidates[:, None] - places[None], axis=2)
        space = (gaps - 1.25 * (placed + radius)).min(axis=1, initial=np.inf)
        allowed = np.flatnonzero(space > 0)
        joined = rng.random() < crowd
        if len(allowed):
            best = np.argmin(space[allowed]) if joined else np.argmax(space[allowed][:6])
            places = np.vstack([places, candidates[allowed[best]]])
            placed = np.append(placed, radius)
    return places, placed


def _reach(line: CellLine, radius: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Distance from the centre to the outline by direction; direction 0 is the cell's long axis."""
    theta = np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS
    stretch = max(1.0, line.stretch * rng.lognormal(0, 0.15))
    oval = 1 / np.hypot(np.cos(theta) / np.sqrt(stretch), np.sin(theta) * np.sqrt(stretch))
    outline = oval * rng.lognormal(0, 0.12)
    for wave in range(2, 9):
        outline *= 1 + line.ragged * rng.normal() / wave**0.9 * np.sin(
            wave * theta + rng.uniform(0, 2 * np.pi)
        )
    for _ in range(rng.integers(0, line.tails + 1)):
        towards = rng.choice([0, np.pi]) + rng.normal(0, 0.35 if line.stretch > 1.5 else 1.2)
        away = np.abs((theta - towards + np.pi) % (2 * np.pi) - np.pi)
        outline += rng.uniform(0.3, 1.0) * np.exp(-((away / rng.uniform(0.15, 0.45)) ** 2))
    return radius * np.maximum(line.reach * outline, 1.2)


def _draw(outlines: Outlines, shape: tuple[int, int], unit: float, rng: np.random.Generator) -> Layout:
    warp_y, warp_x = (10 * unit * smooth_noise(shape, 45 * unit, rng) for _ in range(2))
    best = np.ones(shape, dtype=np.float32)
    cells = np.zeros(shape, dtype=np.int32)
    for index in range(len(outlines.y)):
        margin = int(outlines.reach[index].max() + 40 * unit) + 2
        top, left = (max(0, int(v) - margin) for v in (outlines.y[index], outlines.x[index]))
        bottom, right = int(outlines.y[index]) + margin, int(outlines.x[index]) + margin
        box = np.s_[top:bottom, left:right]
        inner, outer = _position(outlines, index, (top, left), warp_y[box], warp_x[box])
        # A nucleus owns its pixels and a rim around them, whatever other outline lies over it.
        place = np.where(inner < 1.12, inner - 3, outer)
        mine = place < best[box]
        best[box][mine] = place[mine]
        cells[box][mine] = index + 1
    return _tidy(cells, best < -2, outlines, unit)


def _position(
    outlines: Outlines, index: int, origin: tuple[int, int], warp_y: Canvas, warp_x: Canvas
) -> tuple[Canvas, Canvas]:
    """How far out each pixel of a box lies in one cell: 1 at the rim of the nucleus, 1 at the outline."""
    rows, columns = warp_y.shape
    dy = np.arange(rows, dtype=np.float32)[:, None] + np.float32(origin[0] - outlines.y[index])
    dx = np.arange(columns, dtype=np.float32)[None, :] + np.float32(origin[1] - outlines.x[index])
    turn = float(outlines.angle[index])
    # The rim of a nucleus is smoother than the outline of its cell.
    along, across = _turned(dy + 0.3 * warp_y, dx + 0.3 * warp_x, turn)
    long, short = np.float32(outlines.long[index]), np.float32(outlines.short[index])
    inner = cv2.magnitude(along / long, across / short)
    deep, towards = outlines.dent[index]
    if deep > 0:
        bump = np.cos(cv2.phase(along, across) - np.float32(towards))
        inner *= 1 + np.float32(deep) * np.exp(np.float32(8) * (bump - 1))
    distance, angle = cv2.cartToPolar(*_turned(dy + warp_y, dx + warp_x, turn))
    direction = (angle * np.float32(_DIRECTIONS / (2 * np.pi))).astype(np.intp) % _DIRECTIONS
    return inner, distance / outlines.reach[index].astype(np.float32)[direction]


def _turned(dy: Canvas, dx: Canvas, angle: float) -> tuple[Canvas, Canvas]:
    """Distances along and across an axis."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return dx * cos + dy * sin, dy * cos - dx * sin


def one_piece(cells: NDArray[np.int32]) -> NDArray[np.int32]:
    """Leave each cell of a label map its largest piece, 4-connected."""
    pieces = connected(cells, connectivity=1, background=0)
    sizes = np.bincount(pieces.ravel())
    owner = np.zeros(len(sizes), dtype=np.int64)
    owner[pieces.ravel()] = cells.ravel()
    largest = np.zeros(int(cells.max()) + 1, dtype=np.int64)
    for piece in np.argsort(sizes, kind="stable"):
        largest[owner[piece]] = piece
    return np.where(pieces == largest[cells], cells, 0).astype(np.int32)


def _tidy(cells: NDArray[np.int32], inside: NDArray[np.bool_], outlines: Outlines, unit: float) -> Layout:
    """Each cell in one piece with a nucleus worth the name; numbers without gaps."""
    cells = one_piece(cells)
    nuclei = np.where(inside, cells, 0)
    area = np.bincount(nuclei.ravel(), minlength=len(outlines.y) + 1)[1:]
    keep = area >= 0.25 * np.pi * outlines.long * outlines.short
    number = np.zeros(len(keep) + 1, dtype=np.int32)
    number[1:][keep] = np.arange(1, keep.sum() + 1)
    return Layout(number[cells], number[nuclei], _select(outlines, keep), unit)


def _select(outlines: Outlines, keep: NDArray[np.bool_]) -> Outlines:
    y, x, angle, long, short, dent, reach, mitotic = outlines
    return Outlines(
        y[keep], x[keep], angle[keep], long[keep], short[keep], dent[keep], reach[keep], mitotic[keep]
    )
