"""What a recipe will take: its stages with the hours and bytes that are known of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from hpa_kit.config import RecipeSettings
from hpa_kit.plan import Plan, Step
from hpa_kit.recipe.stages import ENSEMBLE_STAGE, Recipe, plan_recipe
from hpa_kit.recipe.state import Done, bytes_of, is_done, keys_of, name_of, read_state
from hpa_kit.tables import text_table
from hpa_kit.timing import duration


def hours_of(plan: Plan, steps: Mapping[str, Done], out: Path) -> tuple[float, list[str]]:
    """Expect the hours of a whole plan, one step after the other, by the steps of each kind that are done.

    Returns:
        the hours of the kinds that were measured, and the kinds that were not.
    """
    taken = _seconds_by_kind(plan, steps, out)
    unknown = dict.fromkeys(step.kind for step in plan.steps.values() if step.kind not in taken)
    return sum(taken.get(step.kind, 0.0) for step in plan.steps.values()) / 3600, list(unknown)


def as_planned(plan: Plan, steps: Mapping[str, Done], settings: RecipeSettings) -> dict[str, Done]:
    """Take of what is known of steps that of those which are done, and still made as then."""
    names = {name_of(step, settings.out): key for step, key in keys_of(plan, settings).items()}
    return {name: done for name, done in steps.items() if done.finished and names.get(name) == done.key}


def seconds_left(plan: Plan, steps: Mapping[str, Done], out: Path) -> float | None:
    """Expect the seconds of the steps that are left, one by one; None where a kind was never measured."""
    taken = _seconds_by_kind(plan, steps, out)
    left = [step for step in plan.steps.values() if not is_done(step, steps, out)]
    if any(step.kind not in taken for step in left):
        return None
    return sum(max(0.0, taken[step.kind] - _spent(step, steps, out)) for step in left)


def plan_text(recipe: Recipe, settings: RecipeSettings) -> str:
    """Describe a recipe: its inputs, and each stage with what it needs, the hours and bytes expected.

    Hours and bytes are those of steps of the same stage that are done in ``out``; else they are unknown.
    Without data nobody knows whether these would be done anew on them, and they count as they are.
    """
    lines = [f"{recipe.name}: {recipe.about}"]
    lines += [
        f"input {name}: {settings.inputs.get(name) or 'not given'} ({what})"
        for name, what in recipe.inputs.items()
    ]
    state = read_state(settings.out)
    steps = {} if state is None or state.recipe != recipe.name else state.steps
    if settings.data is None:
        plan = _outline(recipe, settings.out)
    else:
        plan = plan_recipe(recipe, settings)
        steps = as_planned(plan, steps, settings)
    taken, sizes = _seconds_by_kind(plan, steps, settings.out), _bytes_by_kind(plan, steps, settings.out)
    rows = []
    for stage in recipe.stages.values():
        number = 1 if stage.folds is None else len(stage.folds)
        needs = sorted(stage.needs() & recipe.stages.keys())
        known = stage.name in taken
        own = [step for step in plan.steps.values() if step.kind == stage.name]
        done = sum(is_done(step, steps, settings.out) for step in own)
        shown = "–" if stage.command == ENSEMBLE_STAGE else "unknown"
        rows.append([
            f"{stage.name} (optional {stage.optional})" if stage.optional else stage.name, stage.command,
            f"{done} of {number}", ", ".join(needs) or "–",
            duration(taken[stage.name] * number) if known else shown,
            f"{sizes[stage.name] * number / 1e6:.1f} MB" if known else shown,
        ])  # fmt: skip
    lines += ["", text_table(["stage", "command", "done", "needs", "time", "bytes"], rows)]
    hours, unknown = hours_of(plan, steps, settings.out)
    lines.append("in all: " + ("unknown" if unknown or not plan.steps else duration(hours * 3600)))
    return "\n".join(lines)


def _outline(recipe: Recipe, out: Path) -> Plan:
    """A recipe's steps by what they write, without the words of their commands, which need data."""
    plan = Plan()
    for stage in recipe.stages.values():
        for fold in (None,) if stage.folds is None else stage.folds:
            if stage.command != ENSEMBLE_STAGE:
                plan.add(stage.name, stage.name, stage.command, out=stage.out(out, fold))
    return plan


def _seconds_by_kind(plan: Plan, steps: Mapping[str, Done], out: Path) -> dict[str, float]:
    """What steps of a kind took that are done, on average."""
    return _by_kind((step.kind, _spent(step, steps, out)) for step in _done(plan, steps, out))


def _bytes_by_kind(plan: Plan, steps: Mapping[str, Done], out: Path) -> dict[str, float]:
    """What steps of a kind wrote that are done, on average."""
    return _by_kind((step.kind, bytes_of(step.out)) for step in _done(plan, steps, out))


def _by_kind(amounts: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for kind, amount in amounts:
        found.setdefault(kind, []).append(amount)
    return {kind: float(np.mean(each)) for kind, each in found.items()}


def _done(plan: Plan, steps: Mapping[str, Done], out: Path) -> list[Step]:
    return [step for step in plan.steps.values() if is_done(step, steps, out)]


def _spent(step: Step, steps: Mapping[str, Done], out: Path) -> float:
    done = steps.get(name_of(step, out))
    return 0.0 if done is None else done.seconds
