"""Everything that stands between a checkout and a submission, one line each, with what mends it."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.kaggle.manifest import MANIFEST, describe_build, parse_manifest
from hpa_kit.kaggle.mounts import COMPETITION, ENSEMBLE, MEMBER
from hpa_kit.kaggle.publish.bundle import ZIP, bundle_files
from hpa_kit.kaggle.publish.client import OWN, dry_run, find_client
from hpa_kit.kaggle.publish.dataset import METADATA as DATASET_METADATA
from hpa_kit.kaggle.publish.dataset import Dataset, check_dataset, find_owner
from hpa_kit.kaggle.publish.mends import (
    BUILD,
    OWNER,
    STATUS,
    SYNC,
    WRITE,
    bundle_mend,
    dataset_mend,
    metadata_mend,
    owner_mend,
    pair_mend,
)
from hpa_kit.kaggle.publish.metadata import METADATA, check_metadata
from hpa_kit.kaggle.publish.names import OWNER_PLACEHOLDER
from hpa_kit.kaggle.publish.notebooks import NOTEBOOKS, metadata_differences
from hpa_kit.kaggle.publish.own_wheel import PROJECT
from hpa_kit.kaggle.publish.wheels import BROKEN_ZIP


class Step(NamedTuple):
    """One thing that is, or is not yet, as a submission needs it."""

    what: str
    mend: str | None = None  # the command that mends it; None where all is well

    def __str__(self) -> str:
        return f"ok    {self.what}" if self.mend is None else f"to do {self.what} -> {self.mend}"


def status(source: Path, dist: Path, members: Path, client: bool = True) -> list[Step]:
    """Look at everything that can be seen without an account.

    Args:
        source: the checkout.
        dist: folder of the kit's dataset.
        members: folder of the members' dataset.
        client: put all through the installed Kaggle client, too.
    """
    steps = [
        _owner(source),
        *_notebooks(source),
        *_bundle(source, dist),
        *_members(source, members),
    ]
    return steps + (list(_client(source, [dist, members])) if client else [])


def off_path(source: Path) -> list[str]:
    """Programs of the commands above that the shell does not find, with what lets it find them."""
    lines = []
    if shutil.which("hpa-kit") is None:
        first = "" if (source / ".venv" / "bin" / "hpa-kit").is_file() else "make .venv && "
        lines.append(
            f"hpa-kit is not in PATH: {first}source .venv/bin/activate; without it `python3 -m hpa_kit.cli` "
            "does `kaggle metadata` and `kaggle status`"
        )
    if shutil.which("kaggle") is None and (source / OWN / "bin" / "kaggle").is_file():
        lines.append(f'kaggle is not in PATH: export PATH="$PATH:$PWD/{OWN}/bin"')
    return lines


def unseen(source: Path) -> list[str]:
    """What only Kaggle knows, with the command that asks it."""
    path = NOTEBOOKS["infer"].path(source)
    valid = path.is_file() and not check_metadata(path)
    attached = json.loads(path.read_text(encoding="utf-8")).get("dataset_sources", []) if valid else []
    return [
        f"whether you have joined the competition: https://www.kaggle.com/c/{COMPETITION}/rules",
        *(f"whether a dataset is ready: kaggle datasets status {id}" for id in attached),
    ]


def _owner(source: Path) -> Step:
    try:
        owner = find_owner(source)
    except InputError as error:
        return Step(str(error), owner_mend(str(error), source / METADATA))
    if owner == OWNER_PLACEHOLDER:
        return Step(f"the owner is still {OWNER_PLACEHOLDER!r}", OWNER)
    return Step(f"owner {owner}")


def _notebooks(source: Path) -> Iterator[Step]:
    for notebook in NOTEBOOKS.values():
        path = notebook.path(source)
        faults = check_metadata(path)
        for fault in faults:
            yield Step(fault, metadata_mend(fault, notebook, path))
        if not faults:
            yield _as_written(source, notebook.name, path)
        yield _pair(source / "notebooks" / f"{notebook.name}.py")


def _as_written(source: Path, name: str, path: Path) -> Step:
    """Whether valid metadata are those of this owner's notebook, with the kit attached."""
    try:
        keys = metadata_differences(source)[name]
    except InputError:  # of another file, which has a line of its own
        keys = []
    if keys:
        return Step(f"{path}: {', '.join(keys)} other than they have to be", WRITE)
    return Step(f"{path.relative_to(source)}: valid, internet off, GPU on")


def _pair(script: Path) -> Step:
    """Whether both files of a notebook hold the same cells; their times say nothing."""
    try:
        import jupytext
    except ImportError:
        what = f"{script.name}: not compared, jupytext is missing here"
        return Step(what, f"make .venv && .venv/bin/{STATUS}")
    notebook = script.with_suffix(".ipynb")
    mend = pair_mend(script, notebook)
    if not script.is_file() or not notebook.is_file():
        return Step(f"{script if not script.is_file() else notebook}: missing", mend)
    try:
        cells = [
            [
                (cell.cell_type, cell.source, cell.metadata.get("tags", []))
                for cell in jupytext.read(path).cells
            ]
            for path in (script, notebook)
        ]
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return Step(f"{notebook}: no notebook", f"jupytext --to ipynb notebooks/{script.name}")
    name = f"notebooks/{notebook.name}"
    return (
        Step(f"{name}: the cells of {script.name}")
        if cells[0] == cells[1]
        else Step(f"{name}: other cells than {script.name}", SYNC)
    )


def _bundle(source: Path, dist: Path) -> Iterator[Step]:
    try:
        wanted = json.loads(bundle_files(source, fetch=False)[MANIFEST])["files"]
    except InputError as error:
        yield Step(str(error), bundle_mend(str(error), source))
        return
    path = dist / ZIP
    if not path.is_file():
        yield Step(f"{path}: not built yet", BUILD)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = parse_manifest(archive.read(MANIFEST))
    except (*BROKEN_ZIP, KeyError, ValueError):
        yield Step(f"{path}: damaged", BUILD)
        return
    # A wheel of the user's own is in no checkout; a build keeps it.
    own = f"wheels/{PROJECT}-"
    changed = {name for name, _ in wanted.items() ^ manifest["files"].items() if not name.startswith(own)}
    if changed:
        yield Step(f"{path}: older than {sorted(changed)[0]} ({len(changed)} files differ)", BUILD)
    else:
        yield Step(f"{path}: as the checkout is, {describe_build(manifest)}")
    yield from _dataset(source, dist, BUILD)


def _members(source: Path, members: Path) -> Iterator[Step]:
    make = f"hpa-kit kaggle weights RUN… {members}"
    if not members.is_dir():
        yield Step(
            f"{members}: no members yet; train one, on Kaggle: {NOTEBOOKS['train'].push()}; then", make
        )
        return
    if not (members / ENSEMBLE).is_file() and not list(members.rglob(MEMBER)):
        yield Step(f"{members}: holds neither {ENSEMBLE} nor {MEMBER}", make)
        return
    yield from _dataset(source, members, make)


def _dataset(source: Path, folder: Path, make: str) -> Iterator[Step]:
    faults = check_dataset(folder)
    for fault in faults:
        yield Step(fault, dataset_mend(fault, folder, make))
    if faults:
        return
    id = json.loads((folder / DATASET_METADATA).read_text(encoding="utf-8"))["id"]
    path = NOTEBOOKS["infer"].path(source)
    valid = not check_metadata(path)
    attached = json.loads(path.read_text(encoding="utf-8")).get("dataset_sources", []) if valid else [id]
    try:
        owner = find_owner(source)
    except InputError:  # which has a line of its own
        owner = id.partition("/")[0]
    if id.partition("/")[0] != owner:
        yield Step(f"{folder / DATASET_METADATA}: {id} is not {owner}'s", make)
    elif id not in attached:
        yield Step(f"{path}: does not attach {id}", f"{WRITE} --add {id}")
    else:
        yield Step(f"{folder}: ready to be uploaded as {id}")


def _client(source: Path, folders: list[Path]) -> Iterator[Step]:
    python = find_client(source)
    if python is None:
        yield Step("no Kaggle client here", "make client")
        return
    commands = [notebook.push() for notebook in NOTEBOOKS.values()]
    commands += [Dataset(folder.resolve(), "").create() for folder in folders if folder.is_dir()]
    try:
        outcomes = dry_run(python, commands, source)
    except InputError as error:
        yield Step(str(error), f"rm -rf {OWN} && make client")
        return
    refused = [outcome for outcome in outcomes if outcome.fault]
    for outcome in refused:
        yield Step(f"Kaggle client {outcome.version}: `{outcome.command}`: {outcome.fault}", WRITE)
    if not refused:
        yield Step(f"Kaggle client {outcomes[0].version} takes notebooks and datasets (tried offline)")
