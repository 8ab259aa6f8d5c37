"""Wheels for Kaggle's Python, whatever Python runs here: pinned, fetched, refused where they do not fit."""

import hashlib
import re
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from hpa_kit.errors import InputError
from hpa_kit.kaggle.publish.requirements import requirement_fault
from hpa_kit.kaggle.publish.versions import normalised, read_versions

TARGET_PYTHON = (3, 12)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")
GLIBC = (2, 28)  # the newest manylinux that is taken
PINS = "requirements.txt"
# What zipfile raises for a file that is damaged, or is no zip that anybody needs to read.
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError)


class Wheel(NamedTuple):
    """What a wheel's file name, or an unpacked wheel's ``.dist-info`` folder, says."""

    project: str  # normalised, such as iterative-stratification
    version: str
    pythons: tuple[str, ...]  # such as py3, cp312; empty when unpacked
    abis: tuple[str, ...]
    platforms: tuple[str, ...]
    path: Path


class Pin(NamedTuple):
    """One requirement: its exact version and the sha256 of every file that may serve it."""

    version: str
    hashes: frozenset[str]


def parse_wheel(path: str | Path) -> Wheel:
    """Read a wheel's file name.

    Raises:
        InputError: it is not a wheel's name.
    """
    path = Path(path)
    found = re.fullmatch(r"([^-]+)-([^-]+)(?:-\d[^-]*)?-([^-]+)-([^-]+)-([^-]+)\.whl", path.name)
    if not found:
        raise InputError(
            f"wheels: {path} is not named as a wheel; expected NAME-VERSION-PYTHON-ABI-PLATFORM.whl"
        )
    name, version, *tags = found.groups()
    pythons, abis, platforms = (tuple(tag.split(".")) for tag in tags)
    return Wheel(normalised(name), version, pythons, abis, platforms, path)


def wheel_fault(wheel: Wheel, python: tuple[int, int] = TARGET_PYTHON) -> str | None:
    """Why a wheel does not run on a Python of 64-bit Linux, or None: another Python, ABI or platform.

    The tags follow the packaging specification: ``abi3`` and ``py3`` wheels run on every later Python, others
    on their own only.
    """
    if not any(_runs_on(tag, wheel.abis, python) for tag in wheel.pythons):
        made_for = f"Python {'.'.join(wheel.pythons)}, ABI {'.'.join(wheel.abis)}"
        return f"{wheel.path.name} is for {made_for}; expected Python {python[0]}.{python[1]}"
    if not any(_platform_fits(tag) for tag in wheel.platforms):
        return f"{wheel.path.name} is for {'.'.join(wheel.platforms)}; expected any or {PLATFORMS[0]}"
    return None


def read_pins(path: str | Path) -> dict[str, Pin]:
    """Read ``NAME==VERSION --hash=sha256:…`` lines, by normalised name.

    Raises:
        InputError: the file is missing, or a line is anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"wheels: {path} is missing; it holds the pins and hashes of the wheels to bundle")
    text = re.sub(r"(^|\s)#[^\n]*", r"\1", path.read_text(encoding="utf-8"))
    pins = {}
    for line in filter(str.strip, text.replace("\\\n", " ").splitlines()):
        found = re.fullmatch(r"\s*([\w.-]+)==([\w.+!]+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line)
        if not found:
            raise InputError(f"wheels: {path}: {line.strip()!r}: expected NAME==VERSION --hash=sha256:HEX")
        hashes = frozenset(re.findall(r"sha256:([0-9a-f]{64})", found[3]))
        pins[normalised(found[1])] = Pin(found[2], hashes)
    return pins


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
    """The wheels of a folder, sorted, each one pinned, with its hash, and fit for Kaggle's image.

    Args:
        folder: holds ``requirements.txt`` and the wheels.
        image: constraints file with the versions of Kaggle's image; None leaves requirements unchecked.

    Raises:
        InputError: a wheel is missing, has no pin or another hash, or does not fit.
    """
    folder = Path(folder)
    pins = read_pins(folder / PINS)
    versions = read_versions(image) if image is not None else {}
    wheels = [parse_wheel(path) for path in sorted(folder.glob("*.whl"))]
    for wheel in wheels:
        _check_pin(wheel, pins.get(wheel.project))
        fault = wheel_fault(wheel) or requirement_fault(wheel.path, TARGET_PYTHON, versions)
        if fault:
            raise InputError(f"wheels: {fault}; replace the wheel and its pin")
    missing = pins.keys() - {wheel.project for wheel in wheels}
    if missing:
        raise InputError(f"wheels: {', '.join(sorted(missing))}: no wheel in {folder}")
    return [wheel.path for wheel in wheels]


def find_unpacked(folder: str | Path) -> list[Wheel]:
    """Wheels that an upload has unpacked: each ``.dist-info`` at most two folders down, by its folder."""
    found = []
    for depth in ("", "*/", "*/*/"):
        for info in sorted(Path(folder).glob(f"{depth}*.dist-info")):
            project, _, version = info.name.removesuffix(".dist-info").partition("-")
            found.append(Wheel(normalised(project), version, (), (), (), info.parent))
    return found


def pip_reason(stderr: str) -> str:
    """The last line in which pip says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip said nothing"])[-1].removeprefix("ERROR: ")


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


def _runs_on(tag: str, abis: tuple[str, ...], python: tuple[int, int]) -> bool:
    found = re.fullmatch(r"(py|cp)(\d)(\d*)", tag)
    if not found or int(found[2]) != python[0]:
        return False
    minor = int(found[3] or 0)
    if found[1] == "py":
        return "none" in abis and minor <= python[1]
    if "abi3" in abis and minor <= python[1]:
        return True
    return minor == python[1] and bool({"none", f"cp{python[0]}{python[1]}"} & set(abis))


def _platform_fits(tag: str) -> bool:
    found = re.fullmatch(r"manylinux_(\d+)_(\d+)_x86_64", tag)
    if found:
        return (int(found[1]), int(found[2])) <= GLIBC
    return tag == "any" or re.fullmatch(r"(linux|manylinux(1|2010|2014))_x86_64", tag) is not None
