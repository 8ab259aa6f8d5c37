"""Commands with options of their own: evaluate, check, picture, runs, weights, kaggle."""

import argparse
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hpa_kit.cli.kaggle import add_kaggle
from hpa_kit.cli.streams import takes_unicode, tell
from hpa_kit.errors import InputError

log = logging.getLogger(__name__)


class Other(NamedTuple):
    """A command that has no settings class; its parser's ``prints`` says whether the text is its result."""

    name: str
    help: str
    add: Callable[[argparse.ArgumentParser], None]  # its options to its parser


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("truth", type=Path, help="truth CSV: class and mask pairs")
    parser.add_argument("submission", type=Path, help="submission CSV")
    parser.add_argument(
        "--verified", choices=("all", "present"), default="all", help="which detections count"
    )
    parser.add_argument("--iou", type=float, default=0.6, help="mask IoU of a match (default: 0.6)")
    parser.add_argument("--json", action="store_true", help="print JSON: mean_ap and ap per class")
    parser.set_defaults(function=_evaluate, prints=True)


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("submission", type=Path, help="submission CSV")
    parser.add_argument("--sample", type=Path, required=True, help="sample_submission.csv")
    parser.set_defaults(function=_check, prints=True)


def _add_picture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("submission", type=Path, help="submission CSV")
    parser.add_argument("data", type=Path, help="competition folder, or a folder of images")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument(
        "--split", choices=("train", "test"), default="test", help="which images (default: test)"
    )
    parser.add_argument("--fields", type=int, default=4, help="how many fields (default: 4)")
    parser.add_argument("--side", type=int, default=384, help="panel side in pixels (default: 384)")
    parser.set_defaults(function=_picture, prints=False)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="folder to look through, or with --yaml a checkpoint or run")
    parser.add_argument("--csv", type=Path, help="CSV to write, with every setting")
    parser.add_argument("--all", action="store_true", help="show every setting, also where the runs agree")
    parser.add_argument(
        "--yaml", action="store_true", help="print one checkpoint's settings for train --config"
    )
    parser.set_defaults(function=_runs, prints=True)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    sub = actions.add_parser("convert", help="published pickles -> safetensors, running nothing of them")
    sub.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="published .pth of a cell network; or of SubCell: the encoder, then its classifiers",
    )
    sub.add_argument("out", type=Path, help=".safetensors file to write; of SubCell a folder")
    group = sub.add_argument_group("of SubCell")
    group.add_argument(
        "--channels",
        choices=("rybg", "rbg", "ybg", "bg"),
        help="the variant (default: by the weights; of three channels by the names of files and folders)",
    )
    group.add_argument("--licence", help="of the weights, as their source states it; it goes into the card")
    group.add_argument(
        "--seen",
        type=Path,
        metavar="CSV",
        help="table whose column ID names the fields that the weights have learnt from (default: all have)",
    )
    group.add_argument(
        "--crop",
        type=int,
        help="side of the crops that become 448 pixels, in pixels of 0.08 µm (default: 640)",
    )
    group.add_argument(
        "--neighbours",
        choices=("zeroed", "kept"),
        help="what becomes of all that is outside the cell (default: zeroed)",
    )
    sub.set_defaults(function=_convert, prints=False)


def _evaluate(arguments: argparse.Namespace) -> int:
    from hpa_kit.submission import evaluate

    result = evaluate(arguments.truth, arguments.submission, iou=arguments.iou, verified=arguments.verified)
    if arguments.json:
        print(
            json.dumps({"mean_ap": result.mean_ap, "ap": {str(index): ap for index, ap in result.ap.items()}})
        )
    else:
        print(result)
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
    from hpa_kit.report.pictures import draw_submission

    out = draw_submission(
        arguments.submission, arguments.data, arguments.out, arguments.split, arguments.fields, arguments.side
    )
    tell("picture", out)
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from hpa_kit.report.experiment_log import list_runs, runs_text, settings_yaml, write_runs

    if arguments.yaml:
        print(settings_yaml(arguments.path, only_ascii=not takes_unicode(sys.stdout)), end="")
        return 0
    found = list_runs(arguments.path)
    for line in found.left_out:
        log.warning(f"runs: left out: {line}")
    if arguments.csv is not None:  # first: whoever reads the text may have enough of it
        write_runs(found.table, arguments.csv)
    print(runs_text(found.table, arguments.all) if len(found.table) else f"no run below {arguments.path}")
    if arguments.csv is not None:
        tell("table", arguments.csv)
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    first, *classifiers = arguments.files
    names = ("channels", "licence", "seen", "crop", "neighbours")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if classifiers:
        from hpa_kit.training.subcell_weights import convert_subcell

        tell("member", convert_subcell(first, classifiers, arguments.out, **given))
        return 0
    if given:
        raise InputError(
            f"weights: {', '.join(f'--{name}' for name in given)} is of SubCell, which takes an encoder, its "
            "classifiers and a folder"
        )
    if not arguments.out.suffix:
        raise InputError(
            f"weights: {arguments.out} should be named .safetensors; of SubCell give the encoder, then its "
            "classifiers, then the folder"
        )
    from hpa_kit.cells.weights import convert_weights

    tell("weights", convert_weights(first, arguments.out))
    return 0


OTHERS = (
    Other("evaluate", "score a submission against the truth of every cell", _add_evaluate),
    Other("check", "find every way in which Kaggle would reject a submission", _add_check),
    Other("picture", "draw a submission's cells and classes over its fields", _add_picture),
    Other("runs", "all runs and checkpoints below a folder, settings and scores", _add_runs),
    Other("weights", "published weights as safetensors: cell networks, SubCell", _add_weights),
    Other("kaggle", "datasets, notebooks and a rehearsal for Kaggle", add_kaggle),
)
