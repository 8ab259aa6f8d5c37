"""An ablation's results as Markdown: mean and spread over seeds, and each seed's number."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from hpa_kit.ablation.scores import IMAGE_MAP
from hpa_kit.ablation.stages import MASKS
from hpa_kit.config import AblationSettings, Rule
from hpa_kit.config.ablation import CELL_VARIANTS, CLASSIFIER_VARIANTS, STAGE_VARIANTS

VARIANT_NAMES = {
    "round0": "round 0",
    "longer": "round 0, trained on as long as round 1",
    "round1": "round 1 (SC-CAM), from round 0 on",
    "round1_fresh": "round 1 (SC-CAM), from the start",
    "puzzle": "Puzzle-CAM",
    "both": "round 1 with Puzzle-CAM, from round 0 on",
    "copied": "image scores copied",
    "cams": "class maps, round 0",
    "subcategories": "class maps, round 1",
    "stage2": "stage 2 on pseudo labels",
    "ensemble": "ensemble of both stages",
    "tuned": "ensemble, tuned",
    "field": "image logits from the mean of the maps",
    "cells": "image logits pooled over cells",
    "consistency": "pooled, with consistency under CutMix",
    "all_fields": "pooled, learning from all fields",
    "soft": "then from soft labels of cells",
    "crops": "crops, from soft labels of cells",
    "both_kinds": "maps and crops, learning from all fields",
}
RULE_NAMES: dict[Rule, str] = {
    "best": "mean logit, Negative = nothing else, above a floor",
    "copied": "image scores copied",
    "cam_share": "15th place's rule",
    "mean_logit": "mean logit",
    "mean_logit_negative": "mean logit, Negative = nothing else",
    "cell_logit": "mean logit without the image score",
    "quantile": "quantile of the map",
}
MEASURES: dict[str, str] = {IMAGE_MAP: "image mAP"}
MEASURES |= {rule: f"cells: {name}" for rule, name in RULE_NAMES.items()}

Values = Callable[[str], dict[int, float]]


def markdown(results: pd.DataFrame, settings: AblationSettings) -> str:
    """Write tables of the variants that settings name, as far as they are measured.

    Args:
        results: of :class:`~hpa_kit.ablation.scores.Results`.
        settings: of the ablation.
    """
    parts = [_classifiers(results, settings), _stages(results, settings), _from_cells(results, settings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def mean_and_spread(values: Sequence[float]) -> str:
    """``0.612 ± 0.010 (0.602, 0.622)``: mean, standard deviation of the sample, each value."""
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.3f}"
    each = ", ".join(f"{value:.3f}" for value in values)
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} ({each})"


def _classifiers(results: pd.DataFrame, settings: AblationSettings) -> str:
    variants = [variant for variant in CLASSIFIER_VARIANTS if variant in settings.variants]
    own = {rule: f"cells: {rule}" for rule in settings.rules if rule not in RULE_NAMES}
    columns = {
        name: _spread_of(_values(results, settings, measure, "true"))
        for measure, name in (MEASURES | own).items()
        if measure in (IMAGE_MAP, "copied", *settings.rules)
    }
    return _table("classifier, true cells", variants, columns)


def _stages(results: pd.DataFrame, settings: AblationSettings) -> str:
    variants = [variant for variant in STAGE_VARIANTS if variant in settings.variants]
    columns: dict[str, Callable[[str], str]] = {}
    for masks in MASKS:
        for rule in reversed(settings.rules):
            values = _stage_values(results, settings, masks, rule)
            columns[f"{masks} cells, {RULE_NAMES.get(rule, rule)}"] = _spread_of(values)
            if rule == settings.main_rule:
                columns[f"{masks} cells, gain"] = _gain_of(values, variants)
    return _table("variant", variants, columns)


def _from_cells(results: pd.DataFrame, settings: AblationSettings) -> str:
    variants = [variant for variant in CELL_VARIANTS if variant in settings.variants]
    columns: dict[str, Callable[[str], str]] = {}
    for masks in MASKS:
        values = _values(results, settings, settings.main_rule, masks)
        columns[f"{masks} cells"] = _spread_of(values)
        columns[f"{masks} cells, gain over field"] = _gain_over(values, CELL_VARIANTS[0])
    return _table("learning from cells", variants, columns)


def _stage_values(results: pd.DataFrame, settings: AblationSettings, masks: str, rule: str) -> Values:
    """Give a variant's values by a rule; copied scores know none, tuned ones have the main rule's."""
    copied = _values(results, settings, "copied", masks)
    by_rule = _values(results, settings, rule, masks)
    return lambda variant: copied(variant) if variant == "copied" else by_rule(variant)


def _spread_of(values: Values) -> Callable[[str], str]:
    return lambda variant: mean_and_spread(list(values(variant).values()))


def _gain_of(values: Values, variants: Sequence[str]) -> Callable[[str], str]:
    """How far a variant is above the one before it: the mean over the seeds that have both."""

    def gain(variant: str) -> str:
        place = variants.index(variant)
        return _gain_over(values, variants[place - 1])(variant) if place else "–"

    return gain


def _gain_over(values: Values, start: str) -> Callable[[str], str]:
    """How far a variant is above one of them: the mean over the seeds that have both."""

    def gain(variant: str) -> str:
        before = values(start) if variant != start else {}
        gains = [value - before[seed] for seed, value in values(variant).items() if seed in before]
        return f"{np.mean(gains):+.3f}" if gains else "–"

    return gain


def _values(results: pd.DataFrame, settings: AblationSettings, measure: str, masks: str) -> Values:
    """What gives a variant's values of one measure by seed, as far as there are any."""
    chosen = results[(results["measure"] == measure) & (results["masks"] == masks)]
    values = chosen["value"].to_numpy(dtype=float).tolist()
    found = dict(zip(zip(chosen["variant"], chosen["seed"], strict=True), values, strict=True))
    return lambda variant: {seed: found[variant, seed] for seed in settings.seeds if (variant, seed) in found}


def _table(first: str, variants: Sequence[str], columns: dict[str, Callable[[str], str]]) -> str:
    if not variants:
        return ""
    lines = [[first, *columns], ["---"] * (1 + len(columns))]
    for variant in variants:
        lines.append([VARIANT_NAMES[variant], *(column(variant) for column in columns.values())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
