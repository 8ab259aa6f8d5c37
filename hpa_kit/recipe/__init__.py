"""A whole job as a YAML of stages: checked at once, done in sessions, side by side where it can be."""

from typing import TYPE_CHECKING

from hpa_kit.lazy import lazy

if TYPE_CHECKING:
    from hpa_kit.recipe.run import carry_out
    from hpa_kit.recipe.stages import plan_recipe, read_recipe
    from hpa_kit.recipe.state import STATE, read_state

__getattr__ = lazy(__name__)
