"""``hpa-kit kaggle``: what it takes to run and submit on Kaggle."""

import argparse
from pathlib import Path
from typing import Any

from hpa_kit.kaggle import bundle


def add_kaggle(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add these commands to the parser; ``prints`` says of which the text is the result."""
    actions = commands.add_parser(
        "kaggle", help="datasets, notebooks and a rehearsal for Kaggle"
    ).add_subparsers(dest="action", required=True, metavar="ACTION")
    sub = _add(actions, "bundle", "zip hpa_kit and its wheels into a Kaggle dataset", _bundle)
    bundle.add_arguments(sub)

    sub = _add(actions, "weights", "members, or published cell networks, as a Kaggle dataset", _weights)
    sub.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run folders or checkpoints; or an ensemble YAML; or a folder with both published networks",
    )
    sub.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    sub.add_argument("--owner", help="Kaggle user (default: the one in kernel-metadata.json)")
    sub.add_argument("--licence", help="by Kaggle's name (default: CC-BY-SA-4.0, published networks: other)")

    sub = _add(
        actions, "metadata", "write both notebooks' kernel-metadata.json and check them", _metadata, True
    )
    sub.add_argument("file", type=Path, nargs="?", help="check this file, or its folder, and write nothing")
    sub.add_argument("--owner", help="your Kaggle name, as in your address there")
    sub.add_argument(
        "--add", nargs="+", default=[], metavar="SOURCE", help="attach these: owner/slug, code/owner/slug, …"
    )
    sub.add_argument("--remove", nargs="+", default=[], metavar="SOURCE", help="attach these no more")
    sub.add_argument(
        "--to", choices=("infer", "train"), default="infer", help="notebook of the sources (default: infer)"
    )

    sub = _add(actions, "status", "what stands between this folder and a submission", _status, True)
    sub.add_argument("--dist", type=Path, default=Path("dist"), help="the kit's dataset (default: dist)")
    sub.add_argument(
        "--members", type=Path, default=Path("dist-members"), help="the members' (default: dist-members)"
    )

    sub = _add(actions, "rehearse", "run both notebooks here as Kaggle runs them", _rehearse)
    sub.add_argument("--out", type=Path, default=Path("rehearsal"), help="folder (default: rehearsal)")
    sub.add_argument(
        "--environment",
        type=Path,
        default=Path(".venv-kaggle"),
        help="environment with the image's packages, made where it is missing (default: .venv-kaggle)",
    )
    sub.add_argument("--train", type=int, default=16, help="training fields, at most (default: 16)")
    sub.add_argument("--test", type=int, default=4, help="public test fields, at most (default: 4)")
    sub.add_argument("--size", type=int, default=96, help="side of simulated fields in pixels (default: 96)")
    sub.add_argument(
        "--members-dataset",
        type=Path,
        metavar="DIR",
        help="your members as `hpa-kit kaggle weights` packed them: nothing is trained, and the inference "
        "notebook runs with the parameters that it has (default: members are trained)",
    )
    sub.add_argument(
        "--cells-dataset",
        type=Path,
        metavar="DIR",
        help="the published cell networks, packed likewise (default: cells are found without)",
    )
    sub.add_argument(
        "--data", type=Path, metavar="DIR", help="your competition folder (default: one is simulated)"
    )
    sub.add_argument(
        "--hpacellseg",
        type=Path,
        metavar="PATH",
        help="wheel or checkout of HPA-Cell-Segmentation, whose wheel is to be in the kit's dataset",
    )


def _add(actions: Any, name: str, text: str, function: Any, prints: bool = False) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    sub.set_defaults(function=function, prints=prints)
    return sub


def _bundle(arguments: argparse.Namespace) -> int:
    bundle.build_bundle(arguments.out, arguments.owner, hpacellseg=arguments.hpacellseg)
    return 0


def _weights(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.checkout import find_checkout
    from hpa_kit.kaggle.dataset import find_owner
    from hpa_kit.kaggle.weights import weights_dataset

    owner = arguments.owner or find_owner(find_checkout())
    weights_dataset(arguments.sources, arguments.out, owner, arguments.licence)
    return 0


def _metadata(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.checkout import find_checkout
    from hpa_kit.kaggle.mends import metadata_mend
    from hpa_kit.kaggle.metadata import check_metadata, find_placeholders
    from hpa_kit.kaggle.notebooks import NOTEBOOKS, write_metadata

    if arguments.file is not None:
        paths = [arguments.file]
        faults = check_metadata(arguments.file)
    else:
        chosen = (arguments.owner, arguments.add, arguments.to, arguments.remove)
        written = write_metadata(find_checkout(), *chosen)
        for path, changed in written.items():
            print(f"{path}: {'written' if changed else 'as it should be'}")
        paths = list(written)
        faults = [
            f"{fault} -> {metadata_mend(fault, notebook, path)}"
            for notebook, path in zip(NOTEBOOKS.values(), paths, strict=True)
            for fault in check_metadata(path)
        ]
    for line in faults or [line for path in paths for line in find_placeholders(path)]:
        print(line)
    return 1 if faults else 0


def _status(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.checkout import find_checkout
    from hpa_kit.kaggle.notebooks import NOTEBOOKS
    from hpa_kit.kaggle.status import off_path, status, unseen

    source = find_checkout()
    steps = status(source, arguments.dist, arguments.members)
    print(*steps, sep="\n")
    for line in [*off_path(source), *(f"not seen from here: {line}" for line in unseen(source))]:
        print(f"      {line}")
    open_ones = sum(step.mend is not None for step in steps)
    print(
        f"{open_ones} {'thing' if open_ones == 1 else 'things'} to do"
        if open_ones
        else f"ready: {NOTEBOOKS['infer'].push()}"
    )
    return 1 if open_ones else 0


def _rehearse(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.checkout import find_checkout
    from hpa_kit.kaggle.rehearsal import Own, Plan, rehearse

    own = Own(arguments.members_dataset, arguments.cells_dataset, arguments.data, arguments.hpacellseg)
    plan = Plan(arguments.out, arguments.environment, arguments.train, arguments.test, arguments.size, own)
    rehearse(find_checkout(), plan)
    return 0
