"""Every setting of every step: typed, validated, read from and written to YAML.

A command's settings are one object. The command line, a YAML file and a notebook's parameters cell all fill
that object through :func:`make_settings`, so a name means the same everywhere and a misspelt one is an error.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hpa_kit.classes import N_CLASSES
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text


def _split(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


ClassIndex = Annotated[int, Field(ge=0, lt=N_CLASSES)]
Classes = Annotated[tuple[ClassIndex, ...], BeforeValidator(_split)]
FieldSide = Annotated[int, Field(ge=64, le=3072)]
Stride = Annotated[Literal[8, 16, 32], BeforeValidator(_whole)]
Rule = Literal["cam_share", "mean_logit", "mean_logit_negative", "copied"]
Split = Literal["train", "test"]
Views = Literal["none", "flips", "scales"]
SegmenterName = Literal["auto", "published", "classical", "hpacellseg"]


class Settings(BaseModel):
    """Base of all settings: unknown keys refused, values checked, no change after making."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


class SimulateSettings(Settings):
    """``hpa-kit simulate``: a synthetic competition with the truth of every cell."""

    out: Path = Field(description="folder to write, in the competition's layout")
    train: int = Field(40, ge=0, description="training fields")
    test: int = Field(10, ge=0, description="test fields")
    size: FieldSide = Field(512, description="side of a field in pixels")
    max_size: FieldSide | None = Field(None, description="mix sizes from --size to this")
    square: bool = Field(True, description="square fields; --no-square varies height and width")
    classes: Classes = Field(tuple(range(N_CLASSES)), description="location classes to show, such as 0,2,7")
    seed: int = Field(0, ge=0, description="same seed, same bytes")
    workers: int = Field(2, ge=1, description="processes")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Self:
        if self.max_size is not None and self.max_size < self.size:
            raise ValueError(f"max_size {self.max_size} is below size {self.size}")
        if not self.classes:
            raise ValueError("classes is empty; name at least one location class")
        return self


class TrainSettings(Settings):
    """``hpa-kit train``: a CAM classifier from image labels."""

    data: Path = Field(description="competition folder: train.csv and train/")
    out: Path = Field(description="run folder to write, resumed where it holds a checkpoint")
    backbone: str = Field("resnet50", description="timm model name")
    pretrained: Path | Literal["download"] | None = Field(
        None, description="local weights file of the backbone, or the word download"
    )
    stride: Stride = Field(32, description="input pixels per map pixel")
    stride_by: Literal["cut", "dilate"] = Field(
        "cut", description="how strides 8 and 16 are had: last stages left out, or dilated"
    )
    in_channels: Annotated[Literal[3, 4], BeforeValidator(_whole)] = Field(
        4, description="4 reads red, green, blue, yellow; 3 leaves yellow out"
    )
    contrast: Literal["field", "fixed"] = Field(
        "field",
        description="field: every channel of every field by its own mean and spread; fixed: ImageNet's",
    )
    size: int = Field(512, ge=32, description="side to which fields are resized")
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
    augmentation: int = Field(1, ge=0, le=1, description="augmentation recipe")
    fold: int = Field(0, ge=0, description="fold kept for validation")
    folds: int = Field(5, ge=2, description="number of folds")
    seed: int = Field(42, ge=0, description="seed of weights, order and augmentation")
    workers: int = Field(2, ge=0, description="data loading processes")
    cache: bool = Field(True, description="keep resized fields in memory where they fit")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")
    amp: bool = Field(True, description="half precision on a GPU")

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} is not one of {self.folds} folds, which count from 0")
        return self


class SegmentSettings(Settings):
    """``hpa-kit segment``: label maps of all fields, kept."""

    data: Path = Field(description="competition folder, or a folder of images")
    out: Path = Field(description="folder for ID.npz label maps")
    split: Split = Field("test", description="which images of a competition folder")
    segmenter: SegmenterName = Field("auto", description="who finds the cells")
    weights: Path | None = Field(None, description="folder of the two published networks")
    shard: int = Field(0, ge=0, description="which share of the fields to do, counted from 0")
    shards: int = Field(1, ge=1, description="shares that the sorted fields are cut into")
    batch: int = Field(4, ge=1, description="fields of one size per step of the networks")
    workers: int = Field(2, ge=1, description="threads that read, label and write fields")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")

    @model_validator(mode="after")
    def _shard_exists(self) -> Self:
        if self.shard >= self.shards:
            raise ValueError(f"shard {self.shard} is not one of {self.shards} shards, which count from 0")
        return self


class InferSettings(Settings):
    """``hpa-kit infer``: class maps x label maps -> submission.csv."""

    data: Path = Field(description="competition folder, or a folder of images")
    members: Annotated[tuple[Path, ...], BeforeValidator(_several)] = Field(
        description="run folders or checkpoints; all weigh the same", min_length=1
    )
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


class DemoSettings(Settings):
    """``hpa-kit demo``: the whole job on simulated fields, in minutes on two cores."""

    out: Path = Field(Path("demo"), description="folder to write")
    train: int = Field(400, ge=10, description="training fields")
    test: int = Field(100, ge=1, description="test fields")
    size: FieldSide = Field(128, description="side of a field in pixels")
    classes: Classes = Field((0, 1, 2, 7, 13, 14), description="location classes to show")
    backbone: str = Field("resnet18", description="timm model name")
    stride: Stride = Field(8, description="input pixels per map pixel")
    epochs: int = Field(20, ge=1, description="passes over the training fields")
    seed: int = Field(0, ge=0, description="seed of everything")


S = TypeVar("S", bound=Settings)


def make_settings(kind: type[S], *layers: Mapping[str, Any], source: str = "settings") -> S:
    """Fill one settings object from layers of values; later layers win.

    Args:
        kind: the settings class.
        layers: mappings of names to values, such as a YAML's content and then command-line options.
        source: what to call the settings in an error, such as the YAML's path.

    Raises:
        InputError: a key is unknown (the nearest known one is named), missing, or has a bad value.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    for key in merged:
        if key not in kind.model_fields:
            raise InputError(f"{source}: unknown setting {key!r}{nearest(str(key), kind.model_fields)}")
    try:
        return kind(**merged)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        found = "nothing" if first["type"] == "missing" else repr(first["input"])
        what = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{source}: {name + ': ' if name else ''}{what}, found {found}") from None


def nearest(key: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the known name nearest to ``key``, or the list of all known ones."""
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(names))}"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds, read without building any object of its choosing.

    Raises:
        InputError: the file is missing, cannot be read, is no YAML, or holds no mapping.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"settings: {path} is missing") from None
    except OSError as error:
        raise InputError(f"settings: {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"settings: {path} is no YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"settings: {path} holds a {type(content).__name__}; expected names and values")
    return content


def to_yaml(settings: Settings) -> str:
    """Settings as YAML text, every value written out, in the order of the class."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def write_yaml(settings: Settings, path: str | Path) -> None:
    """Write settings to a YAML file that :func:`read_yaml` and :func:`make_settings` take back."""
    atomic_text(path, to_yaml(settings))
