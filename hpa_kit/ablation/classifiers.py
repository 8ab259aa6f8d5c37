"""The commands of an ablation, in order: how classifiers are trained, and what is inferred from them."""

from pathlib import Path
from typing import NamedTuple

from hpa_kit.config import AblationSettings
from hpa_kit.config.ablation import CLASSIFIER_VARIANTS
from hpa_kit.plan import Plan

ROUND_0 = "round0"


class Score(NamedTuple):
    """What a submission is a score of."""

    variant: str
    seed: int
    masks: str  # true, classical
    rule: str


class AblationPlan(Plan):
    """The steps that variants need.

    Args:
        settings: of the ablation.

    Attributes:
        scores: what submissions are scores of, by their path.
        true_masks: folder of the label maps of the true cells.
    """

    def __init__(self, settings: AblationSettings) -> None:
        super().__init__()
        self.settings = settings
        self.scores: dict[Path, Score] = {}
        self.true_masks = settings.masks or settings.data / "masks"

    def folder(self, seed: int) -> Path:
        """Name the folder in which all of a seed lies."""
        return self.settings.out / f"seed{seed}"

    def classifier(self, variant: str, seed: int, fold: int = 0) -> Path:
        """Plan a classifier of a classifier variant, trained without one fold; return its run folder."""
        extra: list[object] = []
        if variant in ("longer", "round1", "both"):
            extra += ["--warm-start", self.classifier(ROUND_0, seed, fold)]
        if variant in ("round1", "round1_fresh", "both"):
            extra += ["--round", 1, "--subcategories", self.subcategories(seed, fold)]
        if variant in ("puzzle", "both"):
            extra += ["--puzzle", "cam"]
        return self.train(variant, seed, fold, self.folder(seed) / f"fold{fold}" / variant, *extra)

    def train(self, name: str, seed: int, fold: int, out: Path, *extra: object) -> Path:
        """Plan any network, trained without one fold; return its run folder."""
        chosen = self.settings
        options = (
            "--backbone", chosen.backbone, "--stride", chosen.stride, "--size", chosen.size,
            "--stride-by", chosen.stride_by, "--epochs", chosen.epochs, "--folds", chosen.folds,
            "--fold", fold, "--seed", seed, "--device", chosen.device,
        )  # fmt: skip
        # An option that stands twice counts as it stands last, so extra ones win.
        return self.add(
            f"train {name}, seed {seed}, fold {fold}", f"train {name}",
            "train", chosen.data, *options, *extra, out=out,
        )  # fmt: skip

    def subcategories(self, seed: int, fold: int = 0) -> Path:
        """Plan the table of sub-categories that features of the round-0 classifier give."""
        data, folder = self.settings.data, self.folder(seed) / f"fold{fold}"
        where = f"seed {seed}, fold {fold}"
        features = self.add(
            f"features, {where}", "features", "features", data,
            "--member", self.classifier(ROUND_0, seed, fold), "--device", self.settings.device,
            out=folder / "features.npz",
        )  # fmt: skip
        return self.add(
            f"sub-categories, {where}", "subcategories", "subcategories", features,
            "--labels", data / "train.csv", "--k", self.settings.k, "--seed", seed,
            out=folder / "subcategories.csv",
        )  # fmt: skip

    def classical_masks(self) -> Path:
        """The label maps that the classical segmenter finds, of training fields too."""
        out = self.settings.out / "label_maps"
        for split in ("train", "test"):
            self.add(
                f"segment {split}", "segment", "segment", self.settings.data, "--split", split,
                "--segmenter", "classical", out=out,
            )  # fmt: skip
        return out

    def infer(self, score: Score, label_maps: Path, *options: object) -> Path:
        """Plan a submission for the test fields, to be scored.

        Args:
            score: what it is a score of.
            label_maps: folder.
            options: that name the members, and the rule where their YAML does not.
        """
        name = f"{score.variant}_{score.masks}_{score.rule}"
        out = self.folder(score.seed) / "submissions" / f"{name}.csv"
        self.scores[out] = score
        return self.add(
            f"infer {score.variant} by {score.rule}, {score.masks} cells, seed {score.seed}",
            f"infer {score.variant}", "infer", self.settings.data, *options, "--masks", label_maps,
            "--map-size", self.settings.size, "--device", self.settings.device, out=out,
        )  # fmt: skip


def plan_classifiers(plan: AblationPlan) -> None:
    """Plan every classifier: trained, and inferred with the true cells, so that only classes can be wrong."""
    settings = plan.settings
    for seed in settings.seeds:
        for variant in CLASSIFIER_VARIANTS:
            if variant in settings.variants:
                member = plan.classifier(variant, seed)
                for rule in dict.fromkeys(("copied", *settings.rules)):
                    score = Score(variant, seed, "true", rule)
                    plan.infer(score, plan.true_masks, "--members", member, "--rule", rule)
