"""Augmentation: recipes of albumentations transforms, each draw decided by a seed of its own."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpa_kit.errors import InputError

# albumentations asks the network for a newer version when it is imported, unless it is told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations

Image = NDArray[np.uint8]


def recipe(number: int | Path) -> list[Any]:
    """The transforms of an augmentation recipe, for fields that have their final size.

    0 changes nothing. 1, of the 15th-place solution: both flips and the transpose, each in one of two cases,
    and a rotation by a random number of right angles.

    Raises:
        InputError: there is no such recipe.
    """
    recipes = {
        0: [],
        1: [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.VerticalFlip(p=0.5),
            albumentations.RandomRotate90(p=1.0),
            albumentations.Transpose(p=0.5),
        ],
    }
    if not isinstance(number, int) or number not in recipes:
        raise InputError(f"augmentation: there is no recipe {number}; known are {sorted(recipes)}")
    return recipes[number]


class Augmentation:
    """Changes fields as a recipe says; the same seed always changes a field in the same way.

    Args:
        number: of the recipe.
    """

    def __init__(self, number: int | Path) -> None:
        transforms = recipe(number)
        self._compose = albumentations.Compose(transforms) if transforms else None

    def __call__(self, image: Image, seed: tuple[int, ...]) -> Image:
        """A field, uint8 (S, S, 4), changed.

        Args:
            image: channels last, as albumentations has it.
            seed: whole numbers from 0, such as run, epoch and field.
        """
        if self._compose is None:
            return image
        generator = np.random.default_rng(seed)
        # Generators that all transforms share: set_random_seed would give each the same draws, so that
        # horizontal and vertical flips would always come together.
        self._compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        changed: Image = self._compose(image=image)["image"]
        return changed
