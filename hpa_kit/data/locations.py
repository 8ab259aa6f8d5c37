"""HPA's names of locations -> the 19 classes of the competition."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from hpa_kit.classes import CLASSES, NEGATIVE, format_label

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


class NamedLabels(NamedTuple):
    """Image labels from names."""

    labels: list[str]  # such as "0|16"; empty where no name is known
    unknown: Counter[str]  # names that no class has, and how often each occurs


def location_to_class(name: str) -> int | None:
    """The class that a location of HPA belongs to; None for one that the competition does not have.

    Args:
        name: such as ``Nucleoplasm``, ``Focal adhesion sites`` or ``Lipid droplets``; upper or lower case,
            with or without the ``s`` of the plural.
    """
    key = " ".join(name.lower().split())
    return next((_CLASS_OF[k] for k in (key, f"{key}s", key.removesuffix("s")) if k in _CLASS_OF), None)


def locations_to_labels(texts: Iterable[str]) -> NamedLabels:
    """Image labels of fields whose locations are given by HPA's names.

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
