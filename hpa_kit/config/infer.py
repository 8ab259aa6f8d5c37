"""Settings of the commands that look at fields with trained members: infer, predict."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from hpa_kit.config.base import Settings, make_settings
from hpa_kit.config.ensemble import EnsembleSettings, read_ensemble
from hpa_kit.config.kinds import Paths, Rule, SegmenterName, Split, Views, split_text

Savings = Annotated[tuple[Literal["views", "members", "map_size"], ...], BeforeValidator(split_text)]


class LookSettings(Settings):
    """What all commands share in which members look at fields: who looks, where the cells are, how fast."""

    ensemble_kind: ClassVar[type[EnsembleSettings]] = EnsembleSettings

    data: Path = Field(description="competition folder, or a folder of images")
    members: Paths = Field((), description="run folders or checkpoints that all weigh the same")
    ensemble: Path | None = Field(
        None, description="ensemble YAML, in place of members; options given here win over what it says"
    )
    masks: Path | None = Field(None, description="folder of label maps: ID.npz, .png, .npy or .tif")
    segmenter: SegmenterName = Field("auto", description="who finds cells that masks lacks")
    weights: Path | None = Field(None, description="folder of the two published networks")
    views: Views = Field("flips", description="test-time views of each field by members")
    map_size: int = Field(512, ge=16, le=4096, description="side of the class maps on which cells are scored")
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
        if self.ensemble is not None and self.views != "flips":
            raise ValueError("views is for members; the ensemble's YAML gives each of its members its views")
        return self

    def of_ensemble(self) -> EnsembleSettings:
        """Members and rules as one object: of the YAML, with what was given beside it, or of the members.

        Raises:
            InputError: the YAML cannot be read.
        """
        names = {"rule", "map_size", "masks", "segmenter", "weights"} & type(self).model_fields.keys()
        given = {name: getattr(self, name) for name in names}
        if self.ensemble is not None:
            set_here = {name: value for name, value in given.items() if name in self.model_fields_set}
            return read_ensemble(self.ensemble, self.ensemble_kind).model_copy(update=set_here)
        views = "auto" if self.views == "scales" else self.views
        members = [{"checkpoint": path, "views": views} for path in self.members]
        return make_settings(EnsembleSettings, {"members": members}, given)


class ScoreSettings(LookSettings):
    """What infer and predict share: a CSV of cell scores of any split."""

    out: Path = Field(description="CSV to write; NAME_seconds.yaml beside it says what a field took")
    split: Split = Field("test", description="which images of a competition folder")
    rule: Rule = Field(
        "best",
        description="how a cell's confidence is formed; cam_share is the 15th place's; docs/ensembles.md",
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


class PredictSettings(ScoreSettings):
    """``hpa-kit predict``: a table with a row per cell of any folder of fields."""

    label_maps: Path | None = Field(
        None,
        description="folder for ID.npz label maps; by default beside out, named as it is, _label_maps behind",
    )
