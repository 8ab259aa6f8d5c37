"""Settings of the command that finds cells: segment."""

from pathlib import Path

from pydantic import Field, model_validator

from hpa_kit.config.kinds import (
    ALSO,
    DEFAULT_SEGMENTER,
    PACK,
    WEIGHTS,
    Alsos,
    ClusterSettings,
    ImageSettings,
    InChannels,
    SegmenterName,
    Split,
    shard_exists,
)


class SegmentSettings(ImageSettings, ClusterSettings):
    """``hpa-kit segment``: label maps of all fields, kept."""

    data: Path = Field(description="competition folder, or a folder of images")
    out: Path = Field(description="folder for ID.npz label maps")
    split: Split = Field("test", description="which images of a competition folder")
    segmenter: SegmenterName = Field(DEFAULT_SEGMENTER, description="who finds the cells")
    weights: Path | None = Field(None, description=WEIGHTS)
    in_channels: InChannels = Field(
        4, description="4 needs red, green, blue, yellow; 3 takes fields without yellow too"
    )
    pack: bool = Field(False, description=PACK)
    also: Alsos = Field((), description=ALSO)
    shard: int = Field(0, ge=0, description="which share of the fields to do, counted from 0")
    shards: int = Field(1, ge=1, description="shares that the sorted fields are cut into")
    batch: int = Field(4, ge=1, le=4096, description="fields of one size per step of the networks")
    workers: int = Field(2, ge=1, le=256, description="threads that read, label and write fields")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")

    _shard_exists = model_validator(mode="after")(shard_exists)
