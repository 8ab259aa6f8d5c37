"""Augmentation: fields and their masks changed as a policy says, each draw decided by a seed of its own.

A policy is data: a list of albumentations transforms and their parameters, by number or in a YAML file.
"""

import inspect
import itertools
import os
import random
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hpa_kit.config import load_yaml, nearest
from hpa_kit.errors import InputError

# albumentations asks the network for a newer version when it is imported, unless it is told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations
import cv2

Image = NDArray[np.uint8]
Mask = NDArray[Any]
Policy = Sequence[Any]

_POLICY = ("policy", "recipe")  # what an entry that stands for a built-in policy is called, now and before
_TRIED_SIDE = 64  # policies are built for this side when they are named, so that faults show at once
_MAX_EXACT = 2**24  # whole numbers up to here are exact as float32
_OPENCV_CHANNELS = 4  # of an array that OpenCV transposes, whatever its dtype

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


_TURNED = {
    "Affine": {
        "scale": [0.8, 1.2],
        "rotate": [-180, 180],
        "keep_ratio": True,
        "balanced_scale": True,
        "p": 1.0,
    }
}

# 0 to 5 are the policies of the competition's 15th place, for fields that have their final size.
POLICIES: dict[int, Policy] = {
    0: [],
    1: _FLIPS,
    2: [_CROP, *_FLIPS],
    3: [_dropout("size/4", 0.6), *_FLIPS],
    4: [_dropout("size/3", 0.4), *_FLIPS],
    5: [_CROP, _dropout("size/4", 0.6), *_FLIPS],
    6: [_TURNED, *_FLIPS],
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


class Augmentation:
    """Changes fields as a policy says; the same seed always changes a field in the same way.

    Policies (0 to 5 are the competition's 15th place's; all for fields that already have their final size, so
    a crop is taken from the field as it is stored and enlarged to its side again):

    * 0 changes nothing.
    * 1: both flips and the transpose, each in one of two cases, and a rotation by 0 to 3 right angles.
    * 2: a crop of 75 to 100 % of the area, sides 3:4 to 4:3, then 1.
    * 3: in 60 % of the cases a grid of dropped squares, 40 % of a unit between a quarter of the side and the
      side; then 1. Dropped parts are 0 in the field and in the mask.
    * 4: as 3 with a unit from a third on, in 40 % of the cases.
    * 5: the crop of 2, the dropping of 3, then 1.
    * 6: turned by any angle, at 0.8 to 1.2 times its scale, black where nothing was; then 1. For crops.

    Args:
        policy: its number, a YAML file with a list of ``{transform: parameters}``, or that list; see
            :func:`build`.

    Raises:
        InputError: there is no such policy, or one of its transforms or parameters is unknown or refused.
    """

    def __init__(self, policy: int | str | Path | Policy) -> None:
        self.policy = read_policy(policy)
        self.source = f"policy {policy}" if isinstance(policy, int | str | Path) else "policy"
        self._built: dict[tuple[int, int], Any] = {}
        self._of_size(_TRIED_SIDE, _TRIED_SIDE)

    @overload
    def __call__(self, image: Image, seed: tuple[int, ...], mask: None = None) -> Image: ...
    @overload
    def __call__(self, image: Image, seed: tuple[int, ...], mask: Mask) -> tuple[Image, Mask]: ...
    def __call__(
        self, image: Image, seed: tuple[int, ...], mask: Mask | None = None
    ) -> Image | tuple[Image, Mask]:
        """A field changed, and its mask or label map in the same way; both are left as they were.

        Args:
            image: uint8 (H, W, channels), channels last, as albumentations has it.
            seed: whole numbers from 0, such as run, epoch and field.
            mask: bool, whole numbers up to 2^24, or float32, (H, W) or (H, W, channels); resampled nearest.

        Returns:
            The field, or field and mask, of the same dtype and size; right angles swap the sides of fields
            that are not square.

        Raises:
            InputError: the mask has another size or dtype, or the policy cannot be used for such fields.
        """
        if mask is not None:
            _check_mask(image, mask)
        if not self.policy:
            return image if mask is None else (image, mask)
        compose = self._of_size(*image.shape[:2])
        generator = np.random.default_rng(seed)
        # Generators that all transforms share: set_random_seed would give each the same draws, so that
        # horizontal and vertical flips would always come together.
        compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        try:
            changed = compose(image=image, **({} if mask is None else {"mask": _plain(mask)}))
        except (ValueError, TypeError, KeyError, cv2.error) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"augmentation: {self.source} cannot be used on {image.shape} fields: {reason}"
            ) from None
        self._check_unspoilt(changed["image"], image)
        if mask is None:
            return changed["image"]
        return changed["image"], changed["mask"].astype(mask.dtype, copy=False)

    def _of_size(self, height: int, width: int) -> Any:
        if (height, width) not in self._built:
            self._built[height, width] = build(self.policy, height, width, self.source)
        return self._built[height, width]

    def _check_unspoilt(self, changed: Any, image: Image) -> None:
        """Refuse what a batch cannot hold, such as another size or floats."""
        shapes = (image.shape, (image.shape[1], image.shape[0], image.shape[2]))
        if not isinstance(changed, np.ndarray) or changed.dtype != image.dtype or changed.shape not in shapes:
            found = f"{getattr(changed, 'dtype', type(changed).__name__)} {tuple(changed.shape)}"
            raise InputError(
                f"augmentation: {self.source} makes {found} of a field {image.dtype} {image.shape}; "
                "leave out what changes size or dtype (fields are normalised in the network)"
            )


def _check_mask(image: Image, mask: Mask) -> None:
    if mask.shape[:2] != image.shape[:2] or mask.ndim not in (2, 3):
        raise InputError(
            f"augmentation: the mask is {mask.shape}, the field {image.shape}; "
            "expected the same height and width"
        )
    kinds = (np.bool_, np.integer)
    if mask.dtype != np.float32 and not any(np.issubdtype(mask.dtype, kind) for kind in kinds):
        raise InputError(f"augmentation: the mask is {mask.dtype}; expected bool, whole numbers or float32")


def _plain(mask: Mask) -> Mask:
    """A mask in a dtype that all of OpenCV takes and that holds its numbers exactly: uint8 or float32."""
    if mask.dtype == np.bool_:
        return mask.astype(np.uint8)
    if mask.dtype in (np.uint8, np.float32):
        return mask
    if mask.size and max(int(mask.max()), -int(mask.min())) > _MAX_EXACT:
        raise InputError(f"augmentation: the mask holds {mask.max()}; expected numbers up to {_MAX_EXACT}")
    return mask.astype(np.float32)


def read_policy(which: int | str | Path | Policy) -> Policy:
    """A policy by its number, from a YAML file, or as it is.

    Raises:
        InputError: there is no such number, or the file cannot be read or holds no list.
    """
    if isinstance(which, int):
        if which not in POLICIES:
            raise InputError(
                f"augmentation: there is no policy {which}; known are {sorted(POLICIES)} and YAML files"
            )
        return POLICIES[which]
    content = load_yaml(which, "augmentation", texts=False) if isinstance(which, str | Path) else which
    if not isinstance(content, list | tuple):
        raise InputError(
            f"augmentation: {which} holds a {type(content).__name__}; expected a list of transforms, "
            "such as '- HorizontalFlip: {p: 0.5}'"
        )
    return content


class RightAngles(albumentations.DualTransform):
    """Does flips, rotations by right angles and transposes that follow one another in one go.

    Each draws as it does by itself, so a seed gives the same pixels. They are moved once, by OpenCV: NumPy,
    which albumentations turns with, takes twenty times as long for pixels of four bytes.

    Args:
        steps: HorizontalFlip, VerticalFlip, RandomRotate90 and Transpose, in the order in which they come.
    """

    def __init__(self, steps: Sequence[Any]) -> None:
        super().__init__(p=1.0)
        self.steps = list(steps)

    def set_random_state(self, random_generator: np.random.Generator, py_random: random.Random) -> None:
        """Have every step draw from these generators."""
        super().set_random_state(random_generator, py_random)
        for step in self.steps:
            step.set_random_state(random_generator, py_random)

    def get_params(self) -> dict[str, Any]:
        """Draw every step; together they are a transpose or none, then rows and columns reversed or not."""
        transposed = rows = columns = False
        for step in self.steps:
            if not step.should_apply():
                continue
            if isinstance(step, albumentations.HorizontalFlip):
                columns = not columns
            elif isinstance(step, albumentations.VerticalFlip):
                rows = not rows
            elif isinstance(step, albumentations.Transpose):
                transposed, rows, columns = not transposed, columns, rows
            else:  # quarter turns against the clock, each a transpose and then the rows reversed
                for _ in range(step.get_params()["factor"]):
                    transposed, rows, columns = not transposed, not columns, rows
        return {"transposed": transposed, "rows": rows, "columns": columns}

    def apply(self, img: Mask, transposed: bool, rows: bool, columns: bool, **_: Any) -> Mask:
        """Move the pixels of a field or a mask, (H, W) or (H, W, channels)."""
        if img.ndim == 3 and not 1 < img.shape[2] <= _OPENCV_CHANNELS:
            moved = img.swapaxes(0, 1) if transposed else img
            return moved[:: -1 if rows else 1, :: -1 if columns else 1]
        moved = cv2.transpose(img) if transposed else img
        if rows or columns:
            moved = cv2.flip(moved, -1 if rows and columns else int(columns))
        return moved


_RIGHT_ANGLES = (
    albumentations.HorizontalFlip,
    albumentations.VerticalFlip,
    albumentations.RandomRotate90,
    albumentations.Transpose,
)


def _joined(transforms: Sequence[Any]) -> list[Any]:
    """The same transforms, those of right angles that follow one another as one."""
    joined: list[Any] = []
    for right_angles, group in itertools.groupby(transforms, lambda one: type(one) in _RIGHT_ANGLES):
        some = list(group)
        joined += [RightAngles(some)] if right_angles else some
    return joined


def build(policy: Policy, height: int, width: int, source: str) -> albumentations.Compose:
    """The transforms of a policy, for fields of one size; masks are resampled nearest whatever it says.

    Each entry is ``{name: parameters}``, a name alone, or ``{policy: number}`` for all of a built-in one;
    files that were written before say ``recipe`` for it.
    Parameters are albumentations' own; ``transforms`` of a OneOf and its like is a list of the same form, and
    ``height``, ``width`` and ``size`` (the shorter of them), also divided as in ``size/4``, stand for pixels
    of the field.

    Args:
        policy: the entries.
        height, width: of the fields, in pixels.
        source: what to call the policy in an error, such as the YAML's path.

    Raises:
        InputError: a transform or parameter is unknown, or a value is refused.
    """
    sides = {"height": height, "width": width, "size": min(height, width)}
    transforms = _transforms(policy, sides, source)
    return albumentations.Compose(_joined(transforms), mask_interpolation=cv2.INTER_NEAREST)


def _transforms(policy: Any, sides: Mapping[str, int], source: str) -> list[Any]:
    if not isinstance(policy, list | tuple):
        raise InputError(f"augmentation: {source}: expected a list of transforms, found {policy!r}")
    built: list[Any] = []
    for entry in policy:
        name, parameters = _named(entry, source)
        if name in _POLICY:
            built += _transforms(read_policy(parameters), sides, source)
        else:
            built.append(_transform(name, {} if parameters is None else parameters, sides, source))
    return built


def _named(entry: Any, source: str) -> tuple[str, Any]:
    """The name and the parameters of an entry."""
    if isinstance(entry, str):
        return entry, None
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, parameters),) = entry.items()
        if name in _POLICY and (isinstance(parameters, bool) or not isinstance(parameters, int)):
            raise InputError(f"augmentation: {source}: {name} is {parameters!r}; expected a number")
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
