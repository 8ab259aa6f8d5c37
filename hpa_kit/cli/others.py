"""Commands with a parser of their own: evaluate, check, picture, runs, weights."""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from hpa_kit.cli.streams import takes_unicode, tell

log = logging.getLogger(__name__)


def add_others(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add these commands to the parser; ``prints`` says of which the text is the result."""
    sub = commands.add_parser("evaluate", help="score a submission against the truth of every cell")
    sub.add_argument("truth", type=Path, help="truth CSV: class and mask pairs")
    sub.add_argument("submission", type=Path, help="submission CSV")
    sub.add_argument("--verified", choices=("all", "present"), default="all", help="which detections count")
    sub.add_argument("--iou", type=float, default=0.6, help="mask IoU of a match (default: 0.6)")
    sub.add_argument("--json", action="store_true", help="print JSON: mean_ap and ap per class")
    sub.set_defaults(function=_evaluate, prints=True)

    sub = commands.add_parser("check", help="find every way in which Kaggle would reject a submission")
    sub.add_argument("submission", type=Path, help="submission CSV")
    sub.add_argument("--sample", type=Path, required=True, help="sample_submission.csv")
    sub.set_defaults(function=_check, prints=True)

    sub = commands.add_parser("picture", help="draw a submission's cells and classes over its fields")
    sub.add_argument("submission", type=Path, help="submission CSV")
    sub.add_argument("data", type=Path, help="competition folder, or a folder of images")
    sub.add_argument("--out", type=Path, required=True, help="PNG to write")
    sub.add_argument(
        "--split", choices=("train", "test"), default="test", help="which images (default: test)"
    )
    sub.add_argument("--fields", type=int, default=4, help="how many fields (default: 4)")
    sub.add_argument("--side", type=int, default=384, help="panel side in pixels (default: 384)")
    sub.set_defaults(function=_picture, prints=False)

    sub = commands.add_parser("runs", help="all runs and checkpoints below a folder, settings and scores")
    sub.add_argument("path", type=Path, help="folder to look through, or with --yaml a checkpoint or run")
    sub.add_argument("--csv", type=Path, help="CSV to write, with every setting")
    sub.add_argument("--all", action="store_true", help="show every setting, also where the runs agree")
    sub.add_argument("--yaml", action="store_true", help="print one checkpoint's settings for train --config")
    sub.set_defaults(function=_runs, prints=True)

    weights = commands.add_parser("weights", help="published cell networks").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    sub = weights.add_parser("convert", help="published pickle -> safetensors, running nothing of it")
    sub.add_argument("file", type=Path, help="published .pth file, or a state dict")
    sub.add_argument("out", type=Path, help=".safetensors file to write")
    sub.set_defaults(function=_convert, prints=False)


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
    tell("picture", out)
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from hpa_kit.report.experiment_log import list_runs, runs_text, settings_yaml, write_runs

    if arguments.yaml:
        print(settings_yaml(arguments.path, only_ascii=not takes_unicode(sys.stdout)), end="")
        return 0
    book = list_runs(arguments.path)
    for line in book.left_out:
        log.warning(f"runs: left out: {line}")
    if arguments.csv is not None:  # first: whoever reads the text may have enough of it
        write_runs(book.table, arguments.csv)
    print(runs_text(book.table, arguments.all) if len(book.table) else f"no run below {arguments.path}")
    if arguments.csv is not None:
        tell("table", arguments.csv)
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from hpa_kit.cells.weights import convert_weights

    tell("weights", convert_weights(arguments.file, arguments.out))
    return 0
