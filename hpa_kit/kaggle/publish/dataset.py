"""A folder that the Kaggle client uploads as a dataset: its metadata, its commands, what must not lie in it.

And what all of this room builds on: faults with their fixes, the checkout and its owner, names as Kaggle
takes them. Standard library only, as bundles are built before anything is installed.
"""

import json
import re
import shlex
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text

BUILD = "./build_dataset.sh"
WRITE = "hpa-kit kaggle metadata"
OWNER = f"{WRITE} --owner NAME"
PACK = "hpa-kit kaggle weights RUN… OUT"
OWNER_PLACEHOLDER = "your-name"
KIT_SLUG, MEMBERS_SLUG = "hpa-kit", "hpa-kit-members"
# Of a checkout of the kit: with notebooks, wheels and metadata.
MARKS = ("hpa_kit/__init__.py", "notebooks", "wheels/requirements.txt")

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

_FILE = re.compile(r"[A-Za-z0-9_.+=-]+")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OWNER = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")


class Fault(InputError):
    """Something between a checkout and a submission, and what puts it right; raised, or listed by a check.

    Attributes:
        fix: a command for a shell in the checkout. What only the user knows stands there in capitals.
    """

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(text)
        self.fix = fix


class Dataset(NamedTuple):
    """A dataset folder that is ready for the client."""

    path: Path
    id: str  # owner/slug

    def create(self) -> str:
        """Give the command of the first upload. Folders are skipped by default, hence ``-r zip``."""
        return f"kaggle datasets create -p {shlex.quote(str(self.path))} -r zip"

    def update(self, note: str) -> str:
        """Give the command of each later upload."""
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
    """Make the metadata of a dataset, checked.

    Raises:
        InputError: the client would refuse it.
    """
    metadata = {"title": title, "id": f"{owner}/{slug}", "licenses": [{"name": licence}]}
    for fault in metadata_faults(metadata):
        raise InputError(f"{METADATA}: {fault}")
    return metadata


def check_dataset(folder: str | Path, make: str = PACK) -> list[Fault]:
    """List everything that keeps a folder from becoming the dataset it should be; empty is good.

    Args:
        folder: holds ``dataset-metadata.json`` beside the files to upload.
        make: the command that makes the folder.
    """
    folder = Path(folder)
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [Fault(f"{path}: missing", make)]
    except (ValueError, RecursionError) as error:
        return [Fault(f"{path}: no JSON: {error}", make)]
    if not isinstance(metadata, dict):
        return [Fault(f"{path}: holds a {type(metadata).__name__}; expected names and values", make)]
    names = sorted(
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file() and file != path
    )
    empty = [] if names else ["no file to upload beside it"]
    faults = [Fault(f"{path}: {fault}", make) for fault in [*metadata_faults(metadata), *empty]]
    return [*faults, *name_faults(folder, names, str(folder))]


def name_faults(root: Path, names: Iterable[str], what: str, then: str = "") -> Iterator[Fault]:
    """Find what makes files' names unfit for an upload; of a folder that is to be renamed once.

    Kaggle drops or renames names with ``@``, ``&`` and the like, so a name is letters, digits and
    ``_ . + = -`` only, and no part of it is ``..`` or starts with a dot.

    Args:
        root: folder of the files.
        names: their relative paths, with ``/`` between parts.
        what: the first word of a fault.
        then: what is to be done after renaming, as an end of the fix.
    """
    known = set()
    for name in names:
        parts = name.split("/")
        unfit = next((k for k, part in enumerate(parts) if part[0] == "." or not _FILE.fullmatch(part)), None)
        if unfit is None or (path := root.joinpath(*parts[: unfit + 1])) in known:
            continue
        known.add(path)
        if odd := sorted(set(re.sub(_FILE, "", parts[unfit]))):
            said = f"{' '.join(map(repr, odd))} in its name; Kaggle takes letters, digits and _ . + = - "
            fix = f"mv {_quoted(path)} {_quoted(path.with_name('NAME'))}"
        else:
            said, fix = "starts with a dot, which an upload leaves out", f"rm -r {_quoted(path)}"
        yield Fault(f"{what}: {name}: {said}; rename it", fix + then)


def notes(dataset: Dataset, own: Collection[str]) -> list[str]:
    """Say what a user should know before the upload: files that are not the kit's, an owner still to be set.

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
            f"`{OWNER}` and build again"
        )
    return lines


def find_checkout(source: str | Path | None = None) -> Path:
    """Find the checkout: the one given, else the working folder where it is one, else where this file lies.

    Raises:
        InputError: it is none; a part that is missing is named.
    """
    own = Path(__file__).resolve().parents[3]
    candidates = [Path(source)] if source is not None else [Path(), own]
    for folder in candidates:
        if all((folder / mark).exists() for mark in MARKS):
            return folder
    missing = next(mark for mark in MARKS if not (candidates[0] / mark).exists())
    here = candidates[0].resolve()
    raise InputError(f"kaggle: {here} is no checkout of hpa-kit: {missing} is missing; run this in one")


def find_owner(source: Path) -> str:
    """Find the Kaggle user who owns the inference notebook of a checkout: the one place that sets the name.

    Raises:
        Fault: the notebook's metadata are there and name none.
    """
    path = source / "kernel-metadata.json"
    if not path.is_file():
        return OWNER_PLACEHOLDER
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        said = f"kaggle: {path} holds no metadata; delete it and write it anew with `{OWNER}`"
        raise Fault(said, f"rm {_quoted(path)} && {OWNER}")
    owner, slash, _ = str(metadata.get("id")).partition("/")
    if not slash or owner_fault(owner):
        raise Fault(f'kaggle: {path} has no "id": "owner/slug"; set it with `{OWNER}`', OWNER)
    return owner


def slug_fault(slug: str, shortest: int, longest: int = 50) -> str | None:
    """Say what makes a dataset's or notebook's slug unfit, or None."""
    if not _SLUG.fullmatch(slug):
        return f"slug {slug!r} needs lower-case letters and digits with single hyphens between"
    if not shortest <= len(slug) <= longest:
        return f"slug {slug!r} has {len(slug)} characters; needs {shortest} to {longest}"
    return None


def owner_fault(owner: str) -> str | None:
    """Say what makes a Kaggle user's name, as in an address, unfit, or None."""
    if _OWNER.fullmatch(owner):
        return None
    return f"owner {owner!r} needs lower-case letters and digits with single - or _ between"


def slugify(title: str) -> str:
    """Make Kaggle's slug of a title: lower-case letters and digits, single hyphens between words."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"(?<=\d),(?=\d)", "", plain)
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def metadata_faults(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Find every way in which the client, or Kaggle after it, would refuse a dataset's metadata."""
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
