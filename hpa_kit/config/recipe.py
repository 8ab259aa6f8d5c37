"""Settings of the command that does a whole job, stage by stage: recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from hpa_kit.config.base import Settings

SCRATCH = "scratch"  # in the recipe's folder, where no other is given


def _pairs(value: Any) -> Any:
    """Text such as ``weights=cells,external=table.csv`` -> a mapping; anything else as it is."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part]
    wrong = next(("".join(pair) for pair in pairs if not (pair[0] and pair[2])), None)
    if wrong is not None:
        raise ValueError(f"expected NAME=VALUE, several with commas between them, not {wrong!r}")
    return {name.strip(): given for name, _, given in pairs}


class RecipeSettings(Settings):
    """``hpa-kit recipe``: the stages of a whole job, in as many sessions as it takes."""

    recipe: str = Field(description="quick, best, fifteenth, demo, or a YAML file of stages")
    data: Path | None = Field(None, description="competition folder; --plan does without")
    out: Path = Field(Path("recipe"), description="folder to write; a job that was cut off goes on there")
    inputs: Annotated[Mapping[str, Path], BeforeValidator(_pairs)] = Field(
        {}, description="what the recipe takes beside data: NAME=PATH,NAME=PATH; --plan lists the names"
    )
    networks: Annotated[Mapping[str, Any], BeforeValidator(_pairs)] = Field(
        {}, description="options of train that all networks get: NAME=VALUE,NAME=VALUE, such as epochs=2"
    )
    resume_from: Path | None = Field(
        None, description="out of an earlier session, only read: what is done there is taken over"
    )
    past_expected: bool = Field(False, description="refuse to begin anew: an earlier session has to be there")
    time_limit: float | None = Field(
        None, gt=0, description="hours of this session; the job stops in time, and goes on when started again"
    )
    hours: float | None = Field(
        None, gt=0, description="hours of the whole job: stages that the recipe can do without are left out"
    )
    plan: bool = Field(False, description="print stages, inputs, hours and bytes, and do nothing")
    parallel: int | None = Field(
        None, ge=1, le=64, description="networks that train side by side; by default one per GPU"
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]+)?(,cuda(:[0-9]+)?)*)$",
        description="auto, cpu, or several with commas between them: cuda:0,cuda:1",
    )
    scratch: Path | None = Field(
        None, description="folder of what no later session needs; by default scratch in out"
    )
    owner: str = Field("your-name", description="Kaggle user whose dataset the packed members become")

    @property
    def scratch_folder(self) -> Path:
        """Where things lie that no later session needs."""
        return self.scratch or self.out / SCRATCH
