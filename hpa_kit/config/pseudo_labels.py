"""Settings of the command that makes labels of cells to learn from: pseudo-labels."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from hpa_kit.config.ensemble import EnsembleSettings, LabelledEnsembleSettings
from hpa_kit.config.infer import StreamSettings
from hpa_kit.config.kinds import PACK, ClusterSettings, ExternalMode, InChannels, shard_exists


class PseudoLabelSettings(StreamSettings, ClusterSettings):
    """``hpa-kit pseudo-labels``: scores of the cells of training fields, to learn from."""

    ensemble_kind: ClassVar[type[EnsembleSettings]] = LabelledEnsembleSettings

    out: Path = Field(description="folder to write, train's --pseudo-labels")
    labels: Literal["hard", "soft"] = Field(
        "hard",
        description="hard: confidences as the 15th place's, learnt above a threshold; soft: probabilities",
    )
    negative_check: bool = Field(
        True, description="of hard labels: a cell is Negative alone or not at all, as the 15th place had it"
    )
    floor: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of soft labels: what no cell is below in a class of its image; the 1st place's .25",
    )
    out_of_fold: bool = Field(
        True, description="each field by the members that have not learnt from it, where there are any"
    )
    seen: Literal["auto", "refuse", "take"] = Field(
        "auto",
        description="fields that every member has learnt from: refuse to label them, or take what all say; "
        "auto refuses where labels are soft",
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
    pack: bool = Field(False, description=PACK)
    shard: int = Field(0, ge=0, description="which share of the fields to do, counted from 0")
    shards: int = Field(1, ge=1, description="shares that the sorted fields are cut into")

    _shard_exists = model_validator(mode="after")(shard_exists)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.floor and self.labels != "soft":
            raise ValueError(f"floor {self.floor:g} is of soft labels; give labels soft too, or no floor")
        if self.seen == "refuse" and not self.out_of_fold:
            raise ValueError(
                "seen refuse needs out_of_fold: else all members label what they have learnt from"
            )
        return self

    @property
    def refuses_seen(self) -> bool:
        """Whether fields that every member has learnt from are refused."""
        return self.out_of_fold and (self.seen == "refuse" or (self.seen == "auto" and self.labels == "soft"))
