"""The commands whose options are the fields of one settings class: their names and what they call."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from hpa_kit import config
from hpa_kit.cli.streams import tell
from hpa_kit.config.commands import KINDS

if TYPE_CHECKING:
    from hpa_kit.config import (
        AblationSettings,
        BudgetSettings,
        DemoSettings,
        FeaturesSettings,
        InferSettings,
        PredictSettings,
        PseudoLabelSettings,
        RecipeSettings,
        ReportSettings,
        SegmentSettings,
        Settings,
        SimulateSettings,
        StoreSettings,
        SubcategoriesSettings,
        TrainSettings,
        TuneSettings,
    )


def _simulate(settings: "SimulateSettings") -> None:
    from hpa_kit.data.simulate import simulate

    print(f"simulated competition: {simulate(settings)}")


def _train(settings: "TrainSettings") -> None:
    from hpa_kit.training import Processes, train

    run = train(settings)
    if Processes.here().first:
        print(f"run: {run}")
        if settings.network == "cells":
            print(f"next: hpa-kit segment {settings.data} --weights {run} --out FOLDER")


def _features(settings: "FeaturesSettings") -> None:
    from hpa_kit.training.features import make_features

    tell("features", make_features(settings))


def _subcategories(settings: "SubcategoriesSettings") -> None:
    from hpa_kit.training.subcategories import make_subcategories

    tell("sub-categories", make_subcategories(settings))


def _store(settings: "StoreSettings") -> None:
    from hpa_kit.data import store_fields

    print(f"store: {store_fields(settings)}")


def _segment(settings: "SegmentSettings") -> None:
    from hpa_kit.cells.segment import segment

    print(f"label maps: {segment(settings)}")


def _infer(settings: "InferSettings") -> None:
    from hpa_kit.inference import infer

    tell("submission", infer(settings))


def _predict(settings: "PredictSettings") -> None:
    from hpa_kit.inference import predict

    tell("cells", predict(settings))


def _pseudo_labels(settings: "PseudoLabelSettings") -> None:
    from hpa_kit.pseudo_labels import make_pseudo_labels

    print(f"pseudo labels: {make_pseudo_labels(settings)}")


def _tune(settings: "TuneSettings") -> None:
    from hpa_kit.tuning import tune

    tune(settings)
    tell("ensemble", settings.out)


def _report(settings: "ReportSettings") -> None:
    from hpa_kit.report import write_report

    path, size, fields, total = write_report(settings)
    tell("report", path, f", {size / 1e6:.1f} MB, {fields} of {total} fields shown")


def _demo(settings: "DemoSettings") -> None:
    from hpa_kit.cli.main import run
    from hpa_kit.demo import demo

    demo(settings, run=run)


def _ablation(settings: "AblationSettings") -> None:
    from hpa_kit.ablation import ablation
    from hpa_kit.cli.main import run

    print(f"table: {ablation(settings, run=run)}")


def _recipe(settings: "RecipeSettings") -> None:
    from hpa_kit.recipe import carry_out

    carry_out(settings)


def _budget(settings: "BudgetSettings") -> None:
    from hpa_kit.budget import budget

    print(budget(settings))
    tell("page", settings.out)


class Command(NamedTuple):
    """A command whose options are the settings of one class."""

    name: str
    help: str
    run: Callable[[Any], None]

    @property
    def settings(self) -> "type[Settings]":
        """The class of its settings, which is imported when it is asked for."""
        found: type[Settings] = getattr(config, KINDS[self.name][0])
        return found

    @property
    def positional(self) -> tuple[str, ...]:
        """Settings that are given by their place."""
        return KINDS[self.name][1]


COMMANDS = (
    Command("simulate", "write a synthetic competition with the truth of every cell", _simulate),
    Command("train", "train a network: CAM classifier, ArcFace features, or stage 2", _train),
    Command("features", "one vector per field from a trained network, to be clustered", _features),
    Command(
        "subcategories", "cluster features within each class, for the next round of training", _subcategories
    ),
    Command("store", "resize all fields once, for many trainings", _store),
    Command("segment", "find the cells of all fields and keep their label maps", _segment),
    Command("infer", "class maps x label maps -> submission.csv", _infer),
    Command("predict", "a table with a row per cell of any folder of fields", _predict),
    Command("pseudo-labels", "scores of the cells of training fields, for stage 2", _pseudo_labels),
    Command("tune", "choose an ensemble's weights, rule and steps out of fold", _tune),
    Command("report", "one HTML file to look at: fields, cells, scores, errors, curves, training", _report),
    Command("ablation", "what each method adds, on fields of known cells", _ablation),
    Command("recipe", "a whole job, stage by stage, in as many sessions as it takes", _recipe),
    Command("budget", "hours and bytes of the whole job, measured here on a few fields", _budget),
    Command("demo", "the whole job on simulated fields", _demo),
)
