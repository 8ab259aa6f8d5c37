"""What a run of pseudo labels says: how fast it went, where the time went, what could not be used."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpa_kit.config import PseudoLabelSettings
from hpa_kit.errors import InputError
from hpa_kit.inference.prepare import Size
from hpa_kit.inference.work import Outcome, refuse_if_all_failed, report_fields
from hpa_kit.timing import Forecast, duration

log = logging.getLogger(__name__)

WHAT = "pseudo-labels"


@dataclass
class Seconds:
    """Where the time goes, of all groups together, and what they will take."""

    forecast: Forecast
    fields: int = 0
    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, fields: int, parts: Mapping[str, float]) -> None:
        """Count fields and what each took by part."""
        self.fields += fields
        for part, seconds in parts.items():
            self.parts[part] += seconds * fields


def together(outcomes: list[Outcome]) -> Outcome:
    """What came of all groups of fields."""
    failed: dict[str, str] = {}
    sizes: dict[str, Size] = {}
    for outcome in outcomes:
        failed |= outcome.failed
        sizes |= outcome.sizes
    late = [id for outcome in outcomes for id in outcome.late]
    return Outcome(failed, late, sum(outcome.made for outcome in outcomes), sizes)


def report(
    settings: PseudoLabelSettings, ids: list[str], outcome: Outcome, seconds: Seconds, took: float
) -> None:
    """Say what could not be used, how fast it went and where the time went.

    Raises:
        InputError: not one field could be used.
    """
    report_fields(WHAT, settings.masks, ids, outcome, "has no pseudo labels; the same command tries it again")
    if ids:
        refuse_if_all_failed(WHAT, settings.data, ids, outcome)
    if seconds.fields:
        parts = ", ".join(f"{part} {total / seconds.fields:.2g}" for part, total in seconds.parts.items())
        log.info(
            f"{WHAT}: {seconds.fields} fields in {duration(took)}, "
            f"{seconds.fields / max(took, 1e-9):.2g} per second; seconds of a field by part, which overlap: "
            f"{parts}"
        )
    if outcome.late:
        raise InputError(f"{WHAT}: {len(outcome.late)} fields were not reached; the same command goes on")
