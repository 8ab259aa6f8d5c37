"""Settings of the commands that make or prepare data: simulate, store."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from hpa_kit.classes import N_CLASSES
from hpa_kit.config.base import Settings
from hpa_kit.config.kinds import Classes, FieldSide


class SimulateSettings(Settings):
    """``hpa-kit simulate``: a synthetic competition with the truth of every cell."""

    out: Path = Field(description="folder to write, in the competition's layout")
    train: int = Field(40, ge=0, description="training fields")
    test: int = Field(10, ge=0, description="test fields")
    size: FieldSide = Field(512, description="side of a field in pixels")
    max_size: FieldSide | None = Field(None, description="mix sizes from --size to this")
    square: bool = Field(True, description="square fields; --no-square varies height and width")
    classes: Classes = Field(tuple(range(N_CLASSES)), description="location classes to show, such as 0,2,7")
    seed: int = Field(0, ge=0, description="same seed, same bytes")
    workers: int = Field(2, ge=1, description="processes")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Self:
        if self.max_size is not None and self.max_size < self.size:
            raise ValueError(f"max_size {self.max_size} is below size {self.size}")
        if not self.classes:
            raise ValueError("classes is empty; name at least one location class")
        return self
