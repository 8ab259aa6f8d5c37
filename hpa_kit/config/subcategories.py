"""Settings of the commands that find sub-categories: features, subcategories."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hpa_kit.config.base import Settings
from hpa_kit.config.kinds import ClusterSettings, ExternalMode, ImageSettings, Split, split_text

Scale = Annotated[float, Field(gt=0, le=8)]


class FeaturesSettings(ImageSettings, ClusterSettings):
    """``hpa-kit features``: one vector per field, or per cell, from a trained network or an encoder."""

    data: Path = Field(description="competition folder, or a folder of images")
    member: Path = Field(
        description="run folder or checkpoint of a network cam or arcface; with cells of a network crops, a "
        "folder of SubCell, or with backbone a weights file"
    )
    out: Path = Field(description="npz file to write")
    cells: bool = Field(False, description="one vector per cell, for train --network head")
    masks: Path | None = Field(None, description="with cells: folder of label maps, as for train")
    backbone: str | None = Field(
        None, description="with cells: timm model name that the weights file is of; for a crop's own channels"
    )
    size: int = Field(512, ge=32, le=8192, description="with backbone: side to which fields are resized")
    crop_size: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="with backbone: side of crops in pixels of these; by default what holds most cells",
    )
    split: Split = Field("train", description="which images of a competition folder")
    views: Literal["auto", "several", "one"] = Field(
        "auto",
        description="several: all scales, each as is and flipped; one: the member's size as is; "
        "auto: several for round 0, one for later rounds; of cells several are two, as is and flipped, and "
        "auto is one",
    )
    scales: Annotated[tuple[Scale, ...], BeforeValidator(split_text)] = Field(
        (1.0, 1.2), min_length=1, description="several views: times the member's size, such as 1,1.2"
    )
    external: Path | None = Field(
        None, description="table of external fields, publichpa-withcellline_processed.csv"
    )
    external_images: Path | None = Field(None, description="folder of their images")
    external_mode: ExternalMode = Field(
        1, description="which external fields: the 15th place's modes 0 to 6, -1 for all"
    )
    batch: int = Field(16, ge=1, le=4096, description="fields per step")
    workers: int = Field(2, ge=1, le=256, description="threads that read fields")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")
    amp: bool = Field(True, description="half precision on a GPU")

    @model_validator(mode="after")
    def _cells_are_there(self) -> Self:
        if self.cells != (self.masks is not None):
            raise ValueError(
                "cells needs masks, a folder of label maps" if self.cells else "masks needs cells"
            )
        if self.backbone is not None and not self.cells:
            raise ValueError("backbone needs cells: of whole fields a run's network gives features")
        if self.cluster is not None and not self.cells:
            raise ValueError("cluster needs cells: features of whole fields are made on one machine")
        return self


class SubcategoriesSettings(Settings):
    """``hpa-kit subcategories``: clusters of features within each location class."""

    features: Path = Field(description="npz file of hpa-kit features")
    labels: Path = Field(description="table of image labels, train.csv")
    out: Path = Field(description="CSV to write, train's --subcategories")
    external: Path | None = Field(
        None, description="table of external fields; those that have features are clustered too"
    )
    k: int = Field(10, ge=1, le=1000, description="sub-categories per class")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of k-means")
    standardise: bool = Field(
        False, description="give each feature mean 0 and spread 1 over the fields of a class"
    )
