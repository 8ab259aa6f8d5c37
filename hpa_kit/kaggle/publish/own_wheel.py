"""The wheel of HPA-Cell-Segmentation's own package, from where a user keeps it."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from hpa_kit.errors import InputError
from hpa_kit.kaggle.manifest import MANIFEST
from hpa_kit.kaggle.publish.requirements import requirement_fault
from hpa_kit.kaggle.publish.versions import read_versions
from hpa_kit.kaggle.publish.wheels import BROKEN_ZIP, TARGET_PYTHON, parse_wheel, pip_reason, wheel_fault

PROJECT = "hpacellseg"
# What it asks for and the kit's segmenter does not need, with the reason.
NOT_NEEDED = {"pytorch-zoo": "its networks are loaded without it"}
# A wheel keeps times and permissions. The same checkout is to give the same bytes, so both are fixed.
EPOCH = "315532800"  # 1980, the first moment a zip can tell
UMASK = 0o022


def hpacellseg_wheel(path: str | Path, image: str | Path) -> tuple[str, bytes]:
    """Name and bytes of hpacellseg's wheel, checked as the pinned ones are; it has no pin, being the user's.

    Args:
        path: the wheel, or a checkout of HPA-Cell-Segmentation, of which a copy is built.
        image: constraints file with the versions of Kaggle's image.

    Raises:
        InputError: it is neither, cannot be built, is another project's, or does not fit Kaggle's image.
    """
    path = Path(path)
    if path.is_dir():
        with tempfile.TemporaryDirectory(prefix="hpa-kit-wheel-") as folder:
            return _checked(_built(path, Path(folder)), image)
    if not path.is_file():
        raise InputError(f"hpacellseg: {path} is missing; expected its wheel, or a checkout of it")
    return _checked(path, image)


def take_from_bundle(bundle: Path, folder: Path, image: str | Path) -> tuple[Path | None, list[str]]:
    """Copy the wheel of hpacellseg out of a bundle that was built before, to go into the next one too.

    Args:
        bundle: the zip, which may be missing.
        folder: where the wheel is written to.
        image: as for :func:`hpacellseg_wheel`.

    Returns:
        The wheel, or None where there is none that can be kept; lines that say what becomes of it.
    """
    if not bundle.is_file():
        return None, []
    try:
        with zipfile.ZipFile(bundle) as archive:
            hashes = json.loads(archive.read(MANIFEST))["files"]
            name = next((name for name in hashes if name.startswith(f"wheels/{PROJECT}-")), None)
            if name is None:
                return None, []
            content = archive.read(name)
        if hashlib.sha256(content).hexdigest() != hashes[name]:
            raise ValueError(f"{name} is not as it was built")
    except (*BROKEN_ZIP, ValueError, KeyError, TypeError) as error:
        lost = f"a wheel of {PROJECT} that it held is not kept; ./build_dataset.sh --{PROJECT} PATH has it in"
        return None, [f"{bundle} of before was damaged ({error}); {lost}"]
    path = folder / Path(name).name
    path.write_bytes(content)
    try:
        _checked(path, image)
    except InputError as error:
        return None, [f"{path.name} is dropped: {error}"]
    return path, [f"{path.name} is kept from the build before; without it: rm {bundle}, and build again"]


def _checked(path: Path, image: str | Path) -> tuple[str, bytes]:
    wheel = parse_wheel(path)
    if wheel.project != PROJECT:
        raise InputError(f"hpacellseg: {path.name} is the wheel of {wheel.project}; expected {PROJECT}")
    fault = wheel_fault(wheel) or requirement_fault(path, TARGET_PYTHON, read_versions(image))
    if fault:
        raise InputError(f"hpacellseg: {fault}; give another wheel or checkout")
    return path.name, path.read_bytes()


def _built(checkout: Path, folder: Path) -> Path:
    """The wheel of a checkout, built in ``folder``: first without a network, then as pip likes it."""
    if not any((checkout / name).is_file() for name in ("setup.py", "pyproject.toml")):
        raise InputError(f"hpacellseg: {checkout} is no checkout: expected setup.py or pyproject.toml in it")
    copy = folder / "checkout"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "build", "dist", "*.egg-info"))
    for path in copy.rglob("*"):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    own = importlib.util.find_spec("setuptools") is not None
    # Isolated builds fetch what they build with; a setup.py needs no more than setuptools.
    fetched = not own or (checkout / "pyproject.toml").is_file()
    reasons = []
    for isolation in [["--no-build-isolation"]] * own + [[]] * fetched:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check",
                   "--no-deps", *isolation, "--wheel-dir", str(folder), str(copy)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment,
                              umask=UMASK)  # fmt: skip
        if done.returncode == 0:
            return next(folder.glob("*.whl"))
        reasons.append(pip_reason(done.stderr))
    raise InputError(f"hpacellseg: {checkout} cannot be built ({reasons[0]}); give its wheel instead")
