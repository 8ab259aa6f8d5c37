"""Settings of the steps that adjust cell scores after a rule has formed them, one class per step.

In YAML a step is its name, or its name with options: ``negative`` or ``{step: fuse, cell: 0.7}``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from hpa_kit.classes import N_CLASSES
from hpa_kit.config.base import Settings, make_settings, nearest
from hpa_kit.errors import InputError

PerClass = Annotated[tuple[float, ...], Field(min_length=N_CLASSES, max_length=N_CLASSES)]


class ImageStep(Settings):
    """Every class x its image score: for a rule that takes the cell by itself."""

    step: Literal["image"] = "image"


class FuseStep(Settings):
    """A part of the cell's own score and the rest of the mean over the image's cells."""

    step: Literal["fuse"] = "fuse"
    cell: float = Field(default=0.7, ge=0, le=1, description="part of the cell's own score")


class CalibrateStep(Settings):
    """Score p -> sigmoid(slope x logit(p) + image x logit(image score) + intercept), per class.

    The numbers are fitted on fields whose members have not seen them; ``hpa-kit tune`` does.
    """

    step: Literal["calibrate"] = "calibrate"
    slope: PerClass = Field(description="factor of the score's logit, per class")
    image: PerClass = Field(description="factor of the image score's logit, per class")
    intercept: PerClass = Field(description="what is added, per class")


class NegativeStep(Settings):
    """Negative = as far as the cell shows nothing else: the least of all 1 - p."""

    step: Literal["negative"] = "negative"


class OthersStep(Settings):
    """Every other class x (1 - p of Negative)."""

    step: Literal["others"] = "others"


class SmallStep(Settings):
    """Cells that are small, or cut by the border, score less: x min(1, area / full area).

    Areas are in pixels of a field of 2048 x 2048, to which fields of other sizes are scaled, so that a field
    says the same at any resolution.
    """

    step: Literal["small"] = "small"
    border: float = Field(default=80_000, ge=0, description="full area of a cell at the border; 0 is off")
    inside: float = Field(default=32_000, ge=0, description="full area of a cell inside; 0 is off")


class FillStep(Settings):
    """A class that the rule dropped from a cell gets a part of its image score: last, but there."""

    step: Literal["fill"] = "fill"
    part: float = Field(default=0.001, gt=0, le=1, description="part of the image score")


class FloorStep(Settings):
    """Scores below the floor are left out: a submission holds every class of every cell above it."""

    step: Literal["floor"] = "floor"
    least: float = Field(default=1e-3, ge=0, lt=1, description="scores below are left out")


class NegativeCheckStep(Settings):
    """The 15th place's Negative check, which it used for pseudo labels: Negative alone or not at all."""

    step: Literal["negative_check"] = "negative_check"


StepSettings = (
    ImageStep | FuseStep | CalibrateStep | NegativeStep | OthersStep
    | SmallStep | FillStep | FloorStep | NegativeCheckStep
)  # fmt: skip
STEPS: dict[str, type[Settings]] = {
    str(kind.model_fields["step"].default): kind for kind in get_args(StepSettings)
}


def make_step(value: Any, source: str = "steps") -> Settings:
    """One step from its name, from its name with options, or as it is.

    Raises:
        InputError: the name or an option is unknown (the nearest known one is named), or has a bad value.
    """
    if isinstance(value, Settings):
        return value
    values = {"step": value} if isinstance(value, str) else value
    if not isinstance(values, Mapping) or "step" not in values:
        raise InputError(f"{source}: expected a step's name, or step: name with options, found {value!r}")
    name = values["step"]
    if not isinstance(name, str) or name not in STEPS:
        raise InputError(f"{source}: unknown step {name!r}{nearest(str(name), STEPS)}")
    return make_settings(STEPS[name], values, source=f"{source}: {name}")


def name_of(step: Settings) -> str:
    """A step's name."""
    return str(step.step)  # type: ignore[attr-defined]
