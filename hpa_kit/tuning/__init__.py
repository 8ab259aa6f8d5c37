"""Choosing an ensemble's weights, scoring function and post-processing, out of fold."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.tuning.tuning import Tuning, tune

__getattr__ = lazy(__name__)
