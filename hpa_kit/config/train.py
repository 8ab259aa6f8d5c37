"""Settings of the commands that train: train."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hpa_kit.config.base import Group, GroupedSettings
from hpa_kit.config.kinds import (
    LR,
    NOT_FINE_TUNED,
    SUBCELL,
    SUBCELL_VARIANTS,
    CellBag,
    CellPooling,
    ExternalMode,
    ImageSettings,
    InChannels,
    LayerDecay,
    Normalisation,
    Stride,
    StrideBy,
    Trainable,
    defaults_of_backbone,
    whole_number,
)


class ScCamSettings(Group):
    """SC-CAM: from its round 1 on a classifier learns the sub-categories of its classes too."""

    round: int = Field(default=0, ge=0, description="SC-CAM round; from 1 on sub-categories are learnt too")
    subcategories: Path | None = Field(
        default=None, description="table of sub-categories, for rounds from 1 on"
    )
    weight: float = Field(
        default=5.0, ge=0, alias="subcategory_weight", description="weight of the sub-categories' loss"
    )


class PuzzleCamSettings(Group):
    """Puzzle-CAM: the tiles of a field, looked at one by one, are to show what the whole field shows."""

    source: Literal["off", "cam", "features"] = Field(
        default="off",
        alias="puzzle",
        description="Puzzle-CAM: tiles are to give the same CAM, or features, as the whole",
    )
    tiles: Annotated[Literal[4, 9, 16], BeforeValidator(whole_number)] = Field(
        default=4, alias="puzzle_tiles", description="tiles a field is cut into"
    )
    weight: float = Field(
        default=4.0, ge=0, alias="puzzle_weight", description="largest weight of the difference"
    )
    tile_weight: float = Field(
        default=1.0, ge=0, alias="puzzle_tile_weight", description="weight of the tiles' own classification"
    )
    subcategories: bool = Field(
        default=False, alias="puzzle_subcategories", description="puzzle for the sub-categories' maps too"
    )
    masked: bool = Field(
        default=False,
        alias="puzzle_masked",
        description="compare only the maps of classes that the field has",
    )

    @property
    def per_side(self) -> int:
        """Tiles along a side of a field."""
        return math.isqrt(self.tiles)


class ArcFaceSettings(Group):
    """ArcFace: classes told apart by angles, with a margin."""

    centres: int = Field(
        default=3, ge=1, le=1000, alias="arcface_centres", description="sub-centres per class"
    )
    scale: float = Field(default=30.0, gt=0, alias="arcface_scale", description="factor of the cosines")
    margin: float = Field(
        default=0.5, ge=0, alias="arcface_margin", description="angle added to a class that is shown, radians"
    )
    loss: Literal["bce", "ce", "focal"] = Field(
        default="bce", alias="arcface_loss", description="loss of the scaled cosines"
    )
    plain_weight: float = Field(
        default=0.0, ge=0, alias="arcface_plain_weight", description="weight of a loss without margin"
    )


class CellSettings(Group):
    """Learning from cells: a field shows a class where one of its cells does."""

    pooling: Literal["auto", "field", "cells"] = Field(
        default="auto",
        description="where a cam's image logits come from: field, the mean of the maps; cells, what its "
        "cells show; auto, cells where masks are given",
    )
    how: CellPooling = Field(
        default="linear",
        alias="cell_pooling",
        description="how image logits come from cells: linear (softmax), noisy-or, max, attention, lse",
    )
    bag: CellBag = Field(
        default="protein",
        alias="cell_bag",
        description="which cells count for their image's labels: protein, those that hold enough of it; all",
    )
    consistency: float = Field(
        default=0.0,
        ge=0,
        description="weight of the term by which cells, or map pixels, say the same in a field that was cut "
        "and mixed with another; 0 is off, 1 the 7th place's",
    )


class CropSettings(Group):
    """A network that looks at one cell at a time."""

    side: int | None = Field(
        default=None,
        ge=32,
        le=1024,
        alias="crop_size",
        description="side of a crop in pixels of the field at its size; by default what holds most cells",
    )
    neighbours: Literal["kept", "faded", "zeroed"] = Field(
        default="zeroed", description="what becomes of other cells, and of what is in no cell, in a crop"
    )
    mask: bool = Field(
        default=True, alias="mask_channel", description="the cell's mask as one more channel of its crop"
    )
    mix: Literal["none", "mixup", "cutmix"] = Field(
        default="none", alias="crop_mix", description="crops of a batch mixed with one another"
    )
    image_weight: float = Field(
        default=0.1,
        gt=0,
        alias="image_label_weight",
        description="weight of the loss where cells have image labels only, no pseudo labels",
    )


class FineTuneSettings(Group):
    """How a backbone learns on from the weights that it starts with."""

    trainable: Trainable = Field(
        default="whole",
        description="what of the backbone learns: whole, last:N of its blocks, or frozen, nothing of it",
    )
    layer_decay: LayerDecay = Field(
        default=1.0,
        description="learning rate of each block of the backbone, as part of that of the next; "
        "0.65 to 0.8 for pretrained transformers",
    )
    checkpointing: bool = Field(
        default=False,
        alias="gradient_checkpointing",
        description="compute blocks again on the way back instead of keeping what they said: less memory, "
        "a third more time",
    )


class LimitSettings(Group):
    """The time of a session, and what a kill in it may cost."""

    hours: float | None = Field(
        default=None,
        gt=0,
        alias="time_limit",
        description="hours after which the run stops with a checkpoint, to be gone on with",
    )
    checkpoint_minutes: float = Field(
        default=10.0,
        gt=0,
        description="minutes between checkpoints within an epoch, so that a kill costs no more",
    )


class TrainSettings(GroupedSettings, ImageSettings):
    """``hpa-kit train``: a network from image labels, or from pseudo labels of cells.

    In groups are ``limits``, ``fine_tune``, ``cells``, ``crops``, ``sc_cam``, ``puzzle_cam`` and ``arcface``.
    """

    aliases: ClassVar[Mapping[str, str]] = {"normalisation": "contrast"}

    data: Path = Field(description="competition folder: train.csv and train/")
    out: Path = Field(description="run folder to write, resumed where it holds a checkpoint")
    network: Literal["cam", "arcface", "unet", "crops", "head", "cells"] = Field(
        "cam",
        description="cam: classifier with maps; arcface: features for sub-categories; unet: stage 2; crops: "
        "classifier of single cells; head: one of kept features of cells; cells: finds nuclei and cells",
    )
    features: Path | None = Field(None, description="of a head: file of hpa-kit features --cells")
    encoder: Path | None = Field(
        None, description="of a head: what gave the features; by default where the file says that it was"
    )
    encoder_sha256: str | None = Field(None, description="of a head: of its encoder, as the features say")
    backbone: str = Field("resnet50", description="timm model name")
    pretrained: Path | Literal["download"] | None = Field(
        None, description="local weights file of the backbone, folder of SubCell, or the word download"
    )
    stride: Stride = Field(
        32,
        description="input pixels per map pixel, if not given a transformer's patch; of a unet the deepest",
    )
    stride_by: StrideBy = Field(
        "cut",
        description="how strides 8 and 16 are had: cut leaves last stages out, dilate dilates them, "
        "both leaves the last out and dilates the others: for small fields",
    )
    in_channels: InChannels = Field(4, description="4 reads red, green, blue, yellow; 3 leaves yellow out")
    normalisation: Normalisation = Field(
        default="field",
        alias="contrast",
        description="field: every channel of every field by its own mean and spread; fixed: ImageNet's; "
        "joint: from 0 to 1 over all channels of a field or crop, as SubCell learnt",
    )
    size: int = Field(
        512, ge=32, le=8192, description="side of resized fields, of 2048 px for cells; 504 at stride 14"
    )
    epochs: int = Field(25, ge=1, description="passes over the training fields")
    batch: int | None = Field(
        None,
        ge=1,
        description="fields per step; by default 8 to 40, so that a small set gets 800 steps or more",
    )
    loss: Literal["focal", "bce"] = Field(
        "focal",
        description="loss of labels of a cam and of crops: focal, or cross-entropy (bce)",
    )
    optimiser: str = Field("adamw", description="timm optimiser name, such as sgd or adamw")
    lr: float = Field(
        LR,
        gt=0,
        description="peak learning rate; with pretrained weights that learn, if not given, 5e-4, or 1e-4 for "
        "transformers",
    )
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
        1, description="augmentation policy: 0 to 6, or a YAML file with one"
    )
    fold: int = Field(0, ge=0, description="fold kept for validation")
    folds: int = Field(5, ge=2, description="number of folds")
    all_fields: bool = Field(
        False, description="learn from the fields of the validation fold too, once choices are made"
    )
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
    fine_tune: FineTuneSettings = FineTuneSettings()
    limits: LimitSettings = LimitSettings()
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

    sc_cam: ScCamSettings = ScCamSettings()
    warm_start: Path | None = Field(None, description="run or checkpoint whose weights the run starts with")
    puzzle_cam: PuzzleCamSettings = PuzzleCamSettings()
    arcface: ArcFaceSettings = ArcFaceSettings()

    cells: CellSettings = CellSettings()
    crops: CropSettings = CropSettings()

    pseudo_labels: Path | None = Field(
        None, description="folder of hpa-kit pseudo-labels: for unet and, soft ones, for cam and crops"
    )
    label_round: int | None = Field(
        None, ge=0, description="rounds of soft labels behind it, from 0 on; by default as pseudo_labels say"
    )
    masks: Path | None = Field(
        None,
        description="folder of label maps, packed or not: ID.npz, .png, .npy or .tif, with which a cam "
        "learns from cells, or that cells learn; by default those that pseudo labels count",
    )
    threshold: float = Field(
        0.225, gt=0, lt=1, description="confidence from which a cell's mask is drawn in a class"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_backbone(cls, values: Any) -> Any:
        return values | defaults_of_backbone(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} is not one of {self.folds} folds, which count from 0")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        name, round, stage_2 = self.network, self.sc_cam.round, self.network == "unet"
        if (round > 0) != (self.sc_cam.subcategories is not None):
            raise ValueError(f"round {round} {'needs' if round else 'takes no'} subcategories")
        if stage_2 and self.pseudo_labels is None:
            raise ValueError("network unet needs pseudo_labels")
        if name in NOT_FINE_TUNED and self.fine_tune != FineTuneSettings():
            raise ValueError(f"network {name} takes no trainable, layer_decay or gradient_checkpointing")
        if self.network == "arcface" and self.pseudo_labels is not None:
            raise ValueError("network arcface takes no pseudo_labels")
        if self.network != "cam" and (round or self.puzzle_cam.source != "off"):
            raise ValueError(f"network {self.network} has no CAM, so no round above 0 and no puzzle")
        return self

    @model_validator(mode="after")
    def _cells_are_there(self) -> Self:
        given = self.masks is not None or self.pseudo_labels is not None
        if (self.network == "head") != (self.features is not None):
            raise ValueError("network head needs features, and no other network takes them")
        if self.network == "head" and (given or self.external or self.all_fields or self.pretrained):
            raise ValueError("network head takes no masks, pseudo_labels, external, all_fields or pretrained")
        if self.network == "crops" and not given:
            raise ValueError("network crops needs masks, a folder of label maps, or pseudo_labels")
        if self.cells.pooling == "cells" and not given:
            raise ValueError("pooling cells needs masks, a folder of label maps, or pseudo_labels")
        if self.network != "cam" and (self.cells.pooling == "cells" or self.cells.consistency):
            raise ValueError(f"network {self.network} has no CAM, so no pooling cells and no consistency")
        if self.network != "crops" and self.crops.mix != "none":
            raise ValueError(f"crop_mix is for network crops, not for {self.network}")
        if self.network == "cam" and self.cells.pooling == "field" and self.pseudo_labels is not None:
            raise ValueError("pooling field knows no cells, which pseudo_labels are of; leave one out")
        return self

    @property
    def input_side(self) -> int | None:
        """Side of what the network looks at, fields or crops, in pixels; None where it is not chosen yet."""
        return self.crops.side if self.network == "crops" else self.size

    @property
    def looks_at_cells(self) -> bool:
        """Whether the network looks at one cell at a time, and so gives no maps."""
        return self.network in ("crops", "head")

    @property
    def subcell(self) -> str | None:
        """Which variant of SubCell the network is, as it was published; None for every other network."""
        variant = self.backbone.removeprefix(SUBCELL)
        return variant if variant != self.backbone and variant in SUBCELL_VARIANTS else None

    @property
    def pools_cells(self) -> bool:
        """Whether the network is a classifier whose image logits come from its cells."""
        pooling, given = self.cells.pooling, self.masks is not None or self.pseudo_labels is not None
        return self.network == "cam" and (pooling == "cells" or (pooling == "auto" and given))

    @model_validator(mode="after")
    def _puzzle_fits(self) -> Self:
        puzzle = self.puzzle_cam
        if puzzle.subcategories and (puzzle.source == "off" or not self.sc_cam.round):
            raise ValueError("puzzle_subcategories needs a puzzle and a round from 1 on")
        if puzzle.masked and puzzle.source != "cam":
            raise ValueError(f"puzzle_masked needs puzzle cam: puzzle {puzzle.source} has no maps of classes")
        step = puzzle.per_side * self.stride
        if puzzle.source != "off" and self.size % step:
            below, above = self.size // step * step, (self.size // step + 1) * step
            near = f"{below} or {above}" if below else str(above)
            raise ValueError(
                f"size {self.size} does not give {puzzle.tiles} tiles whose sides are multiples of "
                f"stride {self.stride}; take {near}"
            )
        return self
