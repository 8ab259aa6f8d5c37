"""The 19 location classes of the competition, HPA's names of them, and image labels such as ``8|5|0``."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpa_kit.errors import InputError, shown


@dataclass(frozen=True)
class LocationClass:
    """One place a protein can be: its index in the competition, its name, its colour in pictures."""

    index: int
    name: str
    colour: str


CLASSES: tuple[LocationClass, ...] = tuple(
    LocationClass(index, name, colour)
    for index, (name, colour) in enumerate(
        [
            ("Nucleoplasm", "#4477aa"),
            ("Nuclear membrane", "#66ccee"),
            ("Nucleoli", "#228833"),
            ("Nucleoli fibrillar center", "#99ddaa"),
            ("Nuclear speckles", "#ccbb44"),
            ("Nuclear bodies", "#aaaa00"),
            ("Endoplasmic reticulum", "#ee8866"),
            ("Golgi apparatus", "#ee6677"),
            ("Intermediate filaments", "#aa3377"),
            ("Actin filaments", "#cc6677"),
            ("Microtubules", "#882255"),
            ("Mitotic spindle", "#ddcc77"),
            ("Centrosome", "#ffaabb"),
            ("Plasma membrane", "#44bb99"),
            ("Mitochondria", "#cc3311"),
            ("Aggresome", "#997700"),
            ("Cytosol", "#77aadd"),
            ("Vesicles and punctate cytosolic patterns", "#bbcc33"),
            ("Negative", "#bbbbbb"),
        ]
    )
)
N_CLASSES = len(CLASSES)
NEGATIVE = 18

_BETWEEN_NAMES = re.compile(r"[,;|]")

# Locations that HPA tells apart and the competition does not.
_MERGED = {
    "focal adhesion sites": 9,
    "centriolar satellite": 12,
    "cell junctions": 13,
    "vesicles": 17,
    "peroxisomes": 17,
    "endosomes": 17,
    "lysosomes": 17,
    "lipid droplets": 17,
    "cytoplasmic bodies": 17,
    "no staining": NEGATIVE,
}
_CLASS_OF = {place.name.lower(): place.index for place in CLASSES} | _MERGED


def parse_label(text: str, where: str = "label") -> tuple[int, ...]:
    """Read an image label: class indices joined by ``|``, in any order, blanks and repeats allowed.

    Args:
        text: such as ``"8|5|0"``, ``"17|17"``, ``"0|16|"`` or ``" 5 "``.
        where: what to call the label in an error, usually its table and ID.

    Returns:
        The classes in rising order, each once.

    Raises:
        InputError: a part is no class index, or the label is empty.
    """
    parts = [part.strip() for part in str(text).split("|")]
    found = [part for part in parts if part]
    for part in found:
        # Python refuses to convert thousands of digits, so their count is looked at first.
        digits = part.lstrip("0") or part[-1]
        if not (part.isascii() and part.isdigit() and len(digits) <= 2 and int(digits) < N_CLASSES):
            raise InputError(
                f"{where}: {shown(part)} is no location class; expected 0 to {N_CLASSES - 1} joined by |"
            )
    if not found:
        raise InputError(f"{where}: the label is empty; expected classes 0 to {N_CLASSES - 1} joined by |")
    return tuple(sorted({int(part.lstrip("0") or "0") for part in found}))


def format_label(classes: Iterable[int]) -> str:
    """Write classes as an image label: rising, joined by ``|``."""
    return "|".join(str(index) for index in sorted(set(classes)))


def multi_hot(labels: Iterable[Iterable[int]]) -> NDArray[np.float32]:
    """Turn class indices of n images into float32 (n, 19) of zeros and ones."""
    rows = [tuple(label) for label in labels]
    hot = np.zeros((len(rows), N_CLASSES), dtype=np.float32)
    for row, label in zip(hot, rows, strict=True):
        row[list(label)] = 1
    return hot


class NamedLabels(NamedTuple):
    """Image labels from names."""

    labels: list[str]  # such as "0|16"; empty where no name is known
    unknown: Counter[str]  # names that no class has, and how often each occurs


def location_to_class(name: str) -> int | None:
    """Find the class that a location of HPA belongs to; None for one that the competition does not have.

    Args:
        name: such as ``Nucleoplasm``, ``Focal adhesion sites`` or ``Lipid droplets``; upper or lower case,
            with or without the ``s`` of the plural.
    """
    key = " ".join(name.lower().split())
    return next((_CLASS_OF[k] for k in (key, f"{key}s", key.removesuffix("s")) if k in _CLASS_OF), None)


def locations_to_labels(texts: Iterable[str]) -> NamedLabels:
    """Make image labels of fields whose locations are given by HPA's names.

    Args:
        texts: the names of each field, between them ``,``, ``;`` or ``|``, such as
            ``Nucleoplasm,Focal adhesion sites``.

    Returns:
        The labels, in order, each class once. Names of no class are dropped and counted; a field that has no
        other gets an empty label.
    """
    labels, unknown = [], Counter[str]()
    for text in texts:
        names = [" ".join(part.split()) for part in _BETWEEN_NAMES.split(text)]
        classes = {name: location_to_class(name) for name in names if name}
        unknown.update(name for name, index in classes.items() if index is None)
        labels.append(format_label(index for index in classes.values() if index is not None))
    return NamedLabels(labels, unknown)
