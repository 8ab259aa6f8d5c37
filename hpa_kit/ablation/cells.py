"""The variants of learning from cells: pooled, consistent, from soft labels, one by one, and all together."""

from pathlib import Path

from hpa_kit.ablation.classifiers import ROUND_0, AblationPlan, Score
from hpa_kit.ablation.stages import MASKS
from hpa_kit.config import EnsembleSettings, MemberSettings, make_settings
from hpa_kit.config.ablation import CELL_VARIANTS


def plan_cells(plan: AblationPlan) -> None:
    """Every variant that learns from cells, with the true cells and with those of the classical segmenter.

    What a network learns from is what it is scored with: classical label maps of training fields and of test
    fields, or true ones of both.
    """
    settings = plan.settings
    wanted = [variant for variant in CELL_VARIANTS if variant in settings.variants]
    for seed in settings.seeds if wanted else ():
        for masks in MASKS:
            runs = _CellRuns(plan, seed, masks)
            for variant in wanted:
                members = runs.members(variant)
                for rule in settings.rules:
                    score = Score(variant, seed, masks, rule)
                    plan.infer(score, runs.label_maps, *members, "--rule", rule)


class _CellRuns:
    """One seed's runs with one kind of cells."""

    def __init__(self, plan: AblationPlan, seed: int, masks: str) -> None:
        self.plan, self.seed, self.masks = plan, seed, masks
        self.folder = plan.folder(seed) / "cells" / masks
        self.label_maps = plan.true_masks if masks == "true" else plan.classical_masks()

    def members(self, variant: str) -> tuple[object, ...]:
        """The options that name a variant's members; what these need is planned."""
        if variant == "both_kinds":
            return ("--ensemble", self._both_kinds())
        run = {
            # Knows no cells, so there is one for both kinds of them.
            "field": lambda: self.plan.classifier(ROUND_0, self.seed),
            "cells": lambda: self._teacher(0),
            "consistency": lambda: self._train(variant, 0, *self._pooled(), "--consistency", 1),
            "all_fields": lambda: self._train(variant, 0, *self._pooled(), "--all-fields"),
            "soft": lambda: self._train(variant, 0, "--pseudo-labels", self._soft_labels()),
            "crops": lambda: self._crops(variant),
        }[variant]
        return ("--members", run())

    def _teacher(self, fold: int) -> Path:
        return self._train("cells", fold, *self._pooled())

    def _pooled(self) -> tuple[object, ...]:
        return ("--masks", self.label_maps, "--loss", self.plan.settings.loss)

    def _crops(self, name: str, *extra: object) -> Path:
        return self._train(name, 0, "--network", "crops", "--pseudo-labels", self._soft_labels(), *extra)

    def _both_kinds(self) -> Path:
        """An ensemble of a classifier with maps and one of crops that have learnt from all fields."""
        runs = [
            self._train("all_fields", 0, *self._pooled(), "--all-fields"),
            self._crops("crops_all_fields", "--all-fields"),
        ]
        members = tuple(make_settings(MemberSettings, {"checkpoint": run, "views": "flips"}) for run in runs)
        path = self.folder / "both_kinds.yaml"
        values = {"members": members, "map_size": self.plan.settings.size, "masks": self.label_maps}
        self.plan.ensembles[path] = make_settings(EnsembleSettings, values)
        return path

    def _soft_labels(self) -> Path:
        """Out of fold: each training field's by the one classifier that has not learnt from it."""
        settings = self.plan.settings
        return self.plan.add(
            f"soft labels, {self.masks} cells, seed {self.seed}", "pseudo-labels", "pseudo-labels",
            settings.data, "--members", *map(self._teacher, range(settings.folds)),
            "--masks", self.label_maps, "--labels", "soft", "--map-size", settings.size,
            "--device", settings.device, out=self.folder / "soft_labels",
        )  # fmt: skip

    def _train(self, name: str, fold: int, *extra: object) -> Path:
        return self.plan.train(
            f"{name}, {self.masks} cells", self.seed, fold, self.folder / f"{name}_fold{fold}", *extra
        )
