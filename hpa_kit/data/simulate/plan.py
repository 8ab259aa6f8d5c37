"""Which fields a synthetic competition has: their IDs, sizes and classes, and which cell shows what.

The numbers follow 328 public HPA fields that were labelled by hand cell by cell: four fields in five hold
cells that differ, a class of a field is shown by two thirds of its cells, one cell in ten shows nothing
although its field is not Negative.
"""

import hashlib
import uuid
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.classes import N_CLASSES, NEGATIVE
from hpa_kit.config import SimulateSettings, Split

SPLITS: tuple[Split, ...] = ("train", "test")
SPINDLE = 11
# Images of each class in the competition's train.csv. Their square roots keep the order but let a small set
# hold every class.
# fmt: off
_IMAGES = (
    8797, 1095, 2451, 1262, 1425, 1792, 775, 1846, 964, 1011, 818, 78, 1734, 3216, 2013, 252, 5685, 621, 34,
)
# fmt: on
_WEIGHT = np.sqrt(np.array(_IMAGES, dtype=np.float64))
_CLASSES_PER_FIELD = (0.44, 0.42, 0.125, 0.015)
_SMALLEST, _LARGEST = 64, 3072


class FieldPlan(NamedTuple):
    """One field before it is drawn."""

    id: str
    split: Split
    height: int
    width: int
    classes: tuple[int, ...]
    seed: tuple[int, ...]


def plan_fields(settings: SimulateSettings, split: Split) -> list[FieldPlan]:
    """Plan all fields of a split. Each has a seed of its own, so it is drawn in any order, by any process."""
    number = SPLITS.index(split)
    count = settings.train if split == "train" else settings.test
    rng = np.random.default_rng((settings.seed, number))
    leads = _lead_classes(settings.classes, count, rng)
    chosen = _with_all([_field_classes(lead, settings.classes, rng) for lead in leads], settings.classes)
    plans = []
    for index, classes in enumerate(chosen):
        height, width = _size(settings, rng)
        seed = (settings.seed, number, index)
        plans.append(FieldPlan(field_id(seed), split, height, width, classes, seed))
    return plans


def field_id(seed: tuple[int, ...]) -> str:
    """Make an ID as the competition's are, always the same for the same seed."""
    digest = hashlib.sha256("/".join(map(str, seed)).encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _lead_classes(classes: tuple[int, ...], count: int, rng: np.random.Generator) -> list[int]:
    """One class per field, in proportion to the weights; every class where there are fields enough."""
    known = np.array(sorted(set(classes)))
    share = _WEIGHT[known] / _WEIGHT[known].sum() * count
    quota = np.floor(share).astype(np.int64)
    if count >= len(known):
        quota = np.maximum(quota, 1)
    while quota.sum() > count:
        quota[np.argmax(quota - share)] -= 1
    while quota.sum() < count:
        quota[np.argmax(share - quota)] += 1
    return [int(lead) for lead in rng.permutation(np.repeat(known, quota))]


def _field_classes(lead: int, classes: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    """The lead with the companions it has; Negative stays alone."""
    if lead == NEGATIVE:
        return (NEGATIVE,)
    others = np.array(sorted(set(classes) - {lead, NEGATIVE}), dtype=np.int64)
    more = min(len(others), int(rng.choice(4, p=_CLASSES_PER_FIELD)))
    weight = _WEIGHT[others]
    if not more:
        return (lead,)
    companions = rng.choice(others, more, replace=False, p=weight / weight.sum())
    return tuple(sorted([lead, *(int(index) for index in companions)]))


def _with_all(fields: list[tuple[int, ...]], classes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Give classes that no field shows to the fields with the fewest, as far as three per field go."""
    fields = list(fields)
    missing = set(classes) - {NEGATIVE} - {index for field in fields for index in field}
    for index in sorted(missing):
        room = [k for k, field in enumerate(fields) if len(field) < 3 and field != (NEGATIVE,)]
        if room:
            fewest = min(room, key=lambda k: len(fields[k]))
            fields[fewest] = tuple(sorted((*fields[fewest], index)))
    return fields


def _size(settings: SimulateSettings, rng: np.random.Generator) -> tuple[int, int]:
    largest = settings.max_size or settings.size
    side = int(rng.integers(settings.size, largest + 1))
    if settings.square:
        return side, side
    low, high = (settings.size, largest) if largest > settings.size else (_SMALLEST, _LARGEST)
    aspect = np.sqrt(rng.uniform(1.15, 1.6))
    short, long = (int(np.clip(round(value), low, high)) for value in (side / aspect, side * aspect))
    return (short, long) if rng.random() < 0.5 else (long, short)


def mitotic_part(classes: tuple[int, ...], rng: np.random.Generator) -> float:
    """Part of the cells that divide: few, and none in many fields, unless the protein marks the spindle."""
    if SPINDLE in classes:
        return float(rng.uniform(0.12, 0.5))
    return 0.02 if rng.random() < 0.12 else 0.0


def cell_classes(
    classes: tuple[int, ...], mitotic: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Decide what each cell of a field shows.

    Args:
        classes: the field's classes; each is shown by at least one cell.
        mitotic: bool (n,): cells that divide; they alone show the spindle, and show nothing in a nucleus.
        rng: source of everything random.

    Returns:
        bool (n, 19); every row has a class, Negative where it has no other.
    """
    shows = np.zeros((len(mitotic), N_CLASSES), dtype=np.bool_)
    if classes != (NEGATIVE,):
        _draw_classes(shows, classes, mitotic, rng)
    shows[:, NEGATIVE] = ~shows.any(axis=1)
    return shows


def _draw_classes(
    shows: NDArray[np.bool_], classes: tuple[int, ...], mitotic: NDArray[np.bool_], rng: np.random.Generator
) -> None:
    count = len(mitotic)
    alike = rng.random() < 0.22
    part = _parts(classes, alike, rng)
    columns = list(classes)
    shows[:, columns] = rng.random((count, len(classes))) < part
    # A cell without any is mostly one whose protein sits elsewhere, seldom one that lacks the protein.
    if len(classes) > 1:
        for cell in np.flatnonzero(~shows.any(axis=1) & (rng.random(count) < 0.88)):
            shows[cell, rng.choice(columns, p=part / part.sum())] = True
    if not alike and count > 1 and (shows == shows[0]).all():
        _make_one_differ(shows, columns, rng)
    shows[mitotic, :6] = False  # a dividing cell has no nucleus
    shows[:, SPINDLE] = mitotic & (SPINDLE in classes)
    for index in columns:
        if not shows[:, index].any():
            able = np.flatnonzero(~mitotic) if index <= 5 else np.arange(count)
            shows[rng.choice(able if len(able) else np.arange(count)), index] = True


def _parts(classes: tuple[int, ...], alike: bool, rng: np.random.Generator) -> NDArray[np.float64]:
    """Part of the cells that show each class."""
    if alike:
        return np.ones(len(classes))
    if len(classes) == 1:
        return rng.beta(3, 0.85, 1)
    part = rng.beta(0.85, 0.9, len(classes))
    if rng.random() < 0.2:
        part[rng.integers(len(classes))] = 1
    return np.maximum(part, 0.02)


def _make_one_differ(shows: NDArray[np.bool_], columns: list[int], rng: np.random.Generator) -> None:
    cell = rng.integers(len(shows))
    present = [index for index in columns if shows[cell, index]]
    shows[cell, rng.choice(present or columns)] ^= True
