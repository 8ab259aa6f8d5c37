"""What a notebook does first: check the mounted bundle and install, offline, what cannot be imported."""

import importlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

import hpa_kit
from hpa_kit.errors import InputError
from hpa_kit.kaggle.manifest import check_manifest, describe_build, read_manifest
from hpa_kit.kaggle.versions import not_older
from hpa_kit.kaggle.wheels import BROKEN_ZIP, Wheel, find_unpacked, parse_wheel, pip_reason, wheel_fault

# Bytes that a wheel may unpack to: the largest there are, with all of a GPU's libraries, take less.
MOST_UNPACKED = 4 * 2**30


def bootstrap(root: str | Path | None = None) -> None:
    """Check the bundle against its manifest, say its build, install its wheels, print one line per thing.

    From then on the notebook also shows what the commands say of their course.

    Nothing here stops the notebook: what fails is said, and the import that needs it will say so again.

    Args:
        root: folder that holds ``hpa_kit/``, ``wheels/`` and ``manifest.json``; None is the one that
            ``hpa_kit`` was imported from.
    """
    root = Path(root) if root is not None else Path(hpa_kit.__file__).resolve().parents[1]
    faults = check_manifest(root)
    state = "no manifest, a checkout" if faults is None else "as it was built"
    build = ""
    with suppress(ValueError):  # of a manifest that cannot be read, which is among the faults
        manifest = read_manifest(root)
        build = f", {describe_build(manifest)}," if manifest else ""
    lines = [f"hpa_kit {hpa_kit.__version__}{build} from {root}: {state if not faults else 'DAMAGED'}"]
    lines += [f"  {fault}; upload the bundle again" for fault in faults or ()]
    lines += install_wheels(root / "wheels")
    print("\n".join(lines))
    try:
        from hpa_kit.progress import show_messages
    except ImportError as error:  # of a package that is neither on the image nor among the wheels
        print(f"  messages of the commands are not shown: {error}")
    else:
        show_messages("stdout")


def install_wheels(folder: str | Path, target: str | Path | None = None) -> list[str]:
    """Make the wheels of a folder importable, those only that are not yet, without a network.

    A wheel file goes through pip (``--no-index --no-deps``, so that nothing of the image is replaced); where
    pip cannot, a wheel of pure Python is unpacked to a temporary folder. A wheel that Kaggle has unpacked
    goes on ``sys.path`` as it lies.

    Args:
        folder: holds wheels, or folders of unpacked ones; one that is missing has none.
        target: folder to install to, which goes on ``sys.path``; None is where pip installs.

    Returns:
        One line per wheel: what was done, or why it was left out.
    """
    folder = Path(folder)
    lines = []
    for path in sorted(folder.glob("*.whl")):
        if path.is_file():
            lines.append(_install_file(path, target))
    done = {line.split()[0] for line in lines}
    for wheel in find_unpacked(folder):
        if wheel.project not in done:
            modules = _modules(entry.name for entry in wheel.path.iterdir())
            lines.append(_already(wheel, modules) or _put_on_path(wheel, wheel.path, "used as it lies"))
    return lines


def _install_file(path: Path, target: str | Path | None) -> str:
    try:
        wheel, modules = _open(path)
    except InputError as error:
        return f"{path.name} left out: {error}"
    already = _already(wheel, modules)
    if already:
        return already
    fault = wheel_fault(wheel, sys.version_info[:2])
    reason = fault or _pip_install(path, target)
    if reason is None:
        importlib.invalidate_caches()
        return f"{wheel.project} {wheel.version} installed"
    if fault or wheel.platforms != ("any",):
        return f"{wheel.project} {wheel.version} left out: {reason}"
    unpacked = Path(tempfile.mkdtemp(prefix="hpa-kit-wheel-"))
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(unpacked)
    except BROKEN_ZIP as error:
        shutil.rmtree(unpacked, ignore_errors=True)
        return f"{path.name} left out: it cannot be unpacked ({error}); upload the bundle again"
    return _put_on_path(wheel, unpacked, f"unpacked to {unpacked}, as pip failed ({reason})")


def _open(path: Path) -> tuple[Wheel, list[str]]:
    """What a wheel file is, and its top-level modules."""
    wheel = parse_wheel(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except BROKEN_ZIP:
        raise InputError(f"{path} is damaged; upload the bundle again") from None
    size = sum(member.file_size for member in members)
    if size > MOST_UNPACKED:
        raise InputError(f"{path} unpacks to {size} bytes; expected {MOST_UNPACKED} at most")
    outside = [member.filename for member in members if not _stays_inside(member.filename)]
    if outside:
        raise InputError(f"{path} would write outside of its folder: {outside[0]!r}; nothing was written")
    return wheel, _modules(member.filename for member in members)


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return not path.is_absolute() and ".." not in path.parts and ":" not in name.partition("/")[0]


def _already(wheel: Wheel, modules: Iterable[str]) -> str | None:
    """A line that says a wheel is not needed, or None."""
    name = f"{wheel.project} {wheel.version}"
    try:
        have = importlib.metadata.version(wheel.project)
    except importlib.metadata.PackageNotFoundError:
        modules = list(modules)
        found = modules and all(importlib.util.find_spec(module) is not None for module in modules)
        return f"{name} not needed: it can be imported" if found else None
    return f"{name} not needed: {have} is there" if not_older(have, wheel.version) else None


def _pip_install(path: Path, target: str | Path | None) -> str | None:
    """Install one wheel; None, or pip's reason for not doing so."""
    where = [] if target is None else ["--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index",
               "--no-deps", *where, str(path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return pip_reason(done.stderr)
    if target is not None and str(target) not in sys.path:
        sys.path.insert(0, str(target))
    return None


def _put_on_path(wheel: Wheel, folder: Path, how: str) -> str:
    # In front, so that it wins over an older one; what else such a folder holds (a package `tests`) is ours
    # never to import.
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return f"{wheel.project} {wheel.version} {how}"


def _modules(names: Iterable[str]) -> list[str]:
    """Top-level modules among a wheel's entries, without the tests that some install beside their package."""
    tops = {name.partition("/")[0] for name in names}
    modules = {top.partition(".")[0] for top in tops if not top.endswith((".dist-info", ".data", ".pth"))}
    return sorted(name for name in modules - {"tests", "test"} if name.isidentifier())
