"""Where the time of a table's fields went: a small YAML beside the CSV.

No CSV, so that nobody takes it for the submission beside which it lies.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import yaml
from pydantic import Field

from hpa_kit.config.base import Settings, load_yaml, make_settings
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.inference.journal import Journal

log = logging.getLogger(__name__)

PARTS = ("reading", "cells", "preparing", "members", "scoring")  # in the order of the work
DIGITS = 6
HEADER = "# Seconds of a field by part; parts overlap. Fields: those scored, in all starts of the run.\n"


class PartSeconds(Settings):
    """What a part of the work took: mean seconds of a field, over how many fields."""

    seconds_per_field: float = Field(ge=0)
    fields: int = Field(ge=1)


def seconds_of(table: Path) -> Path:
    """Where a table's seconds are kept: ``submission_seconds.yaml`` beside ``submission.csv``."""
    return table.with_name(f"{table.stem}_seconds.yaml")


def keep_seconds(table: Path, ids: Iterable[str], journal: Journal) -> None:
    """Bring the file beside a table in step with it.

    Each field's result in the journal has its seconds with it, so those of earlier starts are among them.
    Where nothing was measured there is no file. Where it cannot be written that is said: a table is not lost
    for want of it.

    Args:
        table: the CSV.
        ids: its fields.
        journal: their results; ``seconds`` is {part: seconds} of a field.
    """
    path, parts = seconds_of(table), _mean(ids, journal)
    try:
        if parts:
            content = {part: seconds.model_dump() for part, seconds in parts.items()}
            atomic_text(path, HEADER + yaml.safe_dump(content, sort_keys=False))
        else:
            path.unlink(missing_ok=True)
    except (InputError, OSError) as error:
        log.warning(f"times of the fields of {table} are not kept: {error}")


def read_seconds(path: Path) -> dict[str, PartSeconds]:
    """What :func:`keep_seconds` wrote, by part.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    content = load_yaml(path, "seconds")
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise InputError(f"seconds: {path} cannot be used; expected seconds_per_field and fields by part")
    return {
        str(part): make_settings(PartSeconds, value, source=f"{path}: {part}")
        for part, value in content.items()
    }


def _mean(ids: Iterable[str], journal: Journal) -> dict[str, PartSeconds]:
    taken: dict[str, list[float]] = {part: [] for part in PARTS}
    for id in ids:
        known = journal.facts(id).get("seconds", {}) if id in journal else {}
        for part, seconds in known.items():
            taken.setdefault(part, []).append(seconds)
    return {
        part: PartSeconds(seconds_per_field=round(sum(each) / len(each), DIGITS), fields=len(each))
        for part, each in taken.items()
        if each
    }
