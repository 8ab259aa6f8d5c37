"""Choosing weights, rule and steps on the evidence of fields, and judging the choice on other fields."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from hpa_kit.config import EnsembleSettings, Form, Rule, Settings
from hpa_kit.config.scoring import (
    FillStep,
    FloorStep,
    FuseStep,
    ImageStep,
    NegativeStep,
    OthersStep,
    SmallStep,
    name_of,
)
from hpa_kit.progress import track
from hpa_kit.scoring.functions import SCORING_FUNCTIONS
from hpa_kit.timing import Forecast
from hpa_kit.tuning.calibration import fit_calibration
from hpa_kit.tuning.pool import LINEAR, Pool

Fields = NDArray[np.bool_]

FACTORS = (0.0, 0.25, 0.5, 2.0, 4.0)  # what a member's weight is tried times; 0 leaves it out
MARGIN = 0.002  # of mAP that a choice has to gain: less is chance in any set that is not huge
ROUNDS = 3  # through all members, as long as anything helps
ORDER = ("calibrate", "image", "fuse", "negative", "others", "small", "fill", "floor", "negative_check")


class Crossfit(NamedTuple):
    """What choosing gains on fields that were not chosen on.

    Attributes:
        gains: mAP of the choice less that of the start: a list per division, with a number per part.
        default: mean mAP of the start over the parts.
    """

    gains: list[list[float]]
    default: float

    @property
    def gain(self) -> float:
        """The mean gain."""
        return float(np.mean([gain for division in self.gains for gain in division]))

    @property
    def error(self) -> float:
        """Its standard error, as if there were one division: the others look at the same fields."""
        everything = [gain for division in self.gains for gain in division]
        parts = len(everything) / len(self.gains)
        return float(np.std(everything, ddof=1) / np.sqrt(parts)) if parts > 1 else np.inf

    @property
    def helps(self) -> bool:
        """Whether the gain is more than chance."""
        return self.gain > 0 and self.gain > self.error


def choose(pool: Pool, fields: Fields, start: EnsembleSettings) -> EnsembleSettings:
    """The settings with the highest mAP of some fields, found step by step: weights, rule, further steps.

    Args:
        pool: the evidence.
        fields: bool (F,), which fields count.
        start: what is kept where nothing is better.
    """
    best, most = start, _mean_ap(pool, fields, start)

    def better(candidates: Iterable[EnsembleSettings]) -> bool:
        nonlocal best, most
        before = best
        for candidate in candidates:
            found = _mean_ap(pool, fields, candidate)
            if found > most + MARGIN:
                best, most = candidate, found
        return best is not before

    weighed = _weighed(pool, fields, start if start.rule in LINEAR else _with(start, "best"))
    better([weighed])
    better(_rules(pool, fields, start, weighed))
    while better(_further_steps(pool, best)):
        pass
    return best


def crossfit(pool: Pool, start: EnsembleSettings, parts: int, seed: int, repeats: int = 1) -> Crossfit:
    """Choose on all parts of the fields but one and judge on that one, for each part, in several divisions.

    Each part is judged by itself, for the scores of different choices have different scales. Parts without
    anything to find say nothing and are left out.
    """
    n_fields = len(pool.bounds) - 1
    rng, before = np.random.default_rng(seed), pool.scores_of(start)
    gains: list[list[float]] = []
    defaults = []
    parts = min(parts, n_fields)
    # Once more than is judged: on all fields, when it has been found to help.
    forecast = Forecast("tune", repeats * parts + 1, unit="choices")
    for _ in track(range(repeats), "tune", repeats, "division"):
        part_of = rng.permutation(np.arange(n_fields) % parts)
        gains.append([])
        for part in range(parts):
            held_out = part_of == part
            default = pool.mean_ap(before, held_out)
            if default is None:
                continue
            chosen = choose(pool, ~held_out, start)
            gains[-1].append((pool.mean_ap(pool.scores_of(chosen), held_out) or 0.0) - default)
            defaults.append(default)
            forecast.add(1)
    if not defaults:
        return Crossfit([[0.0]], float("nan"))
    return Crossfit(gains, float(np.mean(defaults)))


def _mean_ap(pool: Pool, fields: Fields, settings: EnsembleSettings) -> float:
    return pool.mean_ap(pool.scores_of(settings), fields) or 0.0


def _weighed(pool: Pool, fields: Fields, start: EnsembleSettings) -> EnsembleSettings:
    """Weights member by member, each the best of a few factors while the others stay; 0 leaves one out."""
    best, most = start, _mean_ap(pool, fields, start)
    silent = _silent(pool, start)
    for _ in range(ROUNDS):
        before = best
        for place in range(len(start.members)):
            weight = best.members[place].weight or start.members[place].weight
            for factor in FACTORS:
                candidate = _reweighed(best, place, round(weight * factor, 6))
                # Every field keeps a member that gives scores and one that gives maps.
                if _silent(pool, candidate) > silent:
                    continue
                found = _mean_ap(pool, fields, candidate)
                if found > most + MARGIN:
                    best, most = candidate, found
        if best is before:
            break
    return best


def _reweighed(settings: EnsembleSettings, place: int, weight: float) -> EnsembleSettings:
    members = list(settings.members)
    members[place] = members[place].model_copy(update={"weight": weight})
    return settings.model_copy(update={"members": tuple(members)})


def _silent(pool: Pool, settings: EnsembleSettings) -> int:
    """How many values no member gives."""
    missing = (pool.image_scores_of(settings), pool.logits_of(settings))
    return sum(int(np.isnan(values).sum()) for values in missing)


def _rules(
    pool: Pool, fields: Fields, start: EnsembleSettings, weighed: EnsembleSettings
) -> Iterator[EnsembleSettings]:
    """Whole ways from maps to scores; those that are not linear in the maps with the weights of the start."""
    yield _with(weighed, "best")
    calibration = fit_calibration(*pool.examples(weighed, fields))
    yield _with(weighed, "cell_logit", calibration, NegativeStep(), FloorStep())
    yield _with(weighed, "cell_logit", calibration, ImageStep(), NegativeStep(), FloorStep())
    if np.isnan(pool.rows).any():  # of some fields no member gives maps
        return
    for form in get_args(Form):
        yield _with(start, "cam_share", FillStep()).model_copy(update={"form": form})
    yield _with(start, "quantile", NegativeStep(), FloorStep())


def _further_steps(pool: Pool, settings: EnsembleSettings) -> Iterator[EnsembleSettings]:
    """The settings with one more step, or one less of those that could be added."""
    spelled = [*SCORING_FUNCTIONS[settings.rule].steps, *settings.steps]
    rule = _PLAIN.get(settings.rule, settings.rule)
    # Only a truth of cells can say what a cell's size and place are worth.
    addable = [FuseStep(), NegativeStep(), OthersStep(), *([SmallStep()] if pool.by_cell else [])]
    there = [name_of(step) for step in spelled]
    for step in addable:
        if name_of(step) in there:
            rest = [other for other in spelled if name_of(other) != name_of(step)]
            yield _with(settings, rule, *rest)
        else:
            yield _with(settings, rule, *sorted([*spelled, step], key=lambda one: ORDER.index(name_of(one))))


# Rules that are others with steps.
_PLAIN: dict[Rule, Rule] = {"best": "mean_logit", "mean_logit_negative": "mean_logit"}


def _with(settings: EnsembleSettings, rule: Rule, *steps: Settings) -> EnsembleSettings:
    return settings.model_copy(update={"rule": rule, "steps": steps})
