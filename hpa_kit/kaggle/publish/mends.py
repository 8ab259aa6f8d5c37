"""For each thing that a check finds, the command that mends it, to be run in the checkout."""

import re
import shlex
from pathlib import Path

from hpa_kit.kaggle.publish.notebooks import Notebook

BUILD = "./build_dataset.sh"
WRITE = "hpa-kit kaggle metadata"
OWNER = f"{WRITE} --owner NAME"
STATUS = "hpa-kit kaggle status"
SYNC = "make sync"


def owner_mend(error: str, path: Path) -> str:
    """For an owner that cannot be read from a notebook's metadata."""
    return f"rm {_quoted(path)} && {OWNER}" if "delete it" in error else OWNER


def metadata_mend(fault: str, notebook: Notebook, path: Path) -> str:
    """For a line of :func:`~hpa_kit.kaggle.publish.metadata.check_metadata` of a notebook's file.

    What the kit knows itself it writes; what only the user knows, a source, is taken out; a notebook that is
    broken, run or missing is made of its script.
    """
    if re.search(r": (no JSON|holds a) ?", fault):
        return f"rm {_quoted(path)} && {WRITE}"
    if f"code_file {notebook.code_file!r}" in fault:
        return f"jupytext --to ipynb notebooks/{notebook.name}.py"
    source = re.search(r"(?:dataset|kernel|model)_sources: (['\"])(.+?)\1: (?!.*leave .* out$)", fault)
    if source:
        return f"{WRITE} --to {notebook.name} --remove {shlex.quote(source[2])}"
    return WRITE


def pair_mend(script: Path, notebook: Path) -> str:
    """For a notebook of which one of both files is missing, broken or other than the other."""
    missing = [path for path in (script, notebook) if not path.is_file()]
    if len(missing) == 2:
        return f"git checkout -- notebooks/{script.name} notebooks/{notebook.name}"
    return f"jupytext --sync notebooks/{notebook.name}" if missing == [script] else SYNC


def bundle_mend(error: str, source: Path) -> str:
    """For what keeps the bundle from being built."""
    missing = re.search(r"is no checkout: (\S+) is missing", error)
    if missing:
        return f"git checkout -- {missing[1]}"
    refused = re.match(r"wheels: (.+?\.whl) ", error)
    if refused:
        path = source / "wheels" / Path(refused[1]).name
        again = "pin another in wheels/requirements.txt, " if "and its pin" in error else ""
        return f"{again}rm {_quoted(path)} && {BUILD}"
    named = re.match(r"bundle: (.+?): .*; rename it$", error)
    if named:
        path = source / named[1]
        return f"mv {_quoted(path)} {_quoted(path.with_name('NAME'))} && {BUILD}"
    return BUILD


def dataset_mend(fault: str, folder: Path, make: str) -> str:
    """For a line of ``check_dataset``: a new folder, or another name in it."""
    named = re.match(rf"{re.escape(str(folder))}: (.+?): (starts with a dot)?.*; rename it$", fault)
    if not named:
        return make
    path = folder / named[1]
    return f"rm {_quoted(path)}" if named[2] else f"mv {_quoted(path)} {_quoted(path.with_name('NAME'))}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
