"""Settings of the command that shows a run or a submission in a browser: report."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from hpa_kit.config.kinds import (
    WEIGHTS,
    Device,
    ImageSettings,
    Paths,
    Rule,
    SegmenterName,
    Split,
    Views,
)


class ReportSettings(ImageSettings):
    """``hpa-kit report``: one HTML file that needs no network."""

    source: Path = Field(description="submission CSV, run folder, or a folder with runs below it")
    out: Path = Field(Path("report.html"), description="HTML file to write")
    data: Path | None = Field(
        None, description="competition folder, or a folder of images: shows fields and their cells"
    )
    split: Split = Field(
        "test", description="which images of a competition folder; a run's train is its fold"
    )
    truth: Path | None = Field(None, description="truth of every cell; by default that of simulated data")
    members: Paths = Field((), description="runs whose maps or crops are shown with a submission")
    ensemble: Path | None = Field(None, description="ensemble YAML, in place of members")
    masks: Path | None = Field(None, description="label maps of a run's fields; by default they are found")
    segmenter: SegmenterName | None = Field(
        None, description="who finds cells of a run's fields that masks lacks; as for infer"
    )
    weights: Path | None = Field(None, description=WEIGHTS)
    rule: Rule | None = Field(None, description="how a run's cells are scored; as for infer")
    views: Views | None = Field(None, description="test-time views of the members; as for infer")
    map_size: int | None = Field(None, ge=16, le=4096, description="side of the class maps; as for infer")
    fields: int = Field(500, ge=0, description="most fields shown, spread over the table")
    side: int = Field(320, ge=32, le=2048, description="longer side of a field's picture in pixels")
    quality: int = Field(60, ge=1, le=100, description="of the pictures (WebP); more is larger")
    batch: int = Field(8, ge=1, le=4096, description="fields per step of the members")
    workers: int = Field(2, ge=1, le=256, description="threads that read and draw fields")
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:1")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.members and self.ensemble is not None:
            raise ValueError("both members and ensemble are given; give one of them")
        if self.data is None and (self.ensemble is not None or self.masks is not None):
            raise ValueError("ensemble and masks are for fields; give data, the folder that holds them")
        return self
