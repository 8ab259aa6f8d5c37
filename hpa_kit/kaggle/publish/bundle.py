"""The Kaggle dataset: one zip of ``hpa_kit`` and the wheels the image lacks, the same bytes each time.

Needs the standard library only, so that ``build_dataset.sh`` runs before anything is installed.
"""

import hashlib
import json
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from hpa_kit import __version__
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, atomic_text
from hpa_kit.kaggle.manifest import MANIFEST, build_id, describe_build, parse_wheel
from hpa_kit.kaggle.publish.dataset import (
    BUILD,
    KIT_SLUG,
    Fault,
    find_owner,
    name_faults,
    notes,
    owner_fault,
    write_dataset,
)
from hpa_kit.kaggle.publish.wheels import (
    NOT_NEEDED,
    PINS,
    PROJECT,
    TARGET_PYTHON,
    comparison_missing,
    fetch_wheels,
    find_unmet,
    hpacellseg_wheel,
    read_image,
    take_from_bundle,
    verified_wheels,
)

TITLE = "hpa-kit for HPA single cell classification"
LICENCE = "apache-2.0"
ZIP = "hpa-kit.zip"
NEEDED = ("hpa_kit/__init__.py", "LICENSE", f"wheels/{PINS}", "constraints/kaggle.txt")
# Of this room, which needs a checkout around it, only what packs members is of use on Kaggle.
AT_HOME = ("hpa_kit", "kaggle", "publish")
TRAVELS = (("__init__.py",), ("dataset.py",), ("weights.py",), ("cell_weights.py",))
# Beside the zip under another name than in it: where Kaggle unpacks the zip, both would be one file.
OUTER_MANIFEST = "hpa-kit-manifest.json"


class Bundle(NamedTuple):
    """A built dataset folder."""

    path: Path  # the zip
    build: str
    files: int
    size: int  # bytes
    dataset: str  # owner/slug
    create: str  # command of the first upload
    update: str  # command of each later one


def build_bundle(
    out: str | Path = "dist",
    owner: str | None = None,
    source: str | Path | None = None,
    hpacellseg: str | Path | None = None,
) -> Bundle:
    """Write the dataset's folder, ready for the Kaggle client, and print its size and the commands.

    The zip is stored, not compressed: compressed bytes would depend on the zlib of the machine.

    Args:
        out: folder for ``hpa-kit.zip``, its manifest, ``README.md`` and ``dataset-metadata.json``.
        owner: Kaggle user; None takes the one in the checkout's ``kernel-metadata.json``.
        source: the checkout; None is the one this file is in.
        hpacellseg: wheel or checkout of HPA-Cell-Segmentation, whose wheel is to go in too; None keeps the
            one that ``out`` has.

    Raises:
        InputError: a wheel is missing or does not fit, or a name is one that Kaggle refuses.
    """
    out = Path(out)
    source = _checkout(source)
    owner = owner or find_owner(source)
    fault = owner_fault(owner)
    if fault:
        raise InputError(f"bundle: {fault}")
    image = source / "constraints" / "kaggle.txt"
    with tempfile.TemporaryDirectory(prefix="hpa-kit-wheel-") as folder:
        kept, said = take_from_bundle(out / ZIP, Path(folder), image) if hpacellseg is None else (None, [])
        files = bundle_files(source, hpacellseg if kept is None else kept)
    with atomic_path(out / ZIP) as temporary:
        _write_zip(temporary, files)
    atomic_text(out / OUTER_MANIFEST, files[MANIFEST].decode())
    manifest = json.loads(files[MANIFEST])
    dataset = write_dataset(out, owner, KIT_SLUG, TITLE, LICENCE, _card(manifest))
    size = (out / ZIP).stat().st_size
    create = dataset.create()
    update = dataset.update(f"hpa-kit {__version__} build {manifest['build']}")
    wheels = sorted(Path(name).name for name in files if name.endswith(".whl"))
    lines = [
        f"{out / ZIP}: {len(files)} files, {size / 1e6:.2f} MB, with {', '.join(wheels) or 'no wheels'}",
        describe_build(manifest),
        *said,
        *_unmet(files, image),
        *notes(dataset, (ZIP, OUTER_MANIFEST)),
        f"first upload:  {create}",
        f"later uploads: {update}",
    ]
    print("\n".join(lines))
    return Bundle(out / ZIP, manifest["build"], len(files), size, dataset.id, create, update)


def bundle_files(
    source: str | Path | None = None, hpacellseg: str | Path | None = None, fetch: bool = True
) -> dict[str, bytes]:
    """Collect what goes into the zip, by relative path: the package, licence, wheels, manifest.

    Args:
        source, hpacellseg: as for :func:`build_bundle`.
        fetch: download the pinned wheels that are not there.

    Raises:
        Fault: the checkout lacks something, a wheel is missing or does not fit, or Kaggle refuses a name.
        InputError: a wheel cannot be fetched; the one of hpacellseg cannot be used.
    """
    source = _checkout(source)
    missing = next((name for name in NEEDED if not (source / name).is_file()), None)
    if missing:
        raise Fault(
            f"bundle: {source} is no checkout: {missing} is missing; run it in one, or fetch the file again",
            f"git checkout -- {missing}",
        )
    image = source / "constraints" / "kaggle.txt"
    if fetch:
        fetch_wheels(source / "wheels")
    wheels = verified_wheels(source / "wheels", image)
    code = (path.relative_to(source).as_posix() for path in (source / "hpa_kit").rglob("*") if path.is_file())
    others = [f"wheels/{PINS}", *(f"wheels/{path.name}" for path in wheels)]
    names = [*filter(_belongs, code), "LICENSE", *others]
    files = {name: (source / name).read_bytes() for name in names}
    if hpacellseg is not None:
        name, content = hpacellseg_wheel(hpacellseg, image)
        files[f"wheels/{name}"] = content
    for fault in name_faults(source, sorted(files), "bundle", then=f" && {BUILD}"):
        raise fault
    return {**files, MANIFEST: make_manifest(files, git_origin(source)).encode()}


def _checkout(source: str | Path | None) -> Path:
    return Path(source) if source is not None else Path(__file__).resolve().parents[3]


def make_manifest(files: Mapping[str, bytes], origin: Mapping[str, Any] | None = None) -> str:
    """Write the manifest of a bundle as JSON text: version, build, origin, target Python, each file's sha256.

    Args:
        files: relative paths and contents.
        origin: what :func:`git_origin` says of them.
    """
    wheels = sorted(Path(name).name for name in files if name.endswith(".whl"))
    hashes = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    content = {
        "name": "hpa-kit",
        "version": __version__,
        "build": build_id(hashes),
        **(origin or {}),
        "target_python": ".".join(map(str, TARGET_PYTHON)),
        "wheels": {wheel.project: wheel.version for wheel in map(parse_wheel, wheels)},
        "files": hashes,
    }
    return json.dumps(content, indent=1) + "\n"


def git_origin(source: Path) -> dict[str, Any]:
    """Tell the commit that a checkout comes from, and whether what goes into a bundle is as it has it.

    Args:
        source: the checkout.

    Returns:
        ``commit``, 40 digits, and ``clean``; nothing where git is missing or does not know the files.
    """
    # Without variables of a git that may have called this, as a hook does.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(source), *words],
            env=variables, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    names = ("hpa_kit", "LICENSE", f"wheels/{PINS}")
    try:
        git("ls-files", "--error-unmatch", "--", "hpa_kit/__init__.py")
        commit = git("rev-parse", "--verify", "HEAD").strip()
        changed = git("diff", "--name-only", "--relative", "--no-renames", "-z", "HEAD", "--", *names)
        changed += git("ls-files", "--others", "--exclude-standard", "-z", "--", *names)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "clean": not any(map(_belongs, filter(None, changed.split("\0"))))}


def _belongs(name: str) -> bool:
    """Whether a file of the checkout goes in: nothing compiled, of an editor, or for home only."""
    path = PurePosixPath(name)
    if path.parts[:3] == AT_HOME:
        return path.parts[3:] in TRAVELS
    leftover = path.name.endswith(("~", ".pyc", ".orig", ".rej"))
    return not leftover and not any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # the permissions below are Unix's, whatever system writes them
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])


def _card(manifest: Mapping[str, Any]) -> str:
    """What the dataset's page says, as Markdown."""
    wheels = ", ".join(f"{name} {version}" for name, version in manifest["wheels"].items())
    return f"""# hpa_kit {manifest["version"]}

{describe_build(manifest).capitalize()}.

The package `hpa_kit` for the competition *Human Protein Atlas - Single Cell Classification*: label,
confidence and mask for every cell, offline. Beside the code there are the wheels that Kaggle's image lacks
({wheels or "none"}), for Python {manifest["target_python"]}. There are no weights in it.

## Use

Attach this dataset and the competition to the kit's training or inference notebook. The first cell finds the
package, checks every file against `manifest.json`, says the build, and installs the wheels without a network.
One build at a time: with two attached the notebooks stop and name both.

## Licence

Apache-2.0, see `LICENSE`. The wheels come under licences of their own, which they hold.
"""


def _unmet(files: Mapping[str, bytes], image: Path) -> list[str]:
    """What wheels ask for that neither the image nor another wheel is known to bring, one line each."""
    wheels = [Path(name) for name in files if name.endswith(".whl")]
    if wheels and comparison_missing():
        return ["wheels are not compared with Kaggle's image, as packaging is missing here: make .venv"]
    there = {*read_image(image), *(parse_wheel(path).project for path in wheels)}
    lines = []
    for path in wheels:
        unmet = find_unmet(path, files[path.as_posix()], there)
        own = parse_wheel(path).project == PROJECT
        for name in sorted(NOT_NEEDED.keys() & set(unmet)) if own else ():
            lines.append(f"{path.name} asks for {name}, but works without: {NOT_NEEDED[name]}")
            unmet.remove(name)
        if unmet:
            lines.append(
                f"{path.name} asks for {', '.join(unmet)}, which neither {image.name} nor another wheel "
                "names: pin it in wheels/, unless it works without"
            )
    return lines
