"""``hpa-kit <command>``: parse, call one function, print.

Every setting of a command is an option of the same name; the option's text goes to the settings object, which
converts and checks it, so that the command line, YAML and notebooks accept and refuse the same values.
"""

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit import __version__
from hpa_kit.config import (
    DemoSettings,
    InferSettings,
    SegmentSettings,
    Settings,
    SimulateSettings,
    TrainSettings,
    make_settings,
    read_yaml,
)
from hpa_kit.errors import InputError


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


def _add_settings(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.add_argument("--config", type=Path, metavar="YAML", help="settings file; options override it")
    for name, field in command.settings.model_fields.items():
        default = "" if field.is_required() else f" (default: {field.get_default()})"
        text = f"{field.description or ''}{default}".replace("%", "%%")
        options: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
        if field.annotation is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif name == "members":
            options |= {"nargs": "+", "metavar": "RUN"}
        else:
            options["metavar"] = name.upper()
        if name in command.positional:
            parser.add_argument(name, nargs="?", **options)
        else:
            parser.add_argument(f"--{name.replace('_', '-')}", **options)


def _evaluate(arguments: argparse.Namespace) -> int:
    from hpa_kit.report.text import ap_table
    from hpa_kit.submission import evaluate

    result = evaluate(arguments.truth, arguments.submission, iou=arguments.iou, verified=arguments.verified)
    if arguments.json:
        print(
            json.dumps({"mean_ap": result.mean_ap, "ap": {str(index): ap for index, ap in result.ap.items()}})
        )
    else:
        print(ap_table(result))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from hpa_kit.submission import check_submission

    faults = check_submission(arguments.submission, arguments.sample)
    for fault in faults:
        print(fault)
    if not faults:
        print(f"{arguments.submission}: Kaggle should accept it")
    return 1 if faults else 0


def _picture(arguments: argparse.Namespace) -> int:
    from hpa_kit.report.picture import draw_submission

    out = draw_submission(
        arguments.submission, arguments.data, arguments.out, arguments.split, arguments.fields, arguments.side
    )
    print(f"picture: {out}")
    return 0


def _bundle(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.bundle import build_bundle

    build_bundle(arguments.out)
    return 0


def _metadata(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.metadata import check_metadata, find_placeholders

    faults = check_metadata(arguments.file)
    for line in faults or find_placeholders(arguments.file):
        print(line)
    return 1 if faults else 0


def _convert(arguments: argparse.Namespace) -> int:
    from hpa_kit.cells.weights import convert_weights

    print(f"weights: {convert_weights(arguments.file, arguments.out)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hpa-kit", description="Where in each single cell a protein sits.")
    parser.add_argument("--version", action="version", version=f"hpa-kit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        _add_settings(sub, command)
        sub.set_defaults(settings_command=command)

    sub = commands.add_parser("evaluate", help="score a submission against the truth of every cell")
    sub.add_argument("truth", type=Path, help="truth CSV: class and mask pairs")
    sub.add_argument("submission", type=Path, help="submission CSV")
    sub.add_argument("--verified", choices=("all", "present"), default="all", help="which detections count")
    sub.add_argument("--iou", type=float, default=0.6, help="mask IoU of a match (default: 0.6)")
    sub.add_argument("--json", action="store_true", help="print JSON: mean_ap and ap per class")
    sub.set_defaults(function=_evaluate)

    sub = commands.add_parser("check", help="find every way in which Kaggle would reject a submission")
    sub.add_argument("submission", type=Path, help="submission CSV")
    sub.add_argument("--sample", type=Path, required=True, help="sample_submission.csv")
    sub.set_defaults(function=_check)

    sub = commands.add_parser("picture", help="draw a submission's cells and classes over its fields")
    sub.add_argument("submission", type=Path, help="submission CSV")
    sub.add_argument("data", type=Path, help="competition folder, or a folder of images")
    sub.add_argument("--out", type=Path, required=True, help="PNG to write")
    sub.add_argument(
        "--split", choices=("train", "test"), default="test", help="which images (default: test)"
    )
    sub.add_argument("--fields", type=int, default=4, help="how many fields (default: 4)")
    sub.add_argument("--side", type=int, default=384, help="panel side in pixels (default: 384)")
    sub.set_defaults(function=_picture)

    weights = commands.add_parser("weights", help="published cell networks").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    sub = weights.add_parser("convert", help="published pickle -> safetensors, running nothing of it")
    sub.add_argument("file", type=Path, help="published .pth file, or a state dict")
    sub.add_argument("out", type=Path, help=".safetensors file to write")
    sub.set_defaults(function=_convert)

    sub = commands.add_parser("bundle", help="zip hpa_kit and its wheels into a Kaggle dataset")
    sub.add_argument("--out", type=Path, default=Path("dist"), help="folder to write (default: dist)")
    sub.set_defaults(function=_bundle)

    sub = commands.add_parser(
        "metadata", help="check a kernel-metadata.json more strictly than the client does"
    )
    sub.add_argument("file", type=Path, nargs="?", default=Path("kernel-metadata.json"))
    sub.set_defaults(function=_metadata)
    return parser


def _settings_of(command: Command, arguments: argparse.Namespace) -> Settings:
    given = {name: value for name, value in vars(arguments).items() if name in command.settings.model_fields}
    if arguments.config is None:
        return make_settings(command.settings, given, source=f"hpa-kit {command.name}")
    return make_settings(command.settings, read_yaml(arguments.config), given, source=str(arguments.config))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it went well, 1 when ``check`` or ``metadata`` found faults, 2 for input that cannot be used.
    """
    # One plain line per warning: where in the kit it was raised tells a user nothing.
    warnings.showwarning = lambda message, *_: print(f"hpa-kit: {message}", file=sys.stderr)
    # Read when torch is first imported: its threads then sleep while they wait for each other. Spinning makes
    # training several times slower on cores that anything else uses too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    arguments = _parser().parse_args(argv)
    try:
        if hasattr(arguments, "function"):
            return int(arguments.function(arguments))
        command: Command = arguments.settings_command
        command.run(_settings_of(command, arguments))
        return 0
    except InputError as error:
        print(f"hpa-kit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hpa-kit: interrupted; the same command goes on where it was", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
