"""Version numbers and what a requirement says of them, with nothing but the standard library.

Bundles are built by any Python, also one without the ``packaging`` package. Numbers are enough: nothing here
is pinned to a pre-release.
"""

import re
from itertools import zip_longest
from pathlib import Path

from hpa_kit.errors import InputError


def numbers(version: str) -> tuple[int, ...]:
    """The numeric parts of a version's release: ``2.10.0+cu128`` is (2, 10, 0)."""
    release = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version.strip())
    return tuple(int(part) for part in release[1].split(".")) if release else ()


def not_older(have: str, want: str) -> bool:
    """Whether a version is ``want`` or newer."""
    return _compare(numbers(have), numbers(want)) >= 0


def admits(specifier: str, version: str) -> bool:
    """Whether a version specifier such as ``>=1.2,<2`` takes a version.

    Raises:
        InputError: the specifier is no list of comparisons.
    """
    for part in filter(None, (part.strip() for part in specifier.split(","))):
        found = re.fullmatch(r"(===?|!=|~=|<=?|>=?)\s*([\w.+!*-]+)", part)
        if not found:
            raise InputError(f"wheels: {part!r} is no version comparison such as >=1.2")
        if not _holds(found[1], numbers(version), found[2]):
            return False
    return True


def read_versions(path: str | Path) -> dict[str, str]:
    """The pinned versions of a constraints file by normalised name; markers play no part.

    Raises:
        InputError: the file is missing.
    """
    versions = {}
    for line in _lines(path):
        found = re.match(r"([\w.-]+)==([\w.+!]+?)(\.\*)?\s*(;|#|$)", line)
        if found:
            versions[normalised(found[1])] = found[2]
    return versions


def read_image(path: str | Path) -> dict[str, str]:
    """All packages of Kaggle's image that a constraints file names, pinned or not: name -> its line.

    Raises:
        InputError: the file is missing.
    """
    found = (re.match(r"([A-Za-z0-9][\w.-]*)", line) for line in _lines(path))
    return {normalised(name[1]): name.string.strip() for name in found if name}


def normalised(name: str) -> str:
    """A project's name as package indexes compare it: lower case, single hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(path: str | Path) -> list[str]:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"wheels: {path} is missing; it holds the versions of Kaggle's image")
    return path.read_text(encoding="utf-8").splitlines()


def _holds(operator: str, have: tuple[int, ...], text: str) -> bool:
    want = numbers(text)
    order = _compare(have, want)
    if operator == "~=":
        return order >= 0 and have[: len(want) - 1] == want[:-1]
    if operator in ("==", "!=") and text.endswith(".*"):
        return (have[: len(want)] == want) == (operator == "==")
    return {
        "==": order == 0,
        "===": order == 0,
        "!=": order != 0,
        "<": order < 0,
        "<=": order <= 0,
        ">": order > 0,
        ">=": order >= 0,
    }[operator]


def _compare(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    for one, other in zip_longest(first, second, fillvalue=0):
        if one != other:
            return 1 if one > other else -1
    return 0
