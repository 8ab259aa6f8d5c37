"""The two notebooks as they are to be pushed: their metadata written, their files in step.

``python -m hpa_kit.kaggle.publish.notebooks`` puts the bootstrap cell into both, as ``make sync`` does.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.dataset import (
    OWNER_PLACEHOLDER,
    Fault,
    find_checkout,
    find_owner,
    owner_fault,
    slug_fault,
    slugify,
)
from hpa_kit.kaggle.publish.metadata import NOTEBOOKS, SOURCES, Notebook, sort_source, source_fault

CELL = Path("hpa_kit/kaggle/bootstrap_cell.py")
CELL_MARK = "def find_kit("  # stands in no other cell of a notebook
SYNC = "make sync"
# What is left to the user, as long as Kaggle takes it.
CHOSEN: dict[str, Callable[[Any], bool]] = {
    "id_no": lambda value: isinstance(value, int),
    "machine_shape": lambda value: isinstance(value, str) and "p100" not in value.lower(),
    "docker_image": lambda value: isinstance(value, str),
    "docker_image_pinning_type": lambda value: value in ("original", "latest"),
    "keywords": lambda value: isinstance(value, list) and all(isinstance(word, str) for word in value),
}


def write_metadata(
    source: Path,
    owner: str | None = None,
    add: Iterable[str] = (),
    notebook: str = "infer",
    remove: Iterable[str] = (),
) -> dict[Path, bool]:
    """Bring both notebooks' metadata to what they have to be; sources that a user has put in are kept.

    Args:
        source: the checkout.
        owner: Kaggle user; None keeps the inference notebook's. The old one's sources become the new one's.
        add: sources to attach, ``owner/slug``, with or without what their address has in front:
            ``datasets/``, ``code/`` (a notebook's output), ``models/``.
        notebook: the one to attach them to, or to take ``remove`` out of.
        remove: sources to take out.

    Returns:
        Which files were written, and whether that changed them.

    Raises:
        InputError: the owner is no Kaggle user's name, Kaggle takes no source as one that is to be attached,
            or a file's content is not metadata. Nothing is written then.
    """
    written = {}
    for path, (found, content) in _planned(source, owner, list(add), notebook, list(remove)).items():
        written[path] = content != found
        if content != found:
            atomic_text(path, json.dumps(content, indent=2) + "\n")
    return written


def metadata_differences(source: Path) -> dict[str, list[str]]:
    """List by notebook the keys in which its metadata are other than :func:`write_metadata` would write them.

    Raises:
        InputError: as for :func:`write_metadata`.
    """
    planned = _planned(source, None, [], "infer", [])
    return {
        one.name: [key for key in {**(found or {}), **content} if (found or {}).get(key) != content.get(key)]
        for one, (found, content) in zip(NOTEBOOKS.values(), planned.values(), strict=True)
    }


def check_pair(script: Path) -> Fault | None:
    """Find how both files of a notebook differ in their cells, or which is missing; their times say nothing.

    Args:
        script: the ``.py``, beside the ``.ipynb``.
    """
    try:
        import jupytext
    except ImportError:
        said = f"{script.name}: not compared, jupytext is missing here"
        return Fault(said, "make .venv && .venv/bin/hpa-kit kaggle status")
    notebook = script.with_suffix(".ipynb")
    if not script.is_file():
        both = f"git checkout -- notebooks/{script.name} notebooks/{notebook.name}"
        fix = f"jupytext --sync notebooks/{notebook.name}" if notebook.is_file() else both
        return Fault(f"{script}: missing", fix)
    if not notebook.is_file():
        return Fault(f"{notebook}: missing", SYNC)
    try:
        cells, others = (
            [
                (cell.cell_type, cell.source, cell.metadata.get("tags", []))
                for cell in jupytext.read(path).cells
            ]
            for path in (script, notebook)
        )
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return Fault(f"{notebook}: no notebook", f"jupytext --to ipynb notebooks/{script.name}")
    if cells != others:
        return Fault(f"notebooks/{notebook.name}: other cells than {script.name}", SYNC)
    return None


def write_bootstrap_cell(source: Path) -> list[Path]:
    """Put the bootstrap cell, as it stands in its file, into the scripts of both notebooks.

    Args:
        source: the checkout.

    Returns:
        The scripts that this changed.

    Raises:
        InputError: a script has no such cell, or more than one.
    """
    text = bootstrap_cell(source)
    changed = []
    for notebook in NOTEBOOKS.values():
        path = source / "notebooks" / f"{notebook.name}.py"
        before = path.read_text(encoding="utf-8")
        cells = re.split(r"^(?=# %%)", before, flags=re.MULTILINE)
        places = [place for place, cell in enumerate(cells) if CELL_MARK in cell]
        if len(places) != 1:
            raise InputError(f"sync: {path} has {len(places)} cells with {CELL_MARK!r}; expected one")
        cells[places[0]] = f"# %%\n{text}\n\n"
        after = "".join(cells)
        if after != before:
            atomic_text(path, after)
            changed.append(path)
    return changed


def bootstrap_cell(source: Path) -> str:
    """Read the bootstrap cell of a checkout: what its file holds below its first ``# %%``."""
    text = (source / CELL).read_text(encoding="utf-8")
    return text.partition("# %%\n")[2].strip()


def _planned(
    source: Path, owner: str | None, add: list[str], notebook: str, remove: list[str]
) -> dict[Path, tuple[dict[str, Any] | None, dict[str, Any]]]:
    """Each metadata file's content as it is, and as it has to be."""
    try:
        before = find_owner(source)
    except InputError:
        if owner is None:
            raise
        before = OWNER_PLACEHOLDER  # the one that is given takes its place
    owner = owner or before
    fault = owner_fault(owner) or next(filter(None, map(_add_fault, add)), None)
    if fault:
        raise InputError(f"kaggle: {fault}; nothing was written")
    planned = {}
    for one in NOTEBOOKS.values():
        found, here = _read(one.path(source)), one.name == notebook
        content = _metadata(one, found, before, owner, add if here else [], remove if here else [])
        planned[one.path(source)] = (found, content)
    return planned


def _add_fault(name: str) -> str | None:
    """Why a source cannot be attached, or None."""
    if re.match(r"(https?://(www\.)?kaggle\.com/)?(competitions|c)/", name):
        return f"--add {name!r}: the competition {COMPETITION} is always attached, and no other can be"
    key, source = sort_source(name)
    fault = source_fault(key, source)
    form = "owner/slug for a dataset, code/owner/slug for a notebook's output, or a model's address"
    return f"--add {name!r}: {fault}; give {form}" if fault else None


def _metadata(
    notebook: Notebook,
    found: dict[str, Any] | None,
    before: str,
    owner: str,
    add: list[str],
    remove: list[str],
) -> dict[str, Any]:
    """A notebook's metadata: of those found the name, privacy and sources, all else as it has to be."""
    kept = found or {}
    slug, title = _name(notebook, kept)
    content: dict[str, Any] = {
        "id": f"{owner}/{slug}",
        "title": title,
        "code_file": notebook.code_file,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": kept.get("is_private") is not False,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        **{key: [] for key in SOURCES},
        **{key: value for key, value in kept.items() if key in CHOSEN and CHOSEN[key](value)},
    }
    content["competition_sources"] = [COMPETITION]
    own = notebook.datasets if found is None else notebook.datasets[:1]
    named = [("dataset_sources", f"{owner}/{slug}") for slug in own]
    for key in ("dataset_sources", "kernel_sources", "model_sources"):
        listed = kept.get(key, [])
        named += [sort_source(str(source), key) for source in listed] if isinstance(listed, list) else []
    gone = {sort_source(source)[1] for source in remove}
    for key, source in [*(one for one in named if one[1] not in gone), *map(sort_source, add)]:
        first, _, rest = source.partition("/")
        renamed = f"{owner}/{rest}" if rest and first in (before, OWNER_PLACEHOLDER) else source
        if renamed not in content[key]:
            content[key].append(renamed)
    return content


def _name(notebook: Notebook, kept: dict[str, Any]) -> tuple[str, str]:
    """Slug and title: the user's where Kaggle takes them, with the title put right where they disagree."""
    slug, title = str(kept.get("id", "")).partition("/")[2], kept.get("title")
    if slug_fault(slug, shortest=5):
        slug = notebook.slug
    if not isinstance(title, str) or slugify(title) != slug or not 5 <= len(title) <= 50:
        title = notebook.title if slug == notebook.slug else slug.replace("-", " ")
    return slug, title


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON: {error}; delete it to have it written anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; delete it to have it written anew")
    return content


if __name__ == "__main__":
    for changed in write_bootstrap_cell(find_checkout()):
        print(f"{changed}: has the bootstrap cell of {CELL} now")
