"""Wheels for the bundle: what Kaggle's image lacks, pinned and fetched, and the user's own of hpacellseg.

The ``packaging`` package compares wheels with the image. Any Python builds a bundle, also one that lacks it:
then wheels are held against their pins only, and :func:`comparison_missing` says so.
"""

import email
import hashlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.kaggle.bootstrap import pip_reason
from hpa_kit.kaggle.manifest import BROKEN_ZIP, MANIFEST, Wheel, normalised, parse_wheel
from hpa_kit.kaggle.publish.dataset import BUILD, Fault

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.tags import Tag

PINS = "requirements.txt"
TARGET_PYTHON = (3, 12)
GLIBC_MINOR = 28  # of glibc 2, the newest that a wheel may ask for
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")  # for which wheels are fetched
# The image as markers of requirements see it, asked for no extras.
IMAGE = {
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "python_version": ".".join(map(str, TARGET_PYTHON)),
    "python_full_version": ".".join(map(str, (*TARGET_PYTHON, 0))),
    "extra": "",
}
MAX_METADATA = 2**24  # bytes

PROJECT = "hpacellseg"
# What it asks for and the kit's segmenter does not need, with the reason.
NOT_NEEDED = {"pytorch-zoo": "its networks are loaded without it"}
# A wheel keeps times and permissions. The same checkout is to give the same bytes, so both are fixed.
EPOCH = "315532800"  # 1980, the first moment a zip can tell
UMASK = 0o022


class Pin(NamedTuple):
    """One requirement: its exact version and the sha256 of every file that may serve it."""

    version: str
    hashes: frozenset[str]


def read_pins(path: str | Path) -> dict[str, Pin]:
    """Read ``NAME==VERSION --hash=sha256:…`` lines, by normalised name.

    Raises:
        Fault: the file is missing, or a line is anything else.
    """
    path = Path(path)
    again = f"git checkout -- wheels/{PINS}"
    if not path.is_file():
        raise Fault(f"wheels: {path} is missing; it holds the pins and hashes of the wheels to bundle", again)
    text = re.sub(r"(^|\s)#[^\n]*", r"\1", path.read_text(encoding="utf-8"))
    pins = {}
    for line in filter(str.strip, text.replace("\\\n", " ").splitlines()):
        found = re.fullmatch(r"\s*([\w.-]+)==([\w.+!]+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line)
        if not found:
            raise Fault(f"wheels: {path}: {line.strip()!r}: expected NAME==VERSION --hash=sha256:HEX", again)
        hashes = frozenset(re.findall(r"sha256:([0-9a-f]{64})", found[3]))
        pins[normalised(found[1])] = Pin(found[2], hashes)
    return pins


def read_image(path: str | Path) -> dict[str, str | None]:
    """Read the packages of Kaggle's image off a constraints file: {normalised name: version, where pinned}.

    Raises:
        InputError: the file is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"wheels: {path} is missing; it holds the versions of Kaggle's image")
    lines = path.read_text(encoding="utf-8").splitlines()
    pattern = r"([A-Za-z0-9][\w.-]*)(?:==([\w.+!]+?)(?:\.\*)?\s*(?:;|#|$))?"
    found = (re.match(pattern, line) for line in lines)
    return {normalised(one[1]): one[2] for one in found if one}


def fetch_wheels(folder: str | Path) -> None:
    """Download the pinned wheels that a folder lacks, for Kaggle's Python; without a lack, touch no network.

    Args:
        folder: holds ``requirements.txt``; the wheels come beside it.

    Raises:
        InputError: pip could not fetch one, or found only wheels with another hash.
    """
    folder = Path(folder)
    pins = read_pins(folder / PINS)
    here = {(wheel.project, wheel.version) for wheel in map(parse_wheel, folder.glob("*.whl"))}
    lacking = [name for name, pin in pins.items() if (name, pin.version) not in here]
    if not lacking:
        return
    target = "".join(map(str, TARGET_PYTHON))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--require-hashes", "--requirement", str(folder / PINS),
               "--dest", str(folder), "--python-version", target, "--implementation", "cp",
               *[word for abi in (f"cp{target}", "abi3", "none") for word in ("--abi", abi)],
               *[word for platform in PLATFORMS for word in ("--platform", platform)]]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"wheels: {', '.join(lacking)} could not be fetched ({pip_reason(done.stderr)}); with a network "
            f"run this again, without one put the wheel into {folder}"
        )


def verified_wheels(folder: str | Path, image: str | Path | None = None) -> list[Path]:
    """List the wheels of a folder, sorted, each one pinned, with its hash, and fit for Kaggle's image.

    Args:
        folder: holds ``requirements.txt`` and the wheels.
        image: constraints file with the versions of Kaggle's image; None leaves requirements unchecked.

    Raises:
        Fault: a wheel is missing, has no pin or another hash, or does not fit.
    """
    folder = Path(folder)
    pins = read_pins(folder / PINS)
    versions = read_image(image) if image is not None else {}
    found = set()
    wheels = sorted(folder.glob("*.whl"))
    for path in wheels:
        again = f"rm {shlex.quote(str(path))} && {BUILD}"
        other = f"pin another in wheels/{PINS}, {again}"
        try:
            wheel = parse_wheel(path)
            _check_pin(wheel, pins.get(wheel.project))
        except InputError as error:
            raise Fault(str(error), again) from None
        try:
            misfit = find_misfit(path, versions)
        except InputError as error:
            raise Fault(str(error), other) from None
        if misfit:
            raise Fault(f"wheels: {misfit}; replace the wheel and its pin", other)
        found.add(wheel.project)
    missing = pins.keys() - found
    if missing:
        raise Fault(f"wheels: {', '.join(sorted(missing))}: no wheel in {folder}", BUILD)
    return wheels


def find_misfit(path: Path, versions: Mapping[str, str | None]) -> str | None:
    """Say why a wheel does not go with Kaggle's image, or None: another Python or platform, other versions.

    Without the ``packaging`` package only a damaged wheel is found.

    Args:
        path: the wheel.
        versions: the image's packages, see :func:`read_image`; what has no version there is not judged.

    Raises:
        InputError: the file is no wheel, or asks for something that cannot be read.
    """
    if comparison_missing():
        _metadata(path, path.read_bytes())
        return None
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.utils import parse_wheel_filename

    try:
        tags = parse_wheel_filename(path.name)[3]
    except ValueError as error:
        raise InputError(f"wheels: {path} is not named as a wheel: {error}") from None
    have = IMAGE["python_version"]
    if not tags & _image_tags():
        tag = "-".join(path.stem.split("-")[-3:])
        return f"{path.name} is for {tag}; expected py3-none-any, or Python {have} on {PLATFORMS[0]}"
    metadata = _metadata(path, path.read_bytes())
    try:
        wanted = SpecifierSet(metadata.get("Requires-Python", ""))
    except InvalidSpecifier:  # such as >=3.6.*, which pip passes over too
        wanted = SpecifierSet()
    if not wanted.contains(IMAGE["python_full_version"]):
        return f"{path.name} needs Python {metadata['Requires-Python']}; Kaggle has {have}"
    for one in _requirements(path, metadata):
        found = versions.get(normalised(one.name))
        if found and not one.specifier.contains(found, prereleases=True):
            return f"{path.name} needs {normalised(one.name)}{one.specifier}; Kaggle's image has {found}"
    return None


def find_unmet(path: Path, content: bytes, there: Collection[str]) -> list[str]:
    """List the projects that a wheel, given by name and bytes, asks for and that are not there.

    Without the ``packaging`` package nobody knows, and the list is empty.

    Args:
        path: to name it by.
        content: the wheel.
        there: normalised names.

    Raises:
        InputError: the content is no wheel, or asks for something that cannot be read.
    """
    if comparison_missing():
        return []
    asked = _requirements(path, _metadata(path, content))
    return sorted({normalised(one.name) for one in asked} - set(there))


def comparison_missing() -> bool:
    """Whether wheels cannot be compared with Kaggle's image here, as the ``packaging`` package is missing."""
    return importlib.util.find_spec("packaging") is None


def hpacellseg_wheel(path: str | Path, image: str | Path) -> tuple[str, bytes]:
    """Give name and bytes of hpacellseg's wheel, checked as pinned ones are; it has no pin, being the user's.

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
        lost = f"a wheel of {PROJECT} that it held is not kept; {BUILD} --{PROJECT} PATH has it in"
        return None, [f"{bundle} of before was damaged ({error}); {lost}"]
    path = folder / Path(name).name
    path.write_bytes(content)
    try:
        _checked(path, image)
    except InputError as error:
        return None, [f"{path.name} is dropped: {error}"]
    return path, [f"{path.name} is kept from the build before; without it: rm {bundle}, and build again"]


def _check_pin(wheel: Wheel, pin: Pin | None) -> None:
    path = wheel.path
    if pin is None or pin.version != wheel.version:
        expected = "no pin of it" if pin is None else f"version {pin.version}"
        raise InputError(f"wheels: {path} is not pinned: {PINS} has {expected}; remove it, or pin it")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found not in pin.hashes:
        raise InputError(
            f"wheels: {path} has sha256 {found}, not the one in {PINS}; remove it and fetch again"
        )


def _metadata(path: Path, content: bytes) -> Message:
    """The header fields of a wheel's METADATA."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            with archive.open(name) as member:
                return email.message_from_string(member.read(MAX_METADATA).decode("utf-8"))
    except (*BROKEN_ZIP, ValueError, StopIteration):
        raise InputError(f"wheels: {path} is no wheel, or a damaged one; remove it and fetch again") from None


def _requirements(path: Path, metadata: Message) -> "list[Requirement]":
    """What a wheel asks for on Kaggle's image: nothing of extras, or meant for other machines."""
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for text in metadata.get_all("Requires-Dist", []):
        try:
            one = Requirement(text)
            holds = one.marker is None or one.marker.evaluate(IMAGE)
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"wheels: {text!r}: {reason} (in {path}); take another wheel") from None
        if holds:
            found.append(one)
    return found


def _image_tags() -> "set[Tag]":
    """The tags of wheels that run in Kaggle's image."""
    from packaging.tags import compatible_tags, cpython_tags

    names = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 4, -1)]
    names += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    cpython = "cp{}{}".format(*TARGET_PYTHON)
    any_platform = [*names, "any"]
    return {
        *cpython_tags(TARGET_PYTHON, [cpython], any_platform),
        *compatible_tags(TARGET_PYTHON, cpython, names),
    }


def _checked(path: Path, image: str | Path) -> tuple[str, bytes]:
    project = parse_wheel(path).project
    if project != PROJECT:
        raise InputError(f"hpacellseg: {path.name} is the wheel of {project}; expected {PROJECT}")
    misfit = find_misfit(path, read_image(image))
    if misfit:
        raise InputError(f"hpacellseg: {misfit}; give another wheel or checkout")
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
