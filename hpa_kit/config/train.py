"""Settings of the commands that train: train."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hpa_kit.config.base import Settings
from hpa_kit.config.kinds import ExternalMode, InChannels, Stride, StrideBy, whole_number


class TrainSettings(Settings):
    """``hpa-kit train``: a network from image labels, or from pseudo labels of cells."""

    data: Path = Field(description="competition folder: train.csv and train/")
    out: Path = Field(description="run folder to write, resumed where it holds a checkpoint")
    network: Literal["cam", "arcface", "unet"] = Field(
        "cam",
        description="cam: classifier with maps; arcface: features for sub-categories; unet: stage 2",
    )
    backbone: str = Field("resnet50", description="timm model name")
    pretrained: Path | Literal["download"] | None = Field(
        None, description="local weights file of the backbone, or the word download"
    )
    stride: Stride = Field(32, description="input pixels per map pixel; of a unet's deepest maps")
    stride_by: StrideBy = Field(
        "cut",
        description="how strides 8 and 16 are had: cut leaves last stages out, dilate dilates them, "
        "both leaves the last out and dilates the others: for small fields",
    )
    in_channels: InChannels = Field(4, description="4 reads red, green, blue, yellow; 3 leaves yellow out")
    contrast: Literal["field", "fixed"] = Field(
        "field",
        description="field: every channel of every field by its own mean and spread; fixed: ImageNet's",
    )
    size: int = Field(512, ge=32, le=8192, description="side to which fields are resized")
    epochs: int = Field(25, ge=1, description="passes over the training fields")
    batch: int | None = Field(
        None,
        ge=1,
        description="fields per step; by default 8 to 40, so that a small set gets 400 steps or more",
    )
    optimiser: str = Field("adamw", description="timm optimiser name, such as sgd or adamw")
    lr: float = Field(2e-3, gt=0, description="peak learning rate; take less with pretrained weights")
    weight_decay: float = Field(0.01, ge=0, description="weight decay")
    warmup: float = Field(0.1, ge=0, lt=1, description="part of all steps with rising learning rate")
    drop_rate: float = Field(0.0, ge=0, lt=1, description="channel dropout before the head")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of averaged weights; 0 is off")
    swa: float = Field(
        0.0, ge=0, lt=1, description="part of the steps after which weights are averaged; 0 is off"
    )
    swa_lr: float | None = Field(
        None, gt=0, description="learning rate while averaging; by default as scheduled"
    )
    accumulate: int = Field(1, ge=1, description="batches per update of the weights")
    sampling: Literal["plain", "balanced"] = Field(
        "plain", description="balanced: fields of rare classes come more often"
    )
    sampling_clip: int = Field(
        964, ge=1, description="fields below which a class gets no further weight; class 8 has 964"
    )
    augmentation: Annotated[int | Path, BeforeValidator(whole_number)] = Field(
        1, description="augmentation recipe: 0 to 5, or a YAML file with one"
    )
    fold: int = Field(0, ge=0, description="fold kept for validation")
    folds: int = Field(5, ge=2, description="number of folds")
    folds_of: Path | None = Field(
        None,
        description="run whose folds are shared, such as one of stage 1; by default they are made from seed",
    )
    seed: int = Field(42, ge=0, description="seed of weights, order and augmentation")
    workers: int = Field(
        2, ge=0, le=256, description="data loading processes per GPU, at most its share of the cores"
    )
    cache: bool = Field(True, description="keep resized fields in memory where they fit")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")
    amp: bool = Field(True, description="half precision on a GPU")
    time_limit: float | None = Field(
        None, gt=0, description="hours after which the run stops with a checkpoint, to be gone on with"
    )
    checkpoint_minutes: float = Field(
        10.0, gt=0, description="minutes between checkpoints within an epoch, so that a kill costs no more"
    )
    resume_from: Path | None = Field(
        None, description="run folder of an earlier session, only read: the run goes on from it in out"
    )
    store: Path | None = Field(None, description="folder that keeps resized fields between runs")

    external: Path | None = Field(
        None, description="table of external fields, publichpa-withcellline_processed.csv"
    )
    external_images: Path | None = Field(None, description="folder of their images")
    external_mode: ExternalMode = Field(
        1, description="which external fields: the 15th place's modes 0 to 6, -1 for all"
    )

    round: int = Field(0, ge=0, description="SC-CAM round; from 1 on sub-categories are learnt too")
    subcategories: Path | None = Field(None, description="table of sub-categories, for rounds from 1 on")
    subcategory_weight: float = Field(5.0, ge=0, description="weight of the sub-categories' loss")
    warm_start: Path | None = Field(None, description="run or checkpoint whose weights the run starts with")

    puzzle: Literal["off", "cam", "features"] = Field(
        "off", description="Puzzle-CAM: tiles are to give the same CAM, or features, as the whole"
    )
    puzzle_tiles: Annotated[Literal[4, 9, 16], BeforeValidator(whole_number)] = Field(
        4, description="tiles a field is cut into"
    )
    puzzle_weight: float = Field(4.0, ge=0, description="largest weight of the difference")
    puzzle_tile_weight: float = Field(1.0, ge=0, description="weight of the tiles' own classification")
    puzzle_subcategories: bool = Field(False, description="puzzle for the sub-categories' maps too")
    puzzle_masked: bool = Field(False, description="compare only the maps of classes that the field has")

    arcface_centres: int = Field(3, ge=1, le=1000, description="sub-centres per class")
    arcface_scale: float = Field(30.0, gt=0, description="factor of the cosines")
    arcface_margin: float = Field(0.5, ge=0, description="angle added to a class that is shown, radians")
    arcface_loss: Literal["bce", "ce", "focal"] = Field("bce", description="loss of the scaled cosines")
    arcface_plain_weight: float = Field(0.0, ge=0, description="weight of a loss without margin")

    pseudo_labels: Path | None = Field(None, description="folder of hpa-kit pseudo-labels, for unet")
    masks: Path | None = Field(
        None, description="folder of the label maps that pseudo labels count; by default the one they name"
    )
    threshold: float = Field(
        0.225, gt=0, lt=1, description="confidence from which a cell's mask is drawn in a class"
    )

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} is not one of {self.folds} folds, which count from 0")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if (self.round > 0) != (self.subcategories is not None):
            raise ValueError(f"round {self.round} {'needs' if self.round else 'takes no'} subcategories")
        if (self.network == "unet") != (self.pseudo_labels is not None):
            raise ValueError(
                f"network {self.network} {'needs' if self.network == 'unet' else 'takes no'} pseudo_labels"
            )
        if self.network != "cam" and (self.round or self.puzzle != "off"):
            raise ValueError(f"network {self.network} has no CAM, so no round above 0 and no puzzle")
        return self

    @model_validator(mode="after")
    def _puzzle_fits(self) -> Self:
        if self.puzzle_subcategories and (self.puzzle == "off" or not self.round):
            raise ValueError("puzzle_subcategories needs a puzzle and a round from 1 on")
        if self.puzzle_masked and self.puzzle != "cam":
            raise ValueError(f"puzzle_masked needs puzzle cam: puzzle {self.puzzle} has no maps of classes")
        step = math.isqrt(self.puzzle_tiles) * self.stride
        if self.puzzle != "off" and self.size % step:
            below, above = self.size // step * step, (self.size // step + 1) * step
            near = f"{below} or {above}" if below else str(above)
            raise ValueError(
                f"size {self.size} does not give {self.puzzle_tiles} tiles whose sides are multiples of "
                f"stride {self.stride}; take {near}"
            )
        return self
