"""Kinds of values that several settings share."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hpa_kit.classes import N_CLASSES


def split_text(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


def several(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


ClassIndex = Annotated[int, Field(ge=0, lt=N_CLASSES)]
Classes = Annotated[tuple[ClassIndex, ...], BeforeValidator(split_text)]
FieldSide = Annotated[int, Field(ge=64, le=3072)]
Stride = Annotated[Literal[8, 16, 32], BeforeValidator(whole_number)]
Rule = Literal["best", "cam_share", "mean_logit", "mean_logit_negative", "cell_logit", "quantile", "copied"]
Form = Literal["mean_share", "max_share", "mean", "max"]
StrideBy = Literal["cut", "dilate", "both"]
Split = Literal["train", "test"]
Views = Literal["none", "flips", "scales"]
SegmenterName = Literal["auto", "published", "classical", "hpacellseg"]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")]
Paths = Annotated[tuple[Path, ...], BeforeValidator(several)]
