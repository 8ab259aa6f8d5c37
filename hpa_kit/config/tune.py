"""Settings of the command that chooses weights and steps: tune."""

from pathlib import Path

from pydantic import Field

from hpa_kit.config.infer import StreamSettings
from hpa_kit.config.kinds import Split


class TuneSettings(StreamSettings):
    """``hpa-kit tune``: an ensemble's weights, rule and steps, chosen on fields its members have not seen."""

    out: Path = Field(description="ensemble YAML to write")
    split: Split = Field("train", description="which images of a competition folder")
    truth: Path | None = Field(
        None, description="truth CSV: choices by the mAP of cells; without, by the mAP of image labels"
    )
    parts: int = Field(3, ge=2, description="parts of the fields that choices are cross-fitted over")
    repeats: int = Field(3, ge=1, description="how often the fields are divided anew")
    seed: int = Field(42, ge=0, description="seed of the division into parts")
    cache: Path | None = Field(
        None,
        description="keeps what members say of each field; by default a folder beside out, _evidence behind",
    )
