"""Settings of the commands that look at fields with trained members: infer."""

from pathlib import Path

from pydantic import Field

from hpa_kit.config.base import Settings
from hpa_kit.config.kinds import Paths, Rule, SegmenterName, Split, Views


class InferSettings(Settings):
    """``hpa-kit infer``: class maps x label maps -> submission.csv."""

    data: Path = Field(description="competition folder, or a folder of images")
    members: Paths = Field(description="run folders or checkpoints; all weigh the same", min_length=1)
    out: Path = Field(description="submission CSV to write")
    split: Split = Field("test", description="which images of a competition folder")
    masks: Path | None = Field(None, description="folder of ID.npz or ID.png label maps")
    segmenter: SegmenterName = Field("auto", description="who finds cells that masks lacks")
    weights: Path | None = Field(None, description="folder of the two published networks")
    rule: Rule = Field("cam_share", description="how a cell's confidence is formed")
    views: Views = Field("flips", description="test-time views of each field")
    map_size: int = Field(512, ge=16, description="side of the class maps on which cells are scored")
    batch: int = Field(8, ge=1, description="fields per step")
    workers: int = Field(2, ge=0, description="threads that read fields and find cells")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")
    amp: bool = Field(True, description="half precision on a GPU")
