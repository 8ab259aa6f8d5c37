"""Settings of the command that compares methods step by step: ablation."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hpa_kit.config.base import Settings, nearest
from hpa_kit.config.kinds import Rule, Stride, StrideBy, split_text

CLASSIFIER_VARIANTS = ("round0", "longer", "round1", "round1_fresh", "puzzle", "both")
STAGE_VARIANTS = ("copied", "cams", "subcategories", "stage2", "ensemble", "tuned")
CELL_VARIANTS = ("field", "cells", "consistency", "all_fields", "soft", "crops", "both_kinds")
VARIANT_GROUPS = {
    "classifiers": ("round0", "round1", "puzzle", "both"),
    "stages": STAGE_VARIANTS,
    "from_cells": CELL_VARIANTS,
    "all": (*CLASSIFIER_VARIANTS, *STAGE_VARIANTS, *CELL_VARIANTS),
}


def _variants(value: Any) -> Any:
    """Names of variants and groups -> variants, each once, in the ablation's order."""
    names = split_text(value)
    if not isinstance(names, list | tuple):
        return value
    known = {**{name: (name,) for name in VARIANT_GROUPS["all"]}, **VARIANT_GROUPS}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no variant {name!r}{nearest(str(name), known)}")
    wanted = {variant for name in names for variant in known[name]}
    return tuple(variant for variant in VARIANT_GROUPS["all"] if variant in wanted)


def _each_once(value: Any) -> Any:
    values = split_text(value)
    return tuple(dict.fromkeys(values)) if isinstance(values, Iterable) else value


class AblationSettings(Settings):
    """``hpa-kit ablation``: what each method adds, on fields whose cells are known."""

    renamed: ClassVar[Mapping[str, str]] = {"rungs": "variants"}

    data: Path = Field(description="folder as hpa-kit simulate writes: train.csv, train/, test/, truth.csv")
    out: Path = Field(description="folder to write; an ablation that was cut off goes on there")
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_each_once)] = Field(
        (0, 1, 2), min_length=1, description="seeds; every one trains everything anew"
    )
    variants: Annotated[tuple[str, ...], BeforeValidator(_variants)] = Field(
        VARIANT_GROUPS["classifiers"],
        min_length=1,
        description=f"what to compare: classifiers ({', '.join(VARIANT_GROUPS['classifiers'])}), "
        f"stages ({', '.join(STAGE_VARIANTS)}), from_cells ({', '.join(CELL_VARIANTS)}), all, or some by "
        "name, such as round0,longer,round1",
    )
    masks: Path | None = Field(None, description="label maps of the true cells; by default data's masks/")
    rules: Annotated[tuple[Rule, ...], BeforeValidator(_each_once)] = Field(
        ("cam_share", "mean_logit_negative"),
        min_length=1,
        description="how cells are scored; the last one is the one that stages are compared by",
    )
    backbone: str = Field("resnet10t", description="timm model name, of all networks")
    stride: Stride = Field(8, description="input pixels per map pixel")
    stride_by: StrideBy = Field("both", description="as for train")
    size: int = Field(128, ge=32, description="side to which fields are resized")
    epochs: int = Field(12, ge=1, description="passes over the training fields, of every classifier")
    folds: int = Field(3, ge=2, description="folds; classifiers are validated on fold 0, stages on each")
    loss: Literal["focal", "bce"] = Field("focal", description="loss of variants that learn from cells")
    k: int = Field(10, ge=1, description="sub-categories per class")
    pseudo_labels: Literal["hard", "soft"] = Field("soft", description="what stage 2 learns from")
    stage2_epochs: int = Field(24, ge=1, description="passes over the training fields, of stage 2")
    stage2_folds: int = Field(5, ge=2, description="folds of stage 2, which needs few fields for validation")
    stage2_networks: int = Field(1, ge=1, description="folds of which stage 2 trains a network, 0 first")
    tune_by: Literal["cells", "images"] = Field(
        "cells", description="what choices are tuned by: the truth of training cells, or image labels alone"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:1")

    @model_validator(mode="after")
    def _folds_exist(self) -> Self:
        if self.stage2_networks > self.stage2_folds:
            raise ValueError(f"stage2_networks {self.stage2_networks} is more than folds {self.stage2_folds}")
        return self

    @property
    def main_rule(self) -> Rule:
        """The rule that stages are compared by."""
        return self.rules[-1]
