"""The two notebooks' ``kernel-metadata.json``, checked before the push.

The Kaggle client lets almost everything through, and a run then starts without what was misspelt.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.errors import nearest
from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.dataset import (
    KIT_SLUG,
    MEMBERS_SLUG,
    OWNER_PLACEHOLDER,
    WRITE,
    Fault,
    owner_fault,
    slug_fault,
    slugify,
)

METADATA = "kernel-metadata.json"
FLAGS = ("is_private", "enable_gpu", "enable_tpu", "enable_internet")
SOURCES = ("dataset_sources", "competition_sources", "kernel_sources", "model_sources")
REQUIRED = ("id", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu",
            "enable_internet")  # fmt: skip
KNOWN = (*REQUIRED, "id_no", "enable_tpu", "machine_shape", *SOURCES, "docker_image",
         "docker_image_pinning_type", "keywords")  # fmt: skip
FIXED = ("competition_sources", "keywords")  # lists that no command adds to or takes from


class Notebook(NamedTuple):
    """A notebook as it is pushed. The client reads one metadata file per folder, so each has its folder."""

    name: str
    folder: str  # of kernel-metadata.json, in the checkout
    slug: str
    title: str
    code_file: str
    datasets: tuple[str, ...]  # slugs of the owner's datasets that it starts with

    def push(self) -> str:
        """Give the command that uploads the notebook and runs it."""
        return f"kaggle kernels push -p {shlex.quote(self.folder)}"

    def path(self, source: Path) -> Path:
        """Find its metadata file in a checkout."""
        return source / self.folder / METADATA


NOTEBOOKS = {
    "infer": Notebook(
        "infer", ".", "hpa-kit-infer", "HPA kit infer", "notebooks/infer.ipynb", (KIT_SLUG, MEMBERS_SLUG)
    ),
    "train": Notebook(
        "train", "notebooks/train", "hpa-kit-train", "HPA kit train", "../train.ipynb", (KIT_SLUG,)
    ),
}


def check_metadata(path: str | Path, notebook: Notebook | None = None) -> list[Fault]:
    """List everything that would keep a notebook from running as a submission; empty is good.

    The fields are those of the client's ``kernels push``. A push with a misspelt key or source goes through
    and the run starts without it, so each is an error here. What the kit knows itself its fix writes; what
    only the user knows, a source, is taken out; a notebook that is broken, run or missing is made of its
    script.

    Args:
        path: ``kernel-metadata.json``, or the folder that holds it.
        notebook: whose it is, as far as known.
    """
    path = _file(path)
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [Fault(f"{path}: missing; the Kaggle client pushes the folder that holds it", WRITE)]
    except (ValueError, RecursionError) as error:
        return [Fault(f"{path}: no JSON: {error}", f"rm {shlex.quote(str(path))} && {WRITE}")]
    if not isinstance(metadata, dict):
        said = f"{path}: holds a {type(metadata).__name__}; expected names and values"
        return [Fault(said, f"rm {shlex.quote(str(path))} && {WRITE}")]
    faults = [(said, WRITE) for check in (_keys, _identity, _flags) for said in check(metadata)]
    faults += _sources(metadata, "" if notebook is None else f" --to {notebook.name}")
    made_of = None if notebook is None else f"jupytext --to ipynb notebooks/{notebook.name}.py"
    is_own = notebook is not None and metadata.get("code_file") == notebook.code_file
    faults += [(said, made_of if is_own and made_of else WRITE) for said in _code(metadata, path.parent)]
    return [Fault(f"{path}: {said}", fix) for said, fix in faults]


def read_metadata(source: Path, notebook: Notebook) -> dict[str, Any]:
    """Read the metadata of a notebook that is ready to be pushed.

    Raises:
        Fault: the first that keeps it from running as a submission.
    """
    path = notebook.path(source)
    for fault in check_metadata(path, notebook):
        raise fault
    metadata: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return metadata


def find_placeholders(path: str | Path) -> list[str]:
    """List the names in ``kernel-metadata.json`` whose owner is still to be set, one line each.

    Args:
        path: a file that :func:`check_metadata` finds no fault in, or its folder.
    """
    path = _file(path)
    metadata = json.loads(path.read_text(encoding="utf-8"))
    named = [("id", metadata["id"])]
    named += [(key, source) for key in SOURCES for source in metadata.get(key, [])]
    return [
        f"{path}: {key}: {name}: put your Kaggle name in place of {OWNER_PLACEHOLDER}"
        for key, name in named
        if name.partition("/")[0] == OWNER_PLACEHOLDER
    ]


def source_fault(key: str, source: Any) -> str | None:
    """Say what keeps a source, or a keyword, out of a list of ``kernel-metadata.json``, or None."""
    return _LISTS[key](source)


def sort_source(name: str, otherwise: str = "dataset_sources") -> tuple[str, str]:
    """Tell which list of ``kernel-metadata.json`` a source belongs to, and its name without its address.

    Args:
        name: ``owner/slug``, perhaps with ``datasets/``, ``code/`` or ``models/``, or as an address.
        otherwise: the list where the name does not tell.
    """
    found = re.fullmatch(
        r"(?:https?://(?:www\.)?kaggle\.com/)?(?:(datasets|code|notebooks|kernels|models)/)?(.+?)/?", name
    )
    kind, rest = (found[1], found[2]) if found else (None, name)
    if kind is None:
        return ("model_sources" if rest.count("/") == 4 else otherwise), rest
    return {"datasets": "dataset_sources", "models": "model_sources"}.get(kind, "kernel_sources"), rest


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path / METADATA if path.is_dir() else path


def _keys(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in metadata:
        if key not in KNOWN:
            yield f"unknown key {key!r}{nearest(key, KNOWN)}"
    for key in REQUIRED:
        if key not in metadata:
            yield f"{key} is missing; write it out, the client's default is not its documentation's"


def _identity(metadata: Mapping[str, Any]) -> Iterator[str]:
    id, title = metadata.get("id"), metadata.get("title")
    if id is not None:
        fault = _owner_slug_fault(id, shortest=5)
        if fault:
            yield f"id {id!r}: {fault}"
        elif isinstance(title, str) and slugify(title) != id.partition("/")[2]:
            yield f"title {title!r} makes the slug {slugify(title)!r}; id is {id!r}; make them agree"
    if title is not None and (not isinstance(title, str) or not 5 <= len(title) <= 50):
        yield f"title {title!r} needs 5 to 50 characters"
    for key, expected in {"language": "python", "kernel_type": "notebook"}.items():
        if key in metadata and metadata[key] != expected:
            yield f"{key} is {metadata[key]!r}; expected {expected!r}"
    pinning = metadata.get("docker_image_pinning_type")
    if pinning not in (None, "original", "latest"):
        yield f"docker_image_pinning_type is {pinning!r}; expected 'original' or 'latest'"
    if "p100" in str(metadata.get("machine_shape", "")).lower():
        yield f"machine_shape {metadata['machine_shape']!r} is retired; leave it out, the default has two T4"


def _flags(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in FLAGS:
        if key in metadata and not isinstance(metadata[key], bool):
            yield f"{key} is {metadata[key]!r}; expected true or false"
    if metadata.get("enable_internet") is True:
        yield "enable_internet is true; the competition takes notebooks without internet only"
    if metadata.get("enable_gpu") is False:
        yield "enable_gpu is false; the hidden test set needs a GPU to be done in time"
    if metadata.get("enable_tpu") is True:
        yield "enable_tpu is true; the kit runs on GPUs"


def _sources(metadata: Mapping[str, Any], to: str) -> Iterator[tuple[str, str]]:
    """Faults of the lists, each with its fix."""
    for key, check in _LISTS.items():
        listed = metadata.get(key, [])
        if not isinstance(listed, list):
            yield f"{key} is {listed!r}; expected a list", WRITE
            continue
        for source in listed:
            fault = check(source)
            if fault:
                put_right = key in FIXED or source_fault(*sort_source(str(source), key)) is None
                take_out = f"{WRITE}{to} --remove {shlex.quote(str(source))}"
                yield f"{key}: {source!r}: {fault}", WRITE if put_right else take_out
        if len({str(source) for source in listed}) < len(listed):
            yield f"{key} names something twice", WRITE
    competitions = metadata.get("competition_sources", [])
    if isinstance(competitions, list) and COMPETITION not in competitions:
        yield f"competition_sources lacks {COMPETITION!r}; without it no data is mounted", WRITE


def _owner_slug_fault(name: Any, shortest: int, version: bool = False) -> str | None:
    form = "owner/slug or owner/slug/version" if version else "owner/slug"
    if not isinstance(name, str):
        return f"expected {form}"
    parts = name.split("/")
    prefix = re.match(r"https?://(www\.kaggle\.com/)?|(datasets|code|notebooks|kernels)/", name)
    if prefix:
        return f"expected {form}; leave {prefix[0]!r} out"
    if not 2 <= len(parts) <= 2 + version:
        return f"expected {form}"
    if len(parts) == 3 and not parts[2].isdecimal():
        return f"version {parts[2]!r} is no number"
    return owner_fault(parts[0]) or slug_fault(parts[1], shortest)


def _competition_fault(name: Any) -> str | None:
    if not isinstance(name, str) or "/" in name:
        return "expected the competition's slug alone"
    return slug_fault(name, 3, 100)


def _model_fault(name: Any) -> str | None:
    parts = name.split("/") if isinstance(name, str) else []
    if len(parts) != 5 or not all(re.fullmatch(r"[A-Za-z0-9._-]+", part) for part in parts):
        return "expected owner/model/framework/variation/version"
    return owner_fault(parts[0]) or (None if parts[4].isdecimal() else f"version {parts[4]!r} is no number")


_LISTS: Mapping[str, Callable[[Any], str | None]] = {
    "dataset_sources": lambda source: _owner_slug_fault(source, shortest=3, version=True),
    "kernel_sources": lambda source: _owner_slug_fault(source, shortest=5, version=True),
    "competition_sources": _competition_fault,
    "model_sources": _model_fault,
    "keywords": lambda word: None if isinstance(word, str) else "expected text",
}


def _code(metadata: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Faults of the notebook that is pushed: it must be there, be a notebook, and carry no outputs."""
    name = metadata.get("code_file")
    if name is None:
        return
    if not isinstance(name, str) or not name.endswith(".ipynb"):
        yield f"code_file {name!r}: expected a notebook, NAME.ipynb"
        return
    path = folder / name
    if not path.is_file():
        yield f"code_file {name!r}: there is no {path}"
        return
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        language = notebook["metadata"].get("kernelspec", {}).get("language")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        yield f"code_file {name!r}: no notebook"
        return
    if not language:
        yield f"code_file {name!r}: no kernelspec, so nobody knows its language"
    run = sum(bool(cell.get("outputs")) or cell.get("execution_count") is not None for cell in cells)
    if run:
        yield f"code_file {name!r}: {run} cells carry outputs; clear them"
