"""Settings of the commands that make or prepare data: simulate, store."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from hpa_kit.classes import N_CLASSES
from hpa_kit.config.base import Settings
from hpa_kit.config.kinds import Classes, ExternalMode, FieldSide, ImageSettings, InChannels, shard_exists


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
    workers: int = Field(2, ge=1, le=256, description="processes")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Self:
        if self.max_size is not None and self.max_size < self.size:
            raise ValueError(f"max_size {self.max_size} is below size {self.size}")
        if not self.classes:
            raise ValueError("classes is empty; name at least one location class")
        return self


class StoreSettings(ImageSettings):
    """``hpa-kit store``: fields resized once, to be read many times."""

    data: Path = Field(description="competition folder, or a folder of images")
    out: Path = Field(description="folder to write, train's --store; it may hold several sizes")
    size: int = Field(512, ge=32, le=8192, description="side to which fields are resized")
    in_channels: InChannels = Field(4, description="4 keeps red, green, blue, yellow; 3 leaves yellow out")
    external: Path | None = Field(
        None, description="table of external fields, publichpa-withcellline_processed.csv"
    )
    external_images: Path | None = Field(None, description="folder of their images")
    external_mode: ExternalMode = Field(
        1, description="which external fields: the 15th place's modes 0 to 6, -1 for all"
    )
    shard: int = Field(0, ge=0, description="which share of the fields to do, counted from 0")
    shards: int = Field(1, ge=1, description="shares that the sorted fields are cut into")
    workers: int = Field(2, ge=1, le=256, description="threads that read, resize and write fields")

    _shard_exists = model_validator(mode="after")(shard_exists)
