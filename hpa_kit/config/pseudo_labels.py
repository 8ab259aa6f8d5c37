"""Settings of the command that makes labels of cells to learn from: pseudo-labels."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from hpa_kit.config.ensemble import EnsembleSettings, LabelledEnsembleSettings
from hpa_kit.config.infer import LookSettings
from hpa_kit.config.kinds import ExternalMode, InChannels, shard_exists


class PseudoLabelSettings(LookSettings):
    """``hpa-kit pseudo-labels``: scores of the cells of training fields, for stage 2."""

    ensemble_kind: ClassVar[type[EnsembleSettings]] = LabelledEnsembleSettings

    out: Path = Field(description="folder to write, train's --pseudo-labels")
    labels: Literal["hard", "soft"] = Field(
        "hard",
        description="hard: confidences as the 15th place's, learnt above a threshold; soft: probabilities",
    )
    negative_check: bool = Field(
        True, description="of hard labels: a cell is Negative alone or not at all, as the 15th place had it"
    )
    out_of_fold: bool = Field(
        True, description="each field by the members that have not learnt from it, where there are any"
    )
    external: Path | None = Field(
        None, description="table of external fields, publichpa-withcellline_processed.csv"
    )
    external_images: Path | None = Field(None, description="folder of their images")
    external_mode: ExternalMode = Field(
        0, description="which external fields: the 15th place's modes 0 to 6, -1 for all"
    )
    in_channels: InChannels = Field(
        4, description="4 needs red, green, blue, yellow; 3, for members of three, no yellow"
    )
    shard: int = Field(0, ge=0, description="which share of the fields to do, counted from 0")
    shards: int = Field(1, ge=1, description="shares that the sorted fields are cut into")

    _shard_exists = model_validator(mode="after")(shard_exists)
