"""The variants of the whole job: image scores copied, class maps, rounds, stage 2, ensemble, tuned."""

from collections.abc import Iterator
from pathlib import Path

from hpa_kit.ablation.classifiers import ROUND_0, AblationPlan, Score
from hpa_kit.config import EnsembleSettings, MemberSettings, make_settings
from hpa_kit.config.ablation import STAGE_VARIANTS

MASKS = ("true", "classical")
STAGE_2_BATCH = 8  # fields: many small steps, as there are few fields and minutes


def plan_stages(plan: AblationPlan) -> None:
    """Plan every stage variant, with the true cells and with those that the classical segmenter finds.

    All networks are trained once, whatever the cells: stage 2 learns from pseudo labels of those that the
    classical segmenter finds, as the true ones are not known where it is used.
    """
    settings = plan.settings
    wanted = [variant for variant in STAGE_VARIANTS if variant in settings.variants]
    for seed in settings.seeds if wanted else ():
        for masks in MASKS:
            stages = _Stages(plan, seed, masks)
            for variant in wanted:
                stages.add(variant)


class _Stages:
    """One seed's variants with one kind of cells."""

    def __init__(self, plan: AblationPlan, seed: int, masks: str) -> None:
        self.plan, self.seed, self.masks = plan, seed, masks
        self.settings = plan.settings
        self.folder = plan.folder(seed) / masks
        self.classical = plan.classical_masks()
        self.label_maps = plan.true_masks if masks == "true" else self.classical

    def add(self, variant: str) -> None:
        """Plan a variant: what it needs, and its submissions."""
        options = {
            "copied": lambda: ("--members", *self._classifiers(ROUND_0)),
            "cams": lambda: ("--members", *self._classifiers(ROUND_0)),
            "subcategories": lambda: ("--members", *self._classifiers("round1")),
            "stage2": lambda: ("--ensemble", self._yaml(variant, self._stage_2_members())),
            "ensemble": lambda: ("--ensemble", self._yaml(variant, self._all_members())),
            "tuned": lambda: ("--ensemble", self._tuned()),
        }[variant]()
        if variant == "tuned":
            self.plan.infer(self._score(variant, self.settings.main_rule), self.label_maps, *options)
            return
        for rule in ("copied",) if variant == "copied" else self.settings.rules:
            self.plan.infer(self._score(variant, rule), self.label_maps, *options, "--rule", rule)

    def _score(self, variant: str, rule: str) -> Score:
        return Score(variant, self.seed, self.masks, rule)

    def _classifiers(self, variant: str) -> list[Path]:
        return [self.plan.classifier(variant, self.seed, fold) for fold in range(self.settings.folds)]

    def _networks(self) -> list[Path]:
        """Stage 2: networks that learnt from out-of-fold pseudo labels of the round-1 classifiers.

        Their encoders start as a classifier's backbone: minutes would not do from random weights.
        """
        settings, folder = self.settings, self.plan.folder(self.seed)
        pseudo_labels = self.plan.add(
            f"pseudo labels, seed {self.seed}", "pseudo-labels", "pseudo-labels",
            settings.data, "--members", *self._classifiers("round1"), "--masks", self.classical,
            "--labels", settings.pseudo_labels, "--map-size", settings.size, "--device", settings.device,
            out=folder / "pseudo_labels",
        )  # fmt: skip
        return [
            self.plan.train(
                "stage2", self.seed, fold, folder / f"stage2_fold{fold}", "--network", "unet",
                "--pseudo-labels", pseudo_labels, "--epochs", settings.stage2_epochs,
                "--folds", settings.stage2_folds, "--batch", STAGE_2_BATCH,
                "--warm-start", self.plan.classifier("round1", self.seed, fold % settings.folds),
            )
            for fold in range(settings.stage2_networks)
        ]  # fmt: skip

    def _stage_2_members(self) -> Iterator[MemberSettings]:
        """Maps of stage 2, image scores of the round-1 classifiers."""
        for run in self._classifiers("round1"):
            yield _member(run, "pred")
        for run in self._networks():
            yield _member(run, "cam")

    def _all_members(self) -> Iterator[MemberSettings]:
        """Half the weight to classifiers, of both rounds, half to stage 2."""
        classifiers = [run for variant in (ROUND_0, "round1") for run in self._classifiers(variant)]
        networks = self._networks()
        for run in classifiers:
            yield _member(run, "both", 0.5 / len(classifiers))
        for run in networks:
            yield _member(run, "cam", 0.5 / len(networks))

    def _yaml(self, variant: str, members: Iterator[MemberSettings]) -> Path:
        chosen = self.settings
        values = {"members": tuple(members), "rule": chosen.main_rule, "map_size": chosen.size}
        path = self.folder / f"{variant}.yaml"
        self.plan.ensembles[path] = make_settings(EnsembleSettings, values | {"masks": self.label_maps})
        return path

    def _tuned(self) -> Path:
        """The ensemble with weights and steps chosen on training fields that its members have not seen."""
        settings, truth = self.settings, self.settings.data / "truth_train.csv"
        return self.plan.add(
            f"tune, {self.masks} cells, seed {self.seed}", "tune", "tune", settings.data,
            "--ensemble", self._yaml("ensemble", self._all_members()), "--masks", self.label_maps,
            *(("--truth", truth) if settings.tune_by == "cells" else ()), "--seed", self.seed,
            "--device", settings.device, out=self.folder / "tuned.yaml",
        )  # fmt: skip


def _member(run: Path, mode: str, weight: float = 1.0) -> MemberSettings:
    values = {"checkpoint": run, "mode": mode, "weight": weight, "views": "flips"}
    return make_settings(MemberSettings, values)
