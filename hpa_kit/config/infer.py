"""Settings of the commands that predict fields with trained members: infer, predict."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hpa_kit.config.base import make_settings
from hpa_kit.config.ensemble import EnsembleSettings, read_ensemble
from hpa_kit.config.kinds import (
    ALSO,
    DEFAULT_MAP_SIZE,
    DEFAULT_RULE,
    DEFAULT_SEGMENTER,
    DEFAULT_VIEWS,
    PACK,
    WEIGHTS,
    Alsos,
    ClusterSettings,
    ImageSettings,
    Paths,
    Rule,
    SegmenterName,
    Split,
    Views,
    split_text,
    whole_number,
)

Savings = Annotated[tuple[Literal["views", "members", "map_size"], ...], BeforeValidator(split_text)]


def _else(default: object) -> str:
    """What a setting that an ensemble's YAML can say is where it is not given."""
    return f" (default: the ensemble's, else {default})"


class StreamSettings(ImageSettings):
    """What all commands share in which members predict fields: which members, where the cells are, how fast.

    What an ensemble's YAML can say too is None where it is not given, and then says nothing; any other value
    wins over the YAML.
    """

    ensemble_kind: ClassVar[type[EnsembleSettings]] = EnsembleSettings

    data: Path = Field(description="competition folder, or a folder of images")
    members: Paths = Field((), description="run folders or checkpoints that all weigh the same")
    ensemble: Path | None = Field(
        None, description="ensemble YAML, in place of members; options given here win over what it says"
    )
    masks: Path | None = Field(
        None, description="folder of label maps, packed or not: ID.npz, .png, .npy or .tif"
    )
    segmenter: SegmenterName | None = Field(
        None, description=f"who finds cells that masks lacks{_else(DEFAULT_SEGMENTER)}"
    )
    weights: Path | None = Field(None, description=WEIGHTS)
    views: Views | None = Field(
        None,
        description="test-time views of each field by every member: none; flips (as is, horizontal, "
        "vertical); auto or scales, the flips at 1, 1.2 and 1.4 times the size of classifiers below 1024 px"
        f"{_else(DEFAULT_VIEWS)}",
    )
    map_size: int | None = Field(
        None,
        ge=16,
        le=4096,
        description=f"side of the class maps on which cells are scored{_else(DEFAULT_MAP_SIZE)}",
    )
    crop: int | None = Field(
        None,
        ge=32,
        le=4096,
        description="of SubCell: side of the crops that become its 448 pixels, in pixels of 0.08 µm "
        "(default: the ensemble's, else as converted)",
    )
    batch: int = Field(8, ge=1, le=4096, description="fields per step")
    workers: int = Field(2, ge=0, le=256, description="threads that read fields and find cells")
    device: str = Field(
        "auto",
        description="auto (all GPUs, or the cpu), cpu, cuda:1, or several to share the fields: cuda:0,cuda:1",
    )
    amp: bool = Field(True, description="half precision on a GPU")

    @model_validator(mode="after")
    def _one_source_of_members(self) -> Self:
        if not self.members and self.ensemble is None:
            raise ValueError("no members; give members (run folders or checkpoints), or ensemble (a YAML)")
        if self.members and self.ensemble is not None:
            raise ValueError("both members and ensemble are given; give one of them")
        return self

    def of_ensemble(self) -> EnsembleSettings:
        """Members and rules as one object: of the YAML, or of the members, with what was given beside them.

        Raises:
            InputError: the YAML cannot be read.
        """
        if self.ensemble is not None:
            whole = read_ensemble(self.ensemble, self.ensemble_kind)
        else:
            whole = make_settings(EnsembleSettings, {"members": self.members})
        names = EnsembleSettings.model_fields.keys() - {"members"}
        given = {name: getattr(self, name, None) for name in names}
        update: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        own = {name: getattr(self, name) for name in ("views", "crop")}
        if changed := {name: value for name, value in own.items() if value is not None}:
            update["members"] = tuple(member.model_copy(update=changed) for member in whole.members)
        return whole.model_copy(update=update)

    def with_defaults(self) -> Self:
        """These settings with defaults in the place of None, as earlier versions of the kit kept them."""
        defaults = {"segmenter": DEFAULT_SEGMENTER, "views": DEFAULT_VIEWS, "map_size": DEFAULT_MAP_SIZE}
        lacking = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return self.model_copy(update=lacking)


class ScoreSettings(StreamSettings):
    """What infer and predict share: a CSV of cell scores of any split."""

    out: Path = Field(description="CSV to write; NAME_seconds.yaml beside it says what a field took")
    split: Split = Field("test", description="which images of a competition folder")
    rule: Rule | None = Field(
        None,
        description="how a cell's confidence is formed; cam_share is the 15th place's; docs/ensembles.md"
        f"{_else(DEFAULT_RULE)}",
    )


class InferSettings(ScoreSettings):
    """``hpa-kit infer``: class maps x label maps -> submission.csv."""

    budget: float = Field(8.5, gt=0, description="hours that all may take; Kaggle stops at 9")
    spent: float = Field(
        0.0, ge=0, description="hours of it that are gone already, such as since a notebook began"
    )
    give_up: Savings = Field(
        ("views", "members", "map_size"),
        description="what is given up, in order, where the budget is too short: test-time views, members "
        "from the least weight on, the maps' size",
    )

    @field_validator("give_up")
    @classmethod
    def _each_once(cls, value: Savings) -> Savings:
        if len(set(value)) < len(value):
            raise ValueError("expected each of views, members and map_size once at most")
        return value


class PredictSettings(ScoreSettings, ClusterSettings):
    """``hpa-kit predict``: a table with a row per cell of any folder of fields."""

    out: Path = Field(
        description="table to write, .csv, .parquet or .h5ad (AnnData); NAME_seconds.yaml beside it says "
        "what a field took"
    )
    label_maps: Path | None = Field(
        None,
        description="folder for ID.npz label maps; by default beside out, named as it is, _label_maps behind",
    )
    pack: bool = Field(False, description=PACK)
    classes: Annotated[Literal[19, 31], BeforeValidator(whole_number)] = Field(
        19, description="columns of the table: the competition's 19, or all 31 that SubCell tells apart"
    )
    also: Alsos = Field((), description=ALSO)
