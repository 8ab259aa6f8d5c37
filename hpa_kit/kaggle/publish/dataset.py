"""A folder that the Kaggle client uploads as a dataset: its metadata, its commands, what must not lie in it.

Standard library only, as bundles are built before anything is installed.
"""

import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.kaggle.publish.names import OWNER_PLACEHOLDER, file_fault, owner_fault, slug_fault

METADATA = "dataset-metadata.json"
CARD = "README.md"
KNOWN = ("title", "subtitle", "description", "id", "id_no", "licenses", "resources", "keywords",
         "expectedUpdateFrequency", "userSpecifiedSources", "image")  # fmt: skip
# The names that the client's documentation lists; the server takes no other.
LICENCES = ("CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0",
            "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "CC-BY-3.0-IGO", "CC-BY-NC-SA-3.0-IGO",
            "ODbL-1.0", "DbCL-1.0", "ODC-BY-1.0", "PDDL", "CDLA-Permissive-1.0", "CDLA-Sharing-1.0",
            "apache-2.0", "GPL-2.0", "GPL-3.0", "LGPL-3.0", "AGPL-3.0", "FDL-1.3", "US-Government-Works",
            "EU-ODP-Legal-Notice", "copyright-authors", "other", "unknown")  # fmt: skip


class Dataset(NamedTuple):
    """A dataset folder that is ready for the client."""

    path: Path
    id: str  # owner/slug

    def create(self) -> str:
        """The command of the first upload. Folders are skipped by default, hence ``-r zip``."""
        return f"kaggle datasets create -p {shlex.quote(str(self.path))} -r zip"

    def update(self, note: str) -> str:
        """The command of each later upload."""
        return f"kaggle datasets version -p {shlex.quote(str(self.path))} -r zip -m {shlex.quote(note)}"


def write_dataset(
    out: Path, owner: str, slug: str, title: str, licence: str, card: str | None = None
) -> Dataset:
    """Write ``dataset-metadata.json``, and ``README.md``, into a folder whose other files are there.

    Args:
        out: the folder.
        owner, slug, title, licence: as Kaggle names them.
        card: what the dataset is, as Markdown: for the file, and for the dataset's page, which shows the
            metadata's description; None writes neither.

    Raises:
        InputError: the client, or Kaggle's file store, would refuse the metadata or a file's name.
    """
    metadata = dataset_metadata(owner, slug, title, licence)
    if card is not None:
        metadata["description"] = card
        atomic_text(out / CARD, card)
    atomic_text(out / METADATA, json.dumps(metadata, indent=2) + "\n")
    return Dataset(out, str(metadata["id"]))


def dataset_metadata(owner: str, slug: str, title: str, licence: str) -> dict[str, Any]:
    """The metadata of a dataset, checked.

    Raises:
        InputError: the client would refuse it.
    """
    metadata = {"title": title, "id": f"{owner}/{slug}", "licenses": [{"name": licence}]}
    faults = dataset_faults(metadata)
    if faults:
        raise InputError(faults[0])
    return metadata


def dataset_faults(metadata: Mapping[str, Any]) -> list[str]:
    """Every way in which the client, or Kaggle after it, would refuse a dataset's metadata, one line each."""
    return [f"{METADATA}: {fault}" for fault in _faults(metadata)]


def check_dataset(folder: str | Path) -> list[str]:
    """Everything that keeps a folder from becoming the dataset it should be, one line each; empty is good.

    Args:
        folder: holds ``dataset-metadata.json`` beside the files to upload.
    """
    folder = Path(folder)
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [f"{path}: missing"]
    except (ValueError, RecursionError) as error:
        return [f"{path}: no JSON: {error}"]
    if not isinstance(metadata, dict):
        return [f"{path}: holds a {type(metadata).__name__}; expected names and values"]
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != path)
    names = [file.relative_to(folder).as_posix() for file in files]
    empty = [] if files else ["no file to upload beside it"]
    return [f"{path}: {fault}" for fault in [*_faults(metadata), *empty]] + [
        f"{folder}: {fault}" for fault in filter(None, map(file_fault, names))
    ]


def notes(dataset: Dataset, own: Collection[str]) -> list[str]:
    """What a user should know before the upload: files that are not the kit's, an owner still to be set.

    Args:
        dataset: the folder.
        own: names in it that belong there.
    """
    lines = []
    known = (METADATA, CARD, *own)
    others = sorted(path.name for path in dataset.path.iterdir() if path.name not in known)
    if others:
        lines.append(f"{dataset.path} also holds {', '.join(others)}: the client would upload that too")
    if dataset.id.startswith(f"{OWNER_PLACEHOLDER}/"):
        lines.append(
            f"{dataset.path / METADATA}: the owner is still {OWNER_PLACEHOLDER!r}; set yours with "
            "`hpa-kit kaggle metadata --owner NAME` and build again"
        )
    return lines


def find_owner(source: Path) -> str:
    """The Kaggle user who owns the inference notebook of a checkout: the one place where the name is set.

    Raises:
        InputError: the notebook's metadata are there and name none.
    """
    path = source / "kernel-metadata.json"
    write = "`hpa-kit kaggle metadata --owner NAME`"
    if not path.is_file():
        return OWNER_PLACEHOLDER
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise InputError(f"kaggle: {path} holds no metadata; delete it and write it anew with {write}")
    owner, slash, _ = str(metadata.get("id")).partition("/")
    if not slash or owner_fault(owner):
        raise InputError(f'kaggle: {path} has no "id": "owner/slug"; set it with {write}')
    return owner


def _faults(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in metadata:
        if key not in KNOWN:
            yield f"unknown key {key!r}; known are {', '.join(KNOWN)}"
    title, id, licences = (metadata.get(key) for key in ("title", "id", "licenses"))
    if not isinstance(title, str) or not 6 <= len(title) <= 50:
        yield f"title {title!r} needs 6 to 50 characters"
    owner, slash, slug = str(id).partition("/")
    fault = owner_fault(owner) or slug_fault(slug, 6) if slash else "needs the form owner/slug"
    if fault:
        yield f"id {id!r}: {fault}"
    named = [one for one in licences if isinstance(one, dict)] if isinstance(licences, list) else []
    if len(named) != 1 or not isinstance(licences, list) or len(licences) != 1 or not named[0].get("name"):
        yield 'licenses: expected exactly one, such as [{"name": "apache-2.0"}]'
    elif named[0]["name"] not in LICENCES:
        yield f"licenses: {named[0]['name']!r} is none that Kaggle lists; take one of {', '.join(LICENCES)}"
