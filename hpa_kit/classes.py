"""The 19 location classes of the competition, and image labels such as ``8|5|0``."""

from collections.abc import Iterable
from dataclasses import dataclass

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
    """Class indices of n images -> float32 (n, 19) of zeros and ones."""
    rows = [tuple(label) for label in labels]
    hot = np.zeros((len(rows), N_CLASSES), dtype=np.float32)
    for row, label in zip(hot, rows, strict=True):
        row[list(label)] = 1
    return hot
