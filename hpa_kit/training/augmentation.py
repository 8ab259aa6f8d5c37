"""Augmentation: fields and their masks changed as a recipe says, each draw decided by a seed of its own."""

import random
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from hpa_kit.errors import InputError
from hpa_kit.training.recipes import Recipe, build, read_recipe

Image = NDArray[np.uint8]
Mask = NDArray[Any]

_TRIED_SIDE = 64  # recipes are built for this side when they are named, so that faults show at once
_MOST_EXACT = 2**24  # whole numbers up to here are exact as float32


class Augmentation:
    """Changes fields as a recipe says; the same seed always changes a field in the same way.

    Recipes (the competition's 15th place; all for fields that already have their final size, so a crop is
    taken from the field as it is stored and enlarged to its side again):

    * 0 changes nothing.
    * 1: both flips and the transpose, each in one of two cases, and a rotation by 0 to 3 right angles.
    * 2: a crop of 75 to 100 % of the area, sides 3:4 to 4:3, then 1.
    * 3: in 60 % of the cases a grid of dropped squares, 40 % of a unit between a quarter of the side and the
      side; then 1. Dropped parts are 0 in the field and in the mask.
    * 4: as 3 with a unit from a third on, in 40 % of the cases.
    * 5: the crop of 2, the dropping of 3, then 1.

    Args:
        recipe: its number, a YAML file with a list of ``{transform: parameters}``, or that list; see
            :func:`hpa_kit.training.recipes.build`.

    Raises:
        InputError: there is no such recipe, or one of its transforms or parameters is unknown or refused.
    """

    def __init__(self, recipe: int | str | Path | Recipe) -> None:
        self.recipe = read_recipe(recipe)
        self.source = f"recipe {recipe}" if isinstance(recipe, int | str | Path) else "recipe"
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
            InputError: the mask has another size or dtype, or the recipe cannot be used for such fields.
        """
        if mask is not None:
            _check_mask(image, mask)
        if not self.recipe:
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
            self._built[height, width] = build(self.recipe, height, width, self.source)
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
    if mask.size and max(int(mask.max()), -int(mask.min())) > _MOST_EXACT:
        raise InputError(f"augmentation: the mask holds {mask.max()}; expected numbers up to {_MOST_EXACT}")
    return mask.astype(np.float32)
