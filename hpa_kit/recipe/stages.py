"""A recipe: named stages, each one of the kit's commands, that refer to each other; and the plan they make.

::

    about: one network and its submission
    folds: 5
    inputs:
      weights: folder of the two published cell networks
    stages:
      label_maps:
        segment: {split: train, weights: $weights}
      cam:
        train: {masks: $label_maps, backbone: resnet50, epochs: 12}
        folds: [0, 1]
      soft:
        pseudo-labels: {members: $cam, masks: $label_maps, labels: soft}

A stage holds one command and its options, by the names that they have everywhere. ``$cam`` is what the
stage ``cam`` writes: of the same fold where both stages are done for each fold, else all folds', and
``$cam.0`` fold 0's. ``$data``, ``$scratch`` and the names of ``inputs`` stand for what the user gives; an
option that is an input which was not given is left out. ``ensemble`` writes an ensemble's YAML, ``weights``
packs members.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit import config
from hpa_kit.config import (
    EnsembleSettings,
    MemberSettings,
    RecipeSettings,
    Settings,
    TrainSettings,
    make_settings,
    read_yaml,
)
from hpa_kit.config.commands import KINDS
from hpa_kit.errors import InputError, nearest
from hpa_kit.plan import Plan

SHIPPED = Path(__file__).with_name("recipes")
ENSEMBLE_STAGE, WEIGHTS_STAGE = "ensemble", "weights"  # stages that are no command of one settings class
_COMMANDS = [name for name in KINDS if name not in ("recipe", "ablation", "budget", "demo", "simulate")]
_OF_STAGE = ("folds", "optional")
_OF_RECIPE = ("about", "folds", "inputs", "stages")
_ENDINGS = {
    "infer": ".csv", "predict": ".csv", "features": ".npz", "subcategories": ".csv", "tune": ".yaml",
    "report": ".html", ENSEMBLE_STAGE: ".yaml",
}  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_REFERENCE = re.compile(r"\$([A-Za-z_]\w*)(?:\.(\d+))?")
_OWN = ("data", "scratch")


class Stage(NamedTuple):
    """One stage.

    Attributes:
        name: by which others refer to it, and under which it lies in the recipe's folder.
        command: of the kit, or ``ensemble`` or ``weights``.
        options: of the command, as the YAML has them.
        folds: for which folds it is done; None is once.
        optional: above 0 it can be left out, the highest first.
    """

    name: str
    command: str
    options: dict[str, Any]
    folds: tuple[int, ...] | None
    optional: int

    def out(self, folder: Path, fold: int | None) -> Path:
        """Where it writes, in the recipe's folder."""
        name = self.name if fold is None else f"{self.name}_fold{fold}"
        return folder / (name + _ENDINGS.get(self.command, ""))

    def needs(self) -> set[str]:
        """The names that its options refer to."""
        return _referred(self.options)


class Recipe(NamedTuple):
    """What a YAML says.

    Attributes:
        name: of the file.
        about: one sentence.
        folds: number of folds.
        inputs: {name: what it is}, beside data.
        stages: by name, in an order in which they can run.
    """

    name: str
    about: str
    folds: int
    inputs: dict[str, str]
    stages: dict[str, Stage]

    def without(self, names: Collection[str]) -> "Recipe":
        """The same without some stages, what cannot be done without them, and what only they needed.

        Ensembles lose members.
        """
        dropped = set(names)
        stages = self.stages.values()
        for stage in stages:
            if stage.command != ENSEMBLE_STAGE and stage.needs() & dropped:
                dropped.add(stage.name)
        for stage in reversed(stages):
            takers = {other.name for other in stages if stage.name in other.needs()}
            if takers and takers <= dropped:
                dropped.add(stage.name)
        kept = {}
        for name, stage in self.stages.items():
            if name in dropped:
                continue
            members = [one for one in _several(stage.options.get("members")) if not _referred(one) & dropped]
            only = {"members": members} if stage.command == ENSEMBLE_STAGE else {}
            kept[name] = stage._replace(options=stage.options | only)
        return self._replace(stages=kept)


def shipped() -> dict[str, Path]:
    """List the recipes that come with the kit, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def read_recipe(name: str | Path) -> Recipe:
    """Read a recipe and check it as far as it can be without data.

    Args:
        name: of a recipe that comes with the kit, or a YAML file.

    Raises:
        InputError: there is none; a stage has no known command, an unknown reference or one to a later stage.
    """
    path = shipped().get(str(name), Path(name))
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(
            f"recipe: there is no recipe {str(name)!r}{nearest(str(name), shipped())}, or a YAML file"
        )
    content = read_yaml(path)
    for key in content:
        if key not in _OF_RECIPE:
            raise InputError(f"recipe: {path}: unknown key {key!r}{nearest(str(key), _OF_RECIPE)}")
    stages, inputs = content.get("stages"), content.get("inputs") or {}
    if not isinstance(stages, dict) or not stages:
        raise InputError(f"recipe: {path} has no stages; expected names, each with a command and its options")
    if not isinstance(inputs, dict):
        raise InputError(f"recipe: {path}: inputs: expected names and what they are, found {inputs!r}")
    folds = _whole(content.get("folds", "5"), f"recipe: {path}: folds", 2)
    found: dict[str, Stage] = {}
    for key, value in stages.items():
        known = {*_OWN, *inputs, *found}
        found[key] = _read_stage(path, str(key), value, folds, known)
    return Recipe(path.stem, str(content.get("about") or ""), folds, dict(inputs), found)


def plan_recipe(recipe: Recipe, settings: RecipeSettings) -> Plan:
    """Plan all steps of a recipe: every stage's settings are made and checked, nothing is written.

    A step's command lacks what may change between sessions: device, workers, time limit.

    Args:
        recipe: as read.
        settings: with the data.

    Raises:
        InputError: an input is unknown or missing, or a stage's options cannot be used; naming the stage.
    """
    return _planned(recipe, settings).plan


def networks_of(recipe: Recipe, settings: RecipeSettings) -> list[TrainSettings]:
    """Make the settings of all networks that a recipe trains, in order; errors as of :func:`plan_recipe`."""
    return _planned(recipe, settings).networks


def _planned(recipe: Recipe, settings: RecipeSettings) -> "_Planner":
    if settings.data is None or not settings.data.is_dir():
        found = "nothing" if settings.data is None else f"{settings.data}, which is no folder"
        raise InputError(f"recipe: {recipe.name} needs data, a competition folder; found {found}")
    for name, path in settings.inputs.items():
        if name not in recipe.inputs:
            raise InputError(f"recipe: {recipe.name} takes no input {name!r}{nearest(name, recipe.inputs)}")
        if not path.exists():
            raise InputError(f"recipe: inputs: {name}: {path} is missing")
    planner = _Planner(recipe, settings)
    for stage in recipe.stages.values():
        for fold in (None,) if stage.folds is None else stage.folds:
            try:
                planner.add(stage, fold)
            except InputError as error:
                raise InputError(f"recipe: {recipe.name}: stage {stage.name}: {error}") from None
    return planner


class _Planner:
    def __init__(self, recipe: Recipe, settings: RecipeSettings) -> None:
        self.recipe, self.settings = recipe, settings
        self.plan = Plan()
        self.networks: list[TrainSettings] = []
        given = {"data": settings.data, "scratch": settings.scratch_folder}
        self.given: dict[str, Path | None] = {**dict.fromkeys(recipe.inputs), **given, **settings.inputs}

    def add(self, stage: Stage, fold: int | None) -> None:
        out = stage.out(self.settings.out, fold)
        title = stage.name if fold is None else f"{stage.name} fold {fold}"
        given = stage.options | (dict(self.settings.networks) if stage.command == "train" else {})
        if stage.command == "tune":  # a file per field
            given = {"cache": str(self.settings.scratch_folder / f"{out.stem}_evidence")} | given
        entries = _several(given.pop("members", None)) if stage.command == ENSEMBLE_STAGE else []
        options = {
            name: found for name, value in given.items() if (found := self._resolved(value, fold)) is not None
        }
        if stage.command == ENSEMBLE_STAGE:
            members = [one for entry in entries for one in self._members(entry, fold)]
            self.plan.ensembles[out] = make_settings(EnsembleSettings, options | {"members": members})
        elif stage.command == WEIGHTS_STAGE:
            if unknown := options.keys() - {"sources"}:
                raise InputError(f"unknown option {min(unknown)!r}; weights takes sources")
            words = ["kaggle", "weights", *_several(options.get("sources", ()))]
            self.plan.add(title, stage.name, *words, "--owner", self.settings.owner, out=out, option=())
        else:
            self.plan.add(title, stage.name, *self._words(stage, fold, options, out), out=out)

    def _words(self, stage: Stage, fold: int | None, options: dict[str, Any], out: Path) -> Iterator[str]:
        """The words of a command of one settings class, but for its --out; its settings are checked."""
        name, positional = KINDS[stage.command]
        kind: type[Settings] = getattr(config, name)
        known = kind.options()
        own: dict[str, Any] = {"data": self.settings.data} if "data" in known else {}
        if "folds" in known:
            own |= ({} if fold is None else {"fold": fold}) | {"folds": self.recipe.folds}
        if twice := sorted({*own, "out"} & options.keys()):
            raise InputError(f"{twice[0]} is the recipe's to say; leave it out")
        options = own | options
        settings = make_settings(kind, options, {"out": out})
        if isinstance(settings, TrainSettings):
            self.networks.append(settings)
        made = settings.model_dump()
        yield stage.command
        for name in positional:
            if name in options:
                yield str(options.pop(name))
        for name, value in options.items():
            option = kind.aliases.get(name, name).replace("_", "-")
            if isinstance(value, bool) or isinstance(made.get(name), bool):
                yield f"--{option}" if made[name] else f"--no-{option}"
            elif isinstance(value, list | tuple):
                yield from (
                    (f"--{option}", *map(str, value))
                    if name == "members"
                    else (f"--{option}", ",".join(map(str, value)))
                )
            else:
                yield from (f"--{option}", str(value))

    def _members(self, entry: Any, fold: int | None) -> Iterator[dict[str, Any]]:
        """The members that one entry stands for; those of several folds share its weight."""
        values = {"checkpoint": entry} if isinstance(entry, str) else entry
        if not isinstance(values, Mapping):
            raise InputError(f"members: expected checkpoint, mode and weight, found {entry!r}")
        runs = _several(self._resolved(values.get("checkpoint"), fold))
        for run in runs:
            member = make_settings(MemberSettings, values, {"checkpoint": run}, source="members")
            yield dict(values) | {"checkpoint": run, "weight": member.weight / len(runs)}

    def _resolved(self, value: Any, fold: int | None) -> Any:
        """A value with paths in place of its references; None where it is an input that was not given."""
        if isinstance(value, Mapping):
            return {name: self._resolved(one, fold) for name, one in value.items()}
        if isinstance(value, list):
            return [one for part in value for one in _several(self._resolved(part, fold))]
        if not isinstance(value, str) or "$" not in value:
            return value
        found = [(one, self._paths(one[1], one[2], fold)) for one in _REFERENCE.finditer(value)]
        if any(path is None for _, path in found):
            return None
        if len(found) == 1 and found[0][0][0] == value:
            return found[0][1]
        paths = iter(path for _, path in found)
        return _REFERENCE.sub(lambda _: str(next(paths)), value)

    def _paths(self, name: str, which: str | None, fold: int | None) -> Any:
        """What a reference stands for: a path, those of all folds, or None."""
        stage = self.recipe.stages.get(name)
        if stage is None:
            return self.given[name]
        if which is not None and int(which) not in (stage.folds or ()):
            folds = (
                "has no folds" if stage.folds is None else f"has the folds {', '.join(map(str, stage.folds))}"
            )
            raise InputError(f"${name}.{which}: the stage {name} {folds}")
        if stage.folds is None:
            return stage.out(self.settings.out, None)
        if which is not None or fold in stage.folds:
            return stage.out(self.settings.out, fold if which is None else int(which))
        return [stage.out(self.settings.out, one) for one in stage.folds]


def _read_stage(path: Path, name: str, value: Any, folds: int, known: Collection[str]) -> Stage:
    where = f"recipe: {path}: stage {name}"
    if not _NAME.fullmatch(name) or name in _OWN:
        raise InputError(
            f"{where}: a stage's name has small letters, digits and _, and is not data or scratch"
        )
    if name in known:
        raise InputError(f"{where}: an input has the same name")
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a command and its options, found {value!r}")
    commands = [key for key in value if key not in _OF_STAGE]
    every = [*_COMMANDS, ENSEMBLE_STAGE, WEIGHTS_STAGE]
    if len(commands) != 1 or commands[0] not in every:
        wrong = next((key for key in commands if key not in every), None)
        what = (
            f"{wrong!r} is no command{nearest(str(wrong), every)}"
            if wrong
            else f"found {len(commands)} commands"
        )
        raise InputError(f"{where}: expected one command; {what}")
    options = value[commands[0]] or {}
    if not isinstance(options, dict):
        raise InputError(f"{where}: {commands[0]}: expected names and values, found {options!r}")
    chosen = value.get("folds")
    if chosen is not None:
        listed = (
            range(folds)
            if chosen == "all"
            else [_whole(one, f"{where}: folds", 0) for one in _several(chosen)]
        )
        chosen = tuple(listed)
        if not chosen or max(chosen) >= folds or len(set(chosen)) < len(chosen):
            raise InputError(
                f"{where}: folds are all, or some of 0 to {folds - 1}, each once; found {value['folds']!r}"
            )
    stage = Stage(
        name, commands[0], options, chosen, _whole(value.get("optional", "0"), f"{where}: optional", 0)
    )
    for reference in sorted(stage.needs()):
        if reference not in known:
            raise InputError(
                f"{where}: ${reference} is neither an input nor an earlier stage{nearest(reference, known)}"
            )
    return stage


def _whole(value: Any, where: str, least: int) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise InputError(f"{where}: expected a whole number from {least} on, found {value!r}")
    return int(text)


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _referred(value: Any) -> set[str]:
    """The names that nested values refer to."""
    return {name for text in _texts(value) for name, _ in _REFERENCE.findall(text)}


def _texts(value: Any) -> Iterator[str]:
    """All texts in nested values."""
    if isinstance(value, str):
        yield value
    for one in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _texts(one)
