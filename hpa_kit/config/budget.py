"""Settings of the command that measures what the whole job takes: budget."""

from pathlib import Path

from pydantic import Field

from hpa_kit.config.base import Settings
from hpa_kit.config.kinds import Device, Stride


class BudgetSettings(Settings):
    """``hpa-kit budget``: hours and bytes of the whole job, measured on a few fields on this machine."""

    data: Path = Field(description="competition folder, or a folder of images; some training fields are read")
    out: Path = Field(
        Path("budget.md"),
        description="page to write; what stands there of a GPU stays where this machine has none",
    )
    fields: int = Field(4, ge=1, description="fields to measure on, spread over all")
    cores: int = Field(4, ge=1, description="processors that share the work; Kaggle has 4")
    device: Device = Field(
        "auto", description="where networks are measured: auto, only on a GPU; cuda; cpu, on processors"
    )
    backbone: str = Field("resnet50", description="timm model name")
    stride: Stride = Field(32, description="as for train")
    size: int = Field(512, ge=32, le=8192, description="side to which fields are resized")
    batch: int = Field(40, ge=2, description="fields per step of training; halved where memory runs out")
