"""The commands whose options are the fields of one settings class: their names and what they call."""

from collections.abc import Callable
from typing import Any, NamedTuple

from hpa_kit.config import (
    DemoSettings,
    InferSettings,
    SegmentSettings,
    Settings,
    SimulateSettings,
    TrainSettings,
)


def _simulate(settings: SimulateSettings) -> None:
    from hpa_kit.data.simulate import simulate

    print(f"simulated competition: {simulate(settings)}")


def _train(settings: TrainSettings) -> None:
    from hpa_kit.training import train

    print(f"run: {train(settings)}")


def _segment(settings: SegmentSettings) -> None:
    from hpa_kit.cells.segment import segment

    print(f"label maps: {segment(settings)}")


def _infer(settings: InferSettings) -> None:
    from hpa_kit.inference import infer

    print(f"submission: {infer(settings)}")


def _demo(settings: DemoSettings) -> None:
    from hpa_kit.cli.main import main
    from hpa_kit.demo import demo

    demo(settings, run=main)


class Command(NamedTuple):
    """A command whose options are the fields of one settings class."""

    name: str
    help: str
    settings: type[Settings]
    positional: tuple[str, ...]
    run: Callable[[Any], None]


COMMANDS = (
    Command(
        "simulate",
        "write a synthetic competition with the truth of every cell",
        SimulateSettings,
        ("out",),
        _simulate,
    ),
    Command("train", "train a CAM classifier on image labels", TrainSettings, ("data",), _train),
    Command(
        "segment",
        "find the cells of all fields and keep their label maps",
        SegmentSettings,
        ("data",),
        _segment,
    ),
    Command("infer", "class maps x label maps -> submission.csv", InferSettings, ("data",), _infer),
    Command("demo", "the whole job on simulated fields", DemoSettings, (), _demo),
)
