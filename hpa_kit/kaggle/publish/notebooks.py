"""The two notebooks' ``kernel-metadata.json``, written from one place."""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.bundle import DATASET
from hpa_kit.kaggle.publish.dataset import find_owner
from hpa_kit.kaggle.publish.metadata import METADATA, SOURCES, source_fault
from hpa_kit.kaggle.publish.names import OWNER_PLACEHOLDER, owner_fault, slug_fault, slugify

MEMBERS = "hpa-kit-members"
# What is left to the user, as long as Kaggle takes it.
CHOSEN: dict[str, Callable[[Any], bool]] = {
    "id_no": lambda value: isinstance(value, int),
    "machine_shape": lambda value: isinstance(value, str) and "p100" not in value.lower(),
    "docker_image": lambda value: isinstance(value, str),
    "docker_image_pinning_type": lambda value: value in ("original", "latest"),
    "keywords": lambda value: isinstance(value, list) and all(isinstance(word, str) for word in value),
}


class Notebook(NamedTuple):
    """A notebook as it is pushed. The client reads one metadata file per folder, so each has its folder."""

    name: str
    folder: str  # of kernel-metadata.json, in the checkout
    slug: str
    title: str
    code_file: str
    datasets: tuple[str, ...]  # slugs of the owner's datasets that it starts with

    def push(self) -> str:
        """The command that uploads the notebook and runs it."""
        return f"kaggle kernels push -p {shlex.quote(self.folder)}"

    def path(self, source: Path) -> Path:
        """Its metadata file in a checkout."""
        return source / self.folder / METADATA


NOTEBOOKS = {
    "infer": Notebook(
        "infer", ".", "hpa-kit-infer", "HPA kit infer", "notebooks/infer.ipynb", (DATASET, MEMBERS)
    ),
    "train": Notebook(
        "train", "notebooks/train", "hpa-kit-train", "HPA kit train", "../train.ipynb", (DATASET,)
    ),
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
    """By notebook the keys in which its metadata are other than :func:`write_metadata` would write them.

    Raises:
        InputError: as for :func:`write_metadata`.
    """
    planned = _planned(source, None, [], "infer", [])
    return {
        one.name: [key for key in {**(found or {}), **content} if (found or {}).get(key) != content.get(key)]
        for one, (found, content) in zip(NOTEBOOKS.values(), planned.values(), strict=True)
    }


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


def sort_source(name: str, otherwise: str = "dataset_sources") -> tuple[str, str]:
    """Which list of ``kernel-metadata.json`` a source belongs to, and its name without its address's parts.

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
        raise InputError(f"{path}: no JSON: {error}; mend it, or delete it to have it written anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; delete it to have it written anew")
    return content
