"""Commands around Kaggle: bundle, metadata."""

import argparse
from pathlib import Path
from typing import Any


def add_kaggle(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add these commands to the parser."""
    sub = commands.add_parser("bundle", help="zip hpa_kit and its wheels into a Kaggle dataset")
    sub.add_argument("--out", type=Path, default=Path("dist"), help="folder to write (default: dist)")
    sub.set_defaults(function=_bundle)

    sub = commands.add_parser(
        "metadata", help="check a kernel-metadata.json more strictly than the client does"
    )
    sub.add_argument("file", type=Path, nargs="?", default=Path("kernel-metadata.json"))
    sub.set_defaults(function=_metadata)


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
