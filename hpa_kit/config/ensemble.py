"""Settings of an ensemble: its members, and how cell scores are formed. One YAML holds them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from hpa_kit.config.base import Settings, make_settings, read_yaml
from hpa_kit.config.kinds import (
    DEFAULT_FORM,
    DEFAULT_MAP_SIZE,
    DEFAULT_RULE,
    DEFAULT_SEGMENTER,
    DEFAULT_VIEWS,
    WEIGHTS,
    Form,
    Rule,
    SegmenterName,
    Views,
)
from hpa_kit.config.scoring import StepSettings, make_step
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text, is_stream, written_file


class MemberSettings(Settings):
    """One member: a trained network and its part in the whole."""

    checkpoint: Path = Field(description="run folder, or checkpoint file")
    mode: Literal["both", "cam", "pred"] = Field(
        default="both",
        description="what it gives: image scores and maps, maps only (cam), image scores only (pred)",
    )
    weight: float = Field(default=1.0, gt=0, description="weight; only ratios count")
    views: Views = Field(
        default=DEFAULT_VIEWS,
        description="test-time views: none; flips (as is, horizontal, vertical); auto: the flips at 1, 1.2 "
        "and 1.4 times the size for classifiers below 1024 px, the flips for all others",
    )
    size: int | None = Field(
        default=None, ge=32, le=8192, description="side to which fields are resized; by default as trained"
    )

    crop: int | None = Field(
        default=None,
        ge=32,
        le=4096,
        description="of SubCell: side of its crops in pixels of 0.08 µm; by default as converted",
    )

    @property
    def gives_scores(self) -> bool:
        """Whether its image scores count."""
        return self.mode != "cam"

    @property
    def gives_maps(self) -> bool:
        """Whether its maps count or, of a network of crops, its logits of cells."""
        return self.mode != "pred"


class EnsembleSettings(Settings):
    """Members, and how cell scores are formed from what they say."""

    needs_scores: ClassVar[bool] = True

    members: tuple[MemberSettings, ...] = Field(min_length=1, description="the members")
    rule: Rule = Field(
        default=DEFAULT_RULE, description="how a cell's confidence is formed; cam_share: the 15th place's"
    )
    form: Form = Field(
        default=DEFAULT_FORM,
        description="of cam_share: mean or maximum of the map in the cell, x share or not",
    )
    steps: tuple[StepSettings, ...] = Field(
        default=(), description="what is done to the rule's scores, in order"
    )
    map_size: int = Field(
        default=DEFAULT_MAP_SIZE, ge=16, le=4096, description="side of the maps on which cells are scored"
    )
    masks: Path | None = Field(
        default=None, description="folder of label maps, packed or not: ID.npz, .png, .npy or .tif"
    )
    segmenter: SegmenterName = Field(
        default=DEFAULT_SEGMENTER, description="who finds cells that masks lacks"
    )
    weights: Path | None = Field(default=None, description=WEIGHTS)

    @field_validator("members", mode="before")
    @classmethod
    def _each_member(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple(_make_member(entry, f"member {place}") for place, entry in enumerate(value, start=1))

    @field_validator("steps", mode="before")
    @classmethod
    def _each_step(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple(make_step(entry, f"step {place}") for place, entry in enumerate(value, start=1))

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.needs_scores and not any(member.gives_scores for member in self.members):
            raise ValueError("no member gives image scores; one needs mode both or pred")
        if not any(member.gives_maps for member in self.members):
            raise ValueError("no member gives maps; one needs mode both or cam")
        return self


class LabelledEnsembleSettings(EnsembleSettings):
    """Members that predict fields whose labels are known: nobody has to give image scores."""

    needs_scores: ClassVar[bool] = False


def read_ensemble(path: str | Path, kind: type[EnsembleSettings] = EnsembleSettings) -> EnsembleSettings:
    """Read an ensemble's YAML.

    Args:
        path: the YAML; paths in it that are not absolute start at its folder.
        kind: what its members have to give together.

    Returns:
        Settings whose paths start where the program runs, or are absolute; whether anything lies there is
        found out when the members are loaded.

    Raises:
        InputError: the file cannot be read, a key is unknown, lacking, or has a bad value.
    """
    settings = make_settings(kind, read_yaml(path), source=str(path))
    folder = Path(path).parent
    return _with_paths(settings, lambda found: folder / found)


def write_ensemble(settings: EnsembleSettings, path: str | Path) -> None:
    """Write an ensemble's YAML, its paths from the YAML's folder on, so that both can move together.

    They are absolute where the YAML is read from another folder than its path says: behind a link, or a pipe.
    """
    folder = Path(path).parent.resolve()
    moves = is_stream(path) or written_file(path).parent.resolve() != folder
    placed = _with_paths(
        settings,
        lambda found: found.resolve() if moves else Path(os.path.relpath(found.resolve(), folder)),
    )
    text = yaml.safe_dump(placed.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    atomic_text(path, text)


def _with_paths(settings: EnsembleSettings, place: Any) -> EnsembleSettings:
    members = tuple(
        member.model_copy(update={"checkpoint": place(member.checkpoint)}) for member in settings.members
    )
    found = {name: getattr(settings, name) for name in ("masks", "weights")}
    paths = {name: None if value is None else place(value) for name, value in found.items()}
    return settings.model_copy(update={"members": members} | paths)


def _make_member(value: Any, source: str) -> MemberSettings:
    if isinstance(value, MemberSettings):
        return value
    if isinstance(value, str | Path):
        return MemberSettings(checkpoint=Path(value))
    if not isinstance(value, Mapping):
        raise InputError(f"{source}: expected checkpoint, mode and weight, found {value!r}")
    return make_settings(MemberSettings, value, source=source)
