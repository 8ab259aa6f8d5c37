"""Settings of the command that shows the whole job: demo."""

from pathlib import Path

from pydantic import Field

from hpa_kit.config.base import Settings
from hpa_kit.config.kinds import Classes, FieldSide, Stride, StrideBy


class DemoSettings(Settings):
    """``hpa-kit demo``: the whole job on simulated fields, in minutes on two cores."""

    out: Path = Field(Path("demo"), description="folder to write")
    train: int = Field(400, ge=10, description="training fields")
    test: int = Field(100, ge=1, description="test fields")
    size: FieldSide = Field(128, description="side of a field in pixels")
    classes: Classes = Field((0, 1, 2, 7, 13, 14), description="location classes to show")
    backbone: str = Field("resnet10t", description="timm model name")
    stride: Stride = Field(8, description="input pixels per map pixel")
    stride_by: StrideBy = Field("both", description="as for train")
    epochs: int = Field(16, ge=1, description="passes over the training fields")
    seed: int = Field(0, ge=0, description="seed of everything")
