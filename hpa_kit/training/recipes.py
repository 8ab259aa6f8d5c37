"""Augmentation recipes as data: lists of albumentations transforms and their parameters."""

import inspect
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpa_kit.config import load_yaml, nearest
from hpa_kit.errors import InputError

# albumentations asks the network for a newer version when it is imported, unless it is told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations
import cv2

Recipe = Sequence[Any]

_FLIPS = [
    {"HorizontalFlip": {"p": 0.5}},
    {"VerticalFlip": {"p": 0.5}},
    {"RandomRotate90": {"p": 1.0}},
    {"Transpose": {"p": 0.5}},
]
_CROP = {
    "RandomResizedCrop": {"size": ["height", "width"], "scale": [0.75, 1.0], "ratio": [0.75, 1.333], "p": 1.0}
}


def _dropout(smallest: str, p: float) -> dict[str, Any]:
    return {
        "GridDropout": {
            "ratio": 0.4,
            "unit_size_range": [smallest, "size"],
            "random_offset": True,
            "fill": 0,
            "fill_mask": 0,
            "p": p,
        }
    }


# The recipes of the competition's 15th place, for fields that have their final size.
RECIPES: dict[int, Recipe] = {
    0: [],
    1: _FLIPS,
    2: [_CROP, *_FLIPS],
    3: [_dropout("size/4", 0.6), *_FLIPS],
    4: [_dropout("size/3", 0.4), *_FLIPS],
    5: [_CROP, _dropout("size/4", 0.6), *_FLIPS],
}

_LENGTH = re.compile(r"(size|height|width)(?:/([1-9][0-9]*))?")
_KINDS = (albumentations.BasicTransform, albumentations.BaseCompose)
_BASES = {
    *_KINDS,
    albumentations.DualTransform,
    albumentations.ImageOnlyTransform,
    albumentations.Transform3D,
}
_KNOWN = {
    name: kind
    for name, kind in vars(albumentations).items()
    if inspect.isclass(kind) and issubclass(kind, _KINDS) and kind not in _BASES
}


def read_recipe(which: int | str | Path | Recipe) -> Recipe:
    """A recipe by its number, from a YAML file, or as it is.

    Raises:
        InputError: there is no such number, or the file cannot be read or holds no list.
    """
    if isinstance(which, int):
        if which not in RECIPES:
            raise InputError(
                f"augmentation: there is no recipe {which}; known are {sorted(RECIPES)} and YAML files"
            )
        return RECIPES[which]
    content = load_yaml(which, "augmentation", texts=False) if isinstance(which, str | Path) else which
    if not isinstance(content, list | tuple):
        raise InputError(
            f"augmentation: {which} holds a {type(content).__name__}; expected a list of transforms, "
            "such as '- HorizontalFlip: {p: 0.5}'"
        )
    return content


def build(recipe: Recipe, height: int, width: int, source: str) -> albumentations.Compose:
    """The transforms of a recipe, for fields of one size; masks are resampled nearest whatever it says.

    Each entry is ``{name: parameters}``, a name alone, or ``{recipe: number}`` for all of a built-in one.
    Parameters are albumentations' own; ``transforms`` of a OneOf and its like is a list of the same form, and
    ``height``, ``width`` and ``size`` (the shorter of them), also divided as in ``size/4``, stand for pixels
    of the field.

    Args:
        recipe: the entries.
        height, width: of the fields, in pixels.
        source: what to call the recipe in an error, such as the YAML's path.

    Raises:
        InputError: a transform or parameter is unknown, or a value is refused.
    """
    sides = {"height": height, "width": width, "size": min(height, width)}
    transforms = _transforms(recipe, sides, source)
    return albumentations.Compose(transforms, mask_interpolation=cv2.INTER_NEAREST)


def _transforms(recipe: Any, sides: Mapping[str, int], source: str) -> list[Any]:
    if not isinstance(recipe, list | tuple):
        raise InputError(f"augmentation: {source}: expected a list of transforms, found {recipe!r}")
    built: list[Any] = []
    for entry in recipe:
        name, parameters = _named(entry, source)
        if name == "recipe":
            built += _transforms(read_recipe(parameters), sides, source)
        else:
            built.append(_transform(name, {} if parameters is None else parameters, sides, source))
    return built


def _named(entry: Any, source: str) -> tuple[str, Any]:
    """The name and the parameters of an entry."""
    if isinstance(entry, str):
        return entry, None
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, parameters),) = entry.items()
        if name == "recipe" and (isinstance(parameters, bool) or not isinstance(parameters, int)):
            raise InputError(f"augmentation: {source}: recipe is {parameters!r}; expected a number")
        return str(name), parameters
    raise InputError(
        f"augmentation: {source}: an entry is {entry!r}; expected one name and its parameters, "
        "such as 'HorizontalFlip: {p: 0.5}'"
    )


def _transform(name: str, parameters: Any, sides: Mapping[str, int], source: str) -> Any:
    kind = _KNOWN.get(name)
    if kind is None:
        raise InputError(f"augmentation: {source}: albumentations has no {name!r}{nearest(name, _KNOWN)}")
    if not isinstance(parameters, Mapping):
        raise InputError(
            f"augmentation: {source}: {name} has {parameters!r}; expected names and values of parameters"
        )
    known = [parameter for parameter in inspect.signature(kind).parameters if parameter != "self"]
    given = {}
    for key, value in parameters.items():
        if key not in known:
            raise InputError(
                f"augmentation: {source}: {name} has no parameter {key!r}{nearest(str(key), known)}"
            )
        given[key] = _transforms(value, sides, source) if key == "transforms" else _lengths(value, sides)
    try:
        with warnings.catch_warnings():  # what albumentations only warns of here would be silently left out
            warnings.simplefilter("error")
            return kind(**given)
    except (ValueError, TypeError, AttributeError, Warning) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"augmentation: {source}: {name} cannot be made: {reason}") from None


def _lengths(value: Any, sides: Mapping[str, int]) -> Any:
    """A parameter with its ``size/4`` and the like as pixels."""
    if isinstance(value, list | tuple):
        return [_lengths(part, sides) for part in value]
    found = _LENGTH.fullmatch(value) if isinstance(value, str) else None
    return value if found is None else max(1, sides[found[1]] // int(found[2] or 1))
