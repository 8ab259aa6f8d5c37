"""What a bundle holds, by sha256, and of which build it is: damaged and old uploads are noticed on Kaggle."""

import hashlib
import json
import os
import subprocess
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpa_kit import __version__
from hpa_kit.kaggle.publish.wheels import TARGET_PYTHON, find_unpacked, parse_wheel

MANIFEST = "manifest.json"


def make_manifest(files: Mapping[str, bytes], origin: Mapping[str, Any] | None = None) -> str:
    """The manifest of a bundle as JSON text: version, build, origin, target Python and each file's sha256.

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


def build_id(hashes: Mapping[str, str]) -> str:
    """The name of a build: 12 digits of the sha256 over the lines that ``sha256sum`` prints of its files.

    Args:
        hashes: sha256 by relative path.
    """
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def git_origin(source: Path, names: Collection[str]) -> dict[str, Any]:
    """The commit that a checkout's files come from, and whether they are as it has them.

    Args:
        source: the checkout.
        names: relative paths in it; the first is one that the commit has to know.

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
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", next(iter(names)))
        commit = git("rev-parse", "--verify", "HEAD")
        return {"commit": commit, "clean": not git("status", "--porcelain", "--", *names)}
    except (OSError, subprocess.CalledProcessError):
        return {}


def describe_build(manifest: Mapping[str, Any]) -> str:
    """A build in words, such as ``build 0123456789ab, commit 0123456789ab, clean``."""
    words = [f"build {manifest['build']}"]
    if "commit" in manifest:
        words += [f"commit {manifest['commit'][:12]}", "clean" if manifest.get("clean") else "with changes"]
    return ", ".join(words)


def read_manifest(root: str | Path) -> dict[str, Any] | None:
    """The manifest of a mounted bundle; None where there is none.

    Raises:
        ValueError: as for :func:`parse_manifest`.
    """
    path = Path(root) / MANIFEST
    return parse_manifest(path.read_bytes()) if path.is_file() else None


def parse_manifest(content: bytes) -> dict[str, Any]:
    """A manifest's values; its build is worked out where an older kit did not write it.

    Raises:
        ValueError: it cannot be read, or does not name the files.
    """
    try:
        manifest: dict[str, Any] = json.loads(content)
        manifest = {"build": build_id(manifest["files"]), **manifest}
        describe_build(manifest)
        return manifest
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{MANIFEST}: cannot be read ({' '.join(str(error).split())})") from None


def check_manifest(root: str | Path) -> list[str] | None:
    """What of a mounted bundle is not as it was built, one line each; None where there is no manifest.

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
