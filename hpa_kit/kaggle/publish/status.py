"""Everything that stands between a checkout and a submission, and what is already as it has to be."""

import json
import shlex
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from hpa_kit.errors import InputError
from hpa_kit.kaggle.manifest import BROKEN_ZIP, MANIFEST, describe_build, parse_manifest
from hpa_kit.kaggle.mounts import COMPETITION, ENSEMBLE, MEMBER
from hpa_kit.kaggle.publish.bundle import ZIP, bundle_files
from hpa_kit.kaggle.publish.client import OWN, dry_run, find_client
from hpa_kit.kaggle.publish.dataset import (
    BUILD,
    OWNER,
    OWNER_PLACEHOLDER,
    WRITE,
    Dataset,
    Fault,
    check_dataset,
    find_owner,
)
from hpa_kit.kaggle.publish.dataset import METADATA as DATASET_METADATA
from hpa_kit.kaggle.publish.job import JOBS, find_unfinished
from hpa_kit.kaggle.publish.metadata import NOTEBOOKS, check_metadata
from hpa_kit.kaggle.publish.notebooks import check_pair, metadata_differences
from hpa_kit.kaggle.publish.wheels import PROJECT

Line = str | Fault  # what is well, or what is to do


def status(source: Path, dist: Path, members: Path, client: bool = True) -> list[Line]:
    """List everything that can be seen without an account.

    Args:
        source: the checkout.
        dist: folder of the kit's dataset.
        members: folder of the members' dataset.
        client: put all through the installed Kaggle client, too.
    """
    pack = f"hpa-kit kaggle weights RUN… {shlex.quote(str(members))}"
    lines = [
        _owner(source),
        *_notebooks(source),
        *_bundle(source, dist),
        *_members(source, members, pack),
        *_jobs(source),
    ]
    return lines + (list(_client(source, {dist: BUILD, members: pack})) if client else [])


def off_path(source: Path) -> list[str]:
    """List programs of the commands above that the shell does not find, with what lets it find them."""
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
    """List what only Kaggle knows, with the command that asks it."""
    path = NOTEBOOKS["infer"].path(source)
    valid = path.is_file() and not check_metadata(path)
    attached = json.loads(path.read_text(encoding="utf-8")).get("dataset_sources", []) if valid else []
    return [
        f"whether you have joined the competition: https://www.kaggle.com/c/{COMPETITION}/rules",
        *(f"whether a dataset is ready: kaggle datasets status {id}" for id in attached),
    ]


def _owner(source: Path) -> Line:
    try:
        owner = find_owner(source)
    except Fault as fault:
        return fault
    if owner == OWNER_PLACEHOLDER:
        return Fault(f"the owner is still {OWNER_PLACEHOLDER!r}", OWNER)
    return f"owner {owner}"


def _notebooks(source: Path) -> Iterator[Line]:
    for notebook in NOTEBOOKS.values():
        path = notebook.path(source)
        faults = check_metadata(path, notebook)
        yield from faults
        if not faults:
            yield _as_written(source, notebook.name, path)
        script = source / "notebooks" / f"{notebook.name}.py"
        yield check_pair(script) or f"notebooks/{notebook.name}.ipynb: the cells of {script.name}"


def _as_written(source: Path, name: str, path: Path) -> Line:
    """Whether valid metadata are those of this owner's notebook, with the kit attached."""
    try:
        keys = metadata_differences(source)[name]
    except InputError:  # of another file, which has a line of its own
        keys = []
    if keys:
        return Fault(f"{path}: {', '.join(keys)} other than they have to be", WRITE)
    return f"{path.relative_to(source)}: valid, internet off, GPU on"


def _bundle(source: Path, dist: Path) -> Iterator[Line]:
    try:
        wanted = json.loads(bundle_files(source, fetch=False)[MANIFEST])["files"]
    except Fault as fault:
        yield fault
        return
    path = dist / ZIP
    if not path.is_file():
        yield Fault(f"{path}: not built yet", BUILD)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = parse_manifest(archive.read(MANIFEST))
    except (*BROKEN_ZIP, KeyError, ValueError):
        yield Fault(f"{path}: damaged", BUILD)
        return
    # A wheel of the user's own is in no checkout; a build keeps it.
    own = f"wheels/{PROJECT}-"
    changed = {name for name, _ in wanted.items() ^ manifest["files"].items() if not name.startswith(own)}
    if changed:
        yield Fault(f"{path}: older than {sorted(changed)[0]} ({len(changed)} files differ)", BUILD)
    else:
        yield f"{path}: as the checkout is, {describe_build(manifest)}"
    yield from _dataset(source, dist, BUILD)


def _members(source: Path, members: Path, make: str) -> Iterator[Line]:
    if not members.is_dir():
        yield Fault(
            f"{members}: no members yet; train one, on Kaggle: {NOTEBOOKS['train'].push()}; then", make
        )
        return
    if not (members / ENSEMBLE).is_file() and not list(members.rglob(MEMBER)):
        yield Fault(f"{members}: holds neither {ENSEMBLE} nor {MEMBER}", make)
        return
    yield from _dataset(source, members, make)


def _dataset(source: Path, folder: Path, make: str) -> Iterator[Line]:
    faults = check_dataset(folder, make)
    yield from faults
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
        yield Fault(f"{folder / DATASET_METADATA}: {id} is not {owner}'s", make)
    elif id not in attached:
        yield Fault(f"{path}: does not attach {id}", f"{WRITE} --add {id}")
    else:
        yield f"{folder}: ready to be uploaded as {id}"


def _jobs(source: Path) -> Iterator[Line]:
    """What was begun on Kaggle and not brought to its end."""
    try:
        for path, command in find_unfinished(source):
            yield Fault(f"{path}: begun, not ended", command)
    except InputError as error:
        yield Fault(str(error), f"rm -r {shlex.quote(str(source / JOBS))}")


def _client(source: Path, datasets: dict[Path, str]) -> Iterator[Line]:
    """What the installed client says to each notebook and dataset, with what makes them anew."""
    python = find_client(source)
    if python is None:
        yield Fault("no Kaggle client here", "make client")
        return
    made = {notebook.push(): WRITE for notebook in NOTEBOOKS.values()}
    made |= {Dataset(path.resolve(), "").create(): make for path, make in datasets.items() if path.is_dir()}
    try:
        outcomes = dry_run(python, list(made), source)
    except InputError as error:
        yield Fault(str(error), f"rm -rf {OWN} && make client")
        return
    refused = [outcome for outcome in outcomes if outcome.fault]
    for outcome in refused:
        said = f"Kaggle client {outcome.version}: `{outcome.command}`: {outcome.fault}"
        yield Fault(said, made[outcome.command])
    if not refused:
        yield f"Kaggle client {outcomes[0].version} takes notebooks and datasets (tried offline)"
