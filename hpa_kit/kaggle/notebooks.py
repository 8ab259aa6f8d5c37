"""The two notebooks' ``kernel-metadata.json``, written from one place."""

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.kaggle.bundle import DATASET
from hpa_kit.kaggle.dataset import find_owner
from hpa_kit.kaggle.metadata import METADATA, SOURCES
from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.names import OWNER_PLACEHOLDER, owner_fault

MEMBERS = "hpa-kit-members"


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
    source: Path, owner: str | None = None, add: Iterable[str] = (), notebook: str = "infer"
) -> dict[Path, bool]:
    """Bring both notebooks' metadata to what they have to be; sources that a user has put in are kept.

    Args:
        source: the checkout.
        owner: Kaggle user; None keeps the inference notebook's. The old one's sources become the new one's.
        add: sources to attach, ``owner/slug``, with or without what their address has in front:
            ``datasets/``, ``code/`` (a notebook's output), ``models/``.
        notebook: the one to attach them to.

    Returns:
        Which files were written, and whether that changed them.

    Raises:
        InputError: the owner is no Kaggle user's name, or a file's content is not metadata.
    """
    before = find_owner(source)
    owner = owner or before
    fault = owner_fault(owner)
    if fault:
        raise InputError(f"kaggle: {fault}")
    written = {}
    for one in NOTEBOOKS.values():
        path = one.path(source)
        found = _read(path)
        content = _metadata(one, found, before, owner, list(add) if one.name == notebook else [])
        written[path] = content != found
        if content != found:
            atomic_text(path, json.dumps(content, indent=2) + "\n")
    return written


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
    notebook: Notebook, found: dict[str, Any] | None, before: str, owner: str, add: list[str]
) -> dict[str, Any]:
    """A notebook's metadata: of those found the title, privacy and sources, all else as it has to be."""
    kept = found or {}
    slug = str(kept.get("id", "")).partition("/")[2] or notebook.slug
    content: dict[str, Any] = {
        "id": f"{owner}/{slug}",
        "title": kept.get("title", notebook.title),
        "code_file": notebook.code_file,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": kept.get("is_private", True),
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        **{key: [] for key in SOURCES},
        **{key: value for key, value in kept.items() if key in ("machine_shape", "docker_image", "keywords")},
    }
    content["competition_sources"] = [COMPETITION]
    own = notebook.datasets if found is None else notebook.datasets[:1]
    named = [("dataset_sources", f"{owner}/{slug}") for slug in own]
    for key in ("dataset_sources", "kernel_sources", "model_sources"):
        listed = kept.get(key, [])
        named += [sort_source(str(source), key) for source in listed] if isinstance(listed, list) else []
    for key, source in [*named, *map(sort_source, add)]:
        first, _, rest = source.partition("/")
        renamed = f"{owner}/{rest}" if rest and first in (before, OWNER_PLACEHOLDER) else source
        if renamed not in content[key]:
            content[key].append(renamed)
    return content


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: no JSON: {error}; mend it, or delete it to have it written anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; delete it to have it written anew")
    return content
