"""What a bundle holds: files by sha256, of which build; wheels, as files or unpacked.

Kaggle unpacks what is uploaded as it likes, and an upload may be damaged or old: the manifest lets a notebook
notice. Standard library only.
"""

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.errors import InputError, one_line

MANIFEST = "manifest.json"
# What zipfile raises for a file that is damaged, or is no zip that anybody needs to read.
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError)


class Wheel(NamedTuple):
    """What a wheel's file name, or an unpacked wheel's ``.dist-info`` folder, says."""

    project: str  # normalised, such as iterative-stratification
    version: str
    tags: str  # PYTHON-ABI-PLATFORM, such as py3-none-any; empty when unpacked
    path: Path


def parse_wheel(path: str | Path) -> Wheel:
    """Read a wheel's file name.

    Raises:
        InputError: it is not a wheel's name.
    """
    path = Path(path)
    found = re.fullmatch(r"([^-]+)-([^-]+)(?:-\d[^-]*)?-([^-]+-[^-]+-[^-]+)\.whl", path.name)
    if not found:
        raise InputError(
            f"wheels: {path} is not named as a wheel; expected NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
        )
    return Wheel(normalised(found[1]), found[2], found[3], path)


def find_unpacked(folder: str | Path) -> list[Wheel]:
    """Find wheels that an upload has unpacked: each ``.dist-info``, two folders down at most."""
    found = []
    for depth in ("", "*/", "*/*/"):
        for info in sorted(Path(folder).glob(f"{depth}*.dist-info")):
            project, _, version = info.name.removesuffix(".dist-info").partition("-")
            found.append(Wheel(normalised(project), version, "", info.parent))
    return found


def normalised(name: str) -> str:
    """Write a project's name as package indexes compare it: lower case, single hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def build_id(hashes: Mapping[str, str]) -> str:
    """Name a build: 12 digits of the sha256 over the lines that ``sha256sum`` prints of its files.

    Args:
        hashes: sha256 by relative path.
    """
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def describe_build(manifest: Mapping[str, Any]) -> str:
    """Say a build in words, such as ``build 0123456789ab, commit 0123456789ab, clean``."""
    words = [f"build {manifest['build']}"]
    if "commit" in manifest:
        words += [f"commit {manifest['commit'][:12]}", "clean" if manifest.get("clean") else "with changes"]
    return ", ".join(words)


def parse_manifest(content: bytes) -> dict[str, Any]:
    """Read a manifest's values; its build is worked out where an older kit did not write it.

    Raises:
        ValueError: it cannot be read, or does not name the files.
    """
    try:
        manifest: dict[str, Any] = json.loads(content)
        manifest = {"build": build_id(manifest["files"]), **manifest}
        describe_build(manifest)
        return manifest
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{MANIFEST}: cannot be read ({one_line(error)})") from None


def read_manifest(root: str | Path) -> dict[str, Any] | None:
    """Read the manifest of a mounted bundle; None where there is none.

    Raises:
        ValueError: as for :func:`parse_manifest`.
    """
    path = Path(root) / MANIFEST
    return parse_manifest(path.read_bytes()) if path.is_file() else None


def check_manifest(root: str | Path) -> list[str] | None:
    """Say what of a mounted bundle is not as it was built, one line each; None where there is no manifest.

    A wheel that Kaggle has unpacked is as good as the file. Files that the manifest does not list are
    nobody's business.

    Args:
        root: the folder that holds ``hpa_kit/`` and ``manifest.json``.
    """
    try:
        manifest = read_manifest(root)
        return None if manifest is None else list(_faults(Path(root), manifest))
    except ValueError as error:
        return [str(error)]


def _faults(root: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    files: Mapping[str, str] = manifest["files"]
    if manifest["build"] != build_id(files):
        yield f"{MANIFEST}: says build {manifest['build']}, its files make {build_id(files)}"
    unpacked = {(wheel.project, wheel.version) for wheel in find_unpacked(root / "wheels")}
    for name, expected in files.items():
        path = root / name
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                yield f"{name}: not as it was built"
        elif not (name.endswith(".whl") and parse_wheel(path.name)[:2] in unpacked):
            yield f"{name}: missing"
