"""In which settings a run that is gone on with differs from what it was started with."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from hpa_kit.config.base import Settings


def differences(before: Settings, now: Settings, free: Collection[str], movable: Collection[str]) -> str:
    """The settings that differ, each with its value before and now; empty where none does.

    Args:
        before: what the run was started with.
        now: what it is to go on with, of the same class.
        free: settings that may differ: where things lie and what computes, not what is computed.
        movable: settings that are files which may lie elsewhere another time, but must have the same name.
    """
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    differing = [
        name for name in new if name not in free and _kept(name, old, movable) != _kept(name, new, movable)
    ]
    return ", ".join(f"{name} {old[name]} (now {new[name]})" for name in differing)


def _kept(name: str, values: dict[str, Any], movable: Collection[str]) -> Any:
    """What of a setting must stay: of a path, or each of several, its name."""
    value = values[name]
    if name not in movable:
        return value
    if isinstance(value, list):
        return [Path(one).name for one in value]
    return Path(value).name if isinstance(value, str) else value
