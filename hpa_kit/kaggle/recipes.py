"""A recipe in the training notebook: what the parameters cell says of it, and the networks it trains."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpa_kit.config import RecipeSettings, TrainSettings, make_settings
from hpa_kit.errors import InputError
from hpa_kit.kaggle import find_cell_weights, output_path
from hpa_kit.kaggle.mounts import find_mounts
from hpa_kit.recipe.run import carry_out
from hpa_kit.recipe.stages import networks_of, read_recipe
from hpa_kit.recipe.state import STATE, read_state
from hpa_kit.training.checkpoint import LAST

FOLDER = "recipe"  # of the working folder, where the notebook has no other


def notebook_recipe(
    variables: Mapping[str, Any], data: Path, roots: Sequence[str | Path], hours: float | None, device: str
) -> RecipeSettings:
    """Make a recipe's settings of a notebook's variables.

    The inputs that a recipe takes are those of ``settings`` and variables of their names, and cell networks
    that are attached; ``hours``, ``parallel`` and ``owner`` in ``settings`` are the recipe's, all else there
    is for every network. An earlier session is looked for among what is attached, wherever it is mounted; the
    one that is furthest counts.

    Args:
        variables: the notebook's ``globals()``: ``recipe``, ``goes_on`` (None: from an earlier session where
            there is one; True: one has to be there; False: anew), ``settings``, ``working``, ``out``.
        data: the competition's folder.
        roots: folders to look in.
        hours: of this session; None has no limit.
        device: as for :class:`~hpa_kit.config.RecipeSettings`.

    Raises:
        InputError: the recipe cannot be read, or a value is bad.
    """
    recipe = read_recipe(variables["recipe"])
    given = dict(variables.get("settings") or {})
    own = {name: given.pop(name) for name in ("hours", "parallel", "owner") if name in given}
    inputs = {name: given.pop(name) for name in recipe.inputs if name in given}
    inputs |= {name: variables[name] for name in recipe.inputs if variables.get(name) and name not in inputs}
    if "weights" in recipe.inputs and "weights" not in inputs and (weights := find_cell_weights(None, roots)):
        inputs["weights"] = weights
    out = output_path(FOLDER, variables.get("out"), variables["working"])
    goes_on = variables.get("goes_on")
    if variables.get("resume_from"):
        earlier: Path | None = Path(variables["resume_from"])
    else:
        earlier = None if goes_on is False else _earlier(roots, recipe.name, out)
    values = {
        "recipe": str(variables["recipe"]), "data": data, "out": out, "inputs": inputs, "networks": given,
        "resume_from": earlier,
        "past_expected": goes_on is True, "time_limit": hours, "device": device,
        "scratch": Path(tempfile.gettempdir()) / f"hpa-kit{str(out.resolve()).replace(os.sep, '-')}",
    }  # fmt: skip
    return make_settings(RecipeSettings, values, own, source="parameters cell")


def first_network(settings: RecipeSettings) -> TrainSettings:
    """Make the settings of the first network that a recipe trains, to look at its data before it begins.

    They name no cells, as label maps are not there yet.

    Raises:
        InputError: the recipe trains none, or as :func:`~hpa_kit.recipe.stages.plan_recipe`.
    """
    for network in networks_of(read_recipe(settings.recipe), settings):
        return network.model_copy(update={"masks": None, "pooling": "field"})
    raise InputError(f"recipe: {settings.recipe} trains no network")


def train_by_recipe(settings: RecipeSettings) -> TrainSettings:
    """Do a recipe as far as this session's time goes; the settings of the network that was trained last.

    Raises:
        InputError: as :func:`~hpa_kit.recipe.run.carry_out`.
    """
    try:
        carry_out(settings)
    except InputError as error:
        state = read_state(settings.out)
        if state is None or state.problem is None:
            raise
        print(error)  # what was done is kept where the session ends well; the state file tells of it
    networks = networks_of(read_recipe(settings.recipe), settings)
    there = [network for network in networks if (network.out / LAST).is_file()]
    return there[-1] if there else first_network(settings)


def _earlier(roots: Sequence[str | Path], name: str, out: Path) -> Path | None:
    """The session of this recipe among what is attached that is furthest."""
    found = [folder for folder in find_mounts(STATE, roots) if folder.resolve() != out.resolve()]
    states = {folder: state for folder in found if (state := read_state(folder)) and state.recipe == name}
    return max(states, key=lambda folder: states[folder].hours_spent, default=None)
