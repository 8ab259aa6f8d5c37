"""The Kaggle dataset: one zip of ``hpa_kit`` and the wheels the image lacks, the same bytes each time.

Needs the standard library only, so that ``build_dataset.sh`` runs before anything is installed.
"""

import argparse
import json
import shlex
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit import __version__
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, atomic_text
from hpa_kit.kaggle.manifest import MANIFEST, make_manifest
from hpa_kit.kaggle.names import OWNER_PLACEHOLDER, file_fault, owner_fault, slug_fault
from hpa_kit.kaggle.wheels import PINS, fetch_wheels, verified_wheels

DATASET = "hpa-kit"
TITLE = "hpa-kit for HPA single cell classification"
METADATA = "dataset-metadata.json"
ZIP = "hpa-kit.zip"


class Bundle(NamedTuple):
    """A built dataset folder."""

    path: Path  # the zip
    files: int
    size: int  # bytes
    dataset: str  # owner/slug
    create: str  # command of the first upload
    update: str  # command of each later one


def build_bundle(
    out: str | Path = "dist", owner: str | None = None, source: str | Path | None = None
) -> Bundle:
    """Write the dataset's folder, ready for the Kaggle client, and print its size and the commands.

    The zip is stored, not compressed: compressed bytes would depend on the zlib of the machine.

    Args:
        out: folder for ``hpa-kit.zip`` and ``dataset-metadata.json``.
        owner: Kaggle user; None takes the one in the checkout's ``kernel-metadata.json``.
        source: the checkout; None is the one this file is in.

    Raises:
        InputError: a wheel is missing or does not fit, or a name is one that Kaggle refuses.
    """
    out = Path(out)
    source = Path(source) if source is not None else Path(__file__).resolve().parents[2]
    dataset = f"{owner or _owner(source)}/{DATASET}"
    metadata = {"title": TITLE, "id": dataset, "licenses": [{"name": "apache-2.0"}]}
    faults = dataset_faults(metadata)
    if faults:
        raise InputError(f"bundle: {faults[0]}")
    files = _collect(source)
    files[MANIFEST] = make_manifest(files).encode()
    with atomic_path(out / ZIP) as temporary:
        _write_zip(temporary, files)
    atomic_text(out / METADATA, json.dumps(metadata, indent=2) + "\n")
    folder = shlex.quote(str(out))
    bundle = Bundle(
        path=out / ZIP,
        files=len(files),
        size=(out / ZIP).stat().st_size,
        dataset=dataset,
        create=f"kaggle datasets create -p {folder} -r zip",
        update=f"kaggle datasets version -p {folder} -r zip -m {shlex.quote(f'hpa-kit {__version__}')}",
    )
    print(_summary(bundle, sorted(name for name in files if name.endswith(".whl"))))
    return bundle


def dataset_faults(metadata: Mapping[str, Any]) -> list[str]:
    """Every way in which the Kaggle client would refuse a dataset's metadata, one line each."""
    faults = []
    title, id, licences = (metadata.get(key) for key in ("title", "id", "licenses"))
    if not isinstance(title, str) or not 6 <= len(title) <= 50:
        faults.append(f"{METADATA}: title {title!r} needs 6 to 50 characters")
    owner, slash, slug = str(id).partition("/")
    fault = owner_fault(owner) or slug_fault(slug, 6) if slash else "needs the form owner/slug"
    if fault:
        faults.append(f"{METADATA}: id {id!r}: {fault}")
    named = [one for one in licences if isinstance(one, dict)] if isinstance(licences, list) else []
    if len(named) != 1 or not named[0].get("name"):
        faults.append(f'{METADATA}: licenses: expected exactly one, such as [{{"name": "apache-2.0"}}]')
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m hpa_kit.kaggle.bundle``: what ``build_dataset.sh`` runs."""
    parser = argparse.ArgumentParser(prog="build_dataset.sh", description="Build the Kaggle dataset.")
    parser.add_argument(
        "out", nargs="?", type=Path, default=Path("dist"), help="folder to write (default: dist)"
    )
    parser.add_argument("--owner", help="Kaggle user (default: the one in kernel-metadata.json)")
    options = parser.parse_args(arguments)
    try:
        build_bundle(options.out, options.owner)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _owner(source: Path) -> str:
    """The user who owns the inference notebook: the one place where the name is set."""
    path = source / "kernel-metadata.json"
    if not path.is_file():
        return OWNER_PLACEHOLDER
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["id"]).partition("/")[0]
    except (ValueError, KeyError, TypeError):
        raise InputError(f'bundle: {path} has no "id": "owner/slug"; set it, or give --owner') from None


def _collect(source: Path) -> dict[str, bytes]:
    """What goes into the zip: the package as it lies there, the licence, the wheels and their pins."""
    package = source / "hpa_kit"
    if not (source / "wheels" / PINS).is_file() or not package.is_dir():
        raise InputError(
            f"bundle: {source} is no checkout: expected hpa_kit/ and wheels/{PINS}; run it in one"
        )
    fetch_wheels(source / "wheels")
    wheels = verified_wheels(source / "wheels", source / "constraints" / "kaggle.txt")
    code = [path for path in package.rglob("*") if path.is_file() and _belongs(path.relative_to(package))]
    paths = [*code, source / "LICENSE", source / "wheels" / PINS, *wheels]
    names = {path.relative_to(source).as_posix(): path for path in paths}
    faults = list(filter(None, map(file_fault, sorted(names))))
    if faults:
        raise InputError(f"bundle: {faults[0]}")
    return {name: path.read_bytes() for name, path in names.items()}


def _belongs(path: Path) -> bool:
    """Whether a file of the package is part of it: not compiled, cached, or an editor's leftover."""
    leftover = path.name.endswith(("~", ".pyc", ".orig", ".rej"))
    return not leftover and not any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # the permissions below are Unix's, whatever system writes them
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])


def _summary(bundle: Bundle, wheels: Sequence[str]) -> str:
    lines = [f"{bundle.path}: {bundle.files} files, {bundle.size / 1e6:.2f} MB, with {', '.join(wheels)}"]
    others = sorted(path.name for path in bundle.path.parent.iterdir() if path.name not in (ZIP, METADATA))
    if others:
        lines.append(f"{bundle.path.parent} also holds {', '.join(others)}: the client would upload that too")
    if bundle.dataset.startswith(f"{OWNER_PLACEHOLDER}/"):
        lines.append(
            f"{bundle.path.parent / METADATA}: the owner is still {OWNER_PLACEHOLDER!r}; put your Kaggle "
            "name into kernel-metadata.json (id and dataset_sources) and build again"
        )
    return "\n".join([*lines, f"first upload:  {bundle.create}", f"later uploads: {bundle.update}"])


if __name__ == "__main__":
    sys.exit(main())
