"""``hpa-kit kaggle``: what it takes to run and submit on Kaggle."""

import argparse
from pathlib import Path
from typing import Any


def add_kaggle(parser: argparse.ArgumentParser) -> None:
    """Add its commands to the parser of ``kaggle``; ``prints`` says of which the text is the result."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    sub = _add(actions, "data", "fetch the competition's tables, and images if wanted", _data)
    sub.add_argument("dir", nargs="?", type=Path, default=Path("data"), help="folder (default: data)")
    sub.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="WHICH",
        help="train, test, or how many training fields, the first that Kaggle lists (default: none)",
    )
    _add_dry_run(sub)

    sub = _add(
        actions, "train", "train a recipe's members on Kaggle, in as many sessions as it takes", _train
    )
    sub.add_argument("--recipe", required=True, metavar="NAME", help="what the training notebook runs")
    _add_folders(sub)
    sub.add_argument("--anew", action="store_true", help="what an earlier call did does not count")
    _add_dry_run(sub)

    sub = _add(
        actions, "submit", "run the inference notebook on Kaggle, submit it, wait for the score", _submit
    )
    sub.add_argument(
        "-m", "--message", default="hpa-kit", metavar="TEXT", help="what to say of it (default: hpa-kit)"
    )
    sub.add_argument("--anew", action="store_true", help="what an earlier call did does not count")
    _add_dry_run(sub)

    sub = _add(actions, "bundle", "zip hpa_kit and its wheels into a Kaggle dataset", _bundle)
    sub.add_argument(
        "out", nargs="?", type=Path, default=Path("dist"), help="folder to write (default: dist)"
    )
    sub.add_argument("--owner", help="Kaggle user (default: the one in kernel-metadata.json)")
    sub.add_argument(
        "--hpacellseg",
        type=Path,
        metavar="PATH",
        help="wheel or checkout of HPA-Cell-Segmentation, to put its wheel in too; later builds keep it",
    )

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
    sub.add_argument(
        "--private",
        action="store_true",
        help="the dataset stays yours alone: weights that may not be passed on may be in it",
    )
    sub.add_argument(
        "--weights-licence",
        metavar="TEXT",
        help="licence of the weights that a member started from, where none is known",
    )

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
    _add_folders(sub)

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


def _add_folders(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dist", type=Path, default=Path("dist"), help="the kit's dataset (default: dist)")
    sub.add_argument(
        "--members", type=Path, default=Path("dist-members"), help="the members' (default: dist-members)"
    )


def _add_dry_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dry-run", action="store_true", help="print the Kaggle client's commands, run none")


def _add(actions: Any, name: str, text: str, function: Any, prints: bool = False) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    sub.set_defaults(function=function, prints=prints)
    return sub


def _data(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.publish.data import DataPlan, data_commands, fetch_data

    plan = DataPlan(arguments.dir, tuple(arguments.images))
    plan.wanted()  # said before a client is looked for
    return _drive(arguments, lambda: data_commands(plan), lambda client: fetch_data(plan, client))


def _train(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.publish.dataset import find_checkout
    from hpa_kit.kaggle.publish.training import TrainingPlan, train, training_commands

    source = find_checkout()
    plan = TrainingPlan(
        arguments.recipe, arguments.dist.absolute(), arguments.members.absolute(), arguments.anew
    )
    return _drive(
        arguments, lambda: training_commands(source, plan), lambda client: train(source, plan, client)
    )


def _submit(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.publish.dataset import find_checkout
    from hpa_kit.kaggle.publish.submit import SubmitPlan, submit, submit_commands

    source, plan = find_checkout(), SubmitPlan(arguments.message, arguments.anew)
    return _drive(
        arguments, lambda: submit_commands(source, plan), lambda client: submit(source, plan, client)
    )


def _drive(arguments: argparse.Namespace, commands: Any, work: Any) -> int:
    """Do what drives the Kaggle client, or print its commands; a fault is told with what puts it right."""
    from hpa_kit.errors import InputError
    from hpa_kit.kaggle.publish.dataset import Fault, find_checkout
    from hpa_kit.kaggle.publish.online_client import make_client

    try:
        if arguments.dry_run:
            for command in commands():
                print(command)
        else:
            work(make_client(find_checkout()))
    except Fault as fault:
        raise InputError(f"{fault} -> {fault.fix}") from None
    return 0


def _bundle(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.publish.bundle import build_bundle
    from hpa_kit.kaggle.publish.dataset import find_checkout

    build_bundle(arguments.out, arguments.owner, find_checkout(), arguments.hpacellseg)
    return 0


def _weights(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.publish.dataset import find_checkout, find_owner
    from hpa_kit.kaggle.publish.weights import weights_dataset

    owner = arguments.owner or find_owner(find_checkout())
    weights_dataset(
        arguments.sources,
        arguments.out,
        owner,
        arguments.licence,
        private=arguments.private,
        weights_licence=arguments.weights_licence,
    )
    return 0


def _metadata(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.publish.dataset import find_checkout
    from hpa_kit.kaggle.publish.metadata import NOTEBOOKS, check_metadata, find_placeholders
    from hpa_kit.kaggle.publish.notebooks import write_metadata

    if arguments.file is not None:
        paths = [arguments.file]
        lines = [str(fault) for fault in check_metadata(arguments.file)]
    else:
        chosen = (arguments.owner, arguments.add, arguments.to, arguments.remove)
        written = write_metadata(find_checkout(), *chosen)
        for path, changed in written.items():
            print(f"{path}: {'written' if changed else 'as it should be'}")
        paths = list(written)
        checked = zip(paths, NOTEBOOKS.values(), strict=True)
        faults = [fault for path, notebook in checked for fault in check_metadata(path, notebook)]
        lines = [f"{fault} -> {fault.fix}" for fault in faults]
    for line in lines or [line for path in paths for line in find_placeholders(path)]:
        print(line)
    return 1 if lines else 0


def _status(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.publish.dataset import Fault, find_checkout
    from hpa_kit.kaggle.publish.status import off_path, status, unseen

    source = find_checkout()
    lines = status(source, arguments.dist, arguments.members)
    for line in lines:
        print(f"to do {line} -> {line.fix}" if isinstance(line, Fault) else f"ok    {line}")
    for hint in [*off_path(source), *(f"not seen from here: {line}" for line in unseen(source))]:
        print(f"      {hint}")
    number = sum(isinstance(line, Fault) for line in lines)
    things = f"{number} {'thing' if number == 1 else 'things'} to do"
    print(things if number else "ready: hpa-kit kaggle submit")
    return 1 if number else 0


def _rehearse(arguments: argparse.Namespace) -> int:
    from hpa_kit.kaggle.publish.dataset import find_checkout
    from hpa_kit.kaggle.publish.rehearsal import Own, Plan, rehearse

    own = Own(arguments.members_dataset, arguments.cells_dataset, arguments.data, arguments.hpacellseg)
    plan = Plan(arguments.out, arguments.environment, arguments.train, arguments.test, arguments.size, own)
    rehearse(find_checkout(), plan)
    return 0
