"""A Python environment with what Kaggle's image has, at its versions, and nothing else."""

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

from packaging.requirements import Requirement

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.kaggle.bootstrap import pip_reason
from hpa_kit.kaggle.manifest import normalised
from hpa_kit.kaggle.publish.wheels import PINS, PROJECT, find_unmet, hpacellseg_wheel, read_image, read_pins
from hpa_kit.progress import progress_bar, say

# Gigabytes, and the same whoever installs them, so those of the Python that runs this are looked at instead.
SHARED = ("torch", "torchvision")
GUARD = "hpa_kit_no_network"


def make_environment(
    folder: Path, source: Path, say: Callable[[str], None], wheel: Path | None = None
) -> Path:
    """Make an environment as Kaggle's image is, anew where what it is made from has changed.

    Args:
        folder: of the environment.
        source: the checkout, whose constraints say what the image has.
        say: is told what takes long.
        wheel: of the user's, which needs more of the image.

    Returns:
        Its Python.

    Raises:
        InputError: the kit needs something that neither the image nor ``wheels/`` has; pip cannot install.
    """
    more = _needs(wheel, source)
    packages = sorted({*image_packages(source), *more})
    constraints = source / "constraints" / "kaggle.txt"
    python, key = folder / "bin" / "python", environment_key(source, more)
    ready = folder / "ready"
    if not ready.is_file() or ready.read_text("utf-8") != key:
        say(f"environment {folder.name}: {len(packages)} of the image's packages, with what they need, once")
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], folder)
        _share(folder, _purelib(python))
        _run([str(python), "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check",
              "--constraint", str(constraints), *packages], folder, shown=True)  # fmt: skip
    _write_guard(_purelib(python))
    take_out_wheels(python, source)
    atomic_text(ready, key)
    return python


def environment_key(source: Path, more: Iterable[str] = ()) -> str:
    """Make a text that changes with all that an environment is made from: versions, and links' places.

    Raises:
        InputError: as :func:`image_packages`.
    """
    constraints = (source / "constraints" / "kaggle.txt").read_text("utf-8")
    shared = [f"{name}=={importlib.metadata.version(name)}" for name in SHARED]
    python = [sys.version, sys.base_prefix, *_libraries()]
    made_from = [*python, constraints, *image_packages(source), *sorted(more), *shared]
    made_from += sorted(shared_files(SHARED))
    return hashlib.sha256("\n".join(made_from).encode()).hexdigest()


def take_out_wheels(python: Path, source: Path) -> None:
    """Undo what a notebook has installed: the next one starts in the image again."""
    installed = [*read_pins(source / "wheels" / PINS), PROJECT]
    _run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *installed], python.parents[1])


def own_wheel(path: Path | None, out: Path, source: Path) -> Path | None:
    """Write the wheel of HPA-Cell-Segmentation, of a wheel or checkout, to ``out``; None where none is given.

    Raises:
        InputError: as :func:`~hpa_kit.kaggle.publish.wheels.hpacellseg_wheel`.
    """
    if path is None:
        return None
    name, content = hpacellseg_wheel(path, source / "constraints" / "kaggle.txt")
    out.mkdir(parents=True, exist_ok=True)
    (out / name).write_bytes(content)
    return out / name


def _needs(wheel: Path | None, source: Path) -> list[str]:
    """What a wheel asks for and the image is known to have, but for what is shared."""
    if wheel is None:
        return []
    asked = find_unmet(wheel, wheel.read_bytes(), SHARED)
    image = read_image(source / "constraints" / "kaggle.txt")
    return [name for name in asked if name in image]


def image_packages(source: Path) -> list[str]:
    """List what the kit and its notebooks need of the image, but for what is shared.

    Raises:
        InputError: something is neither in the image nor in ``wheels/``.
    """
    project = tomllib.loads((source / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["notebooks"]]
    image = read_image(source / "constraints" / "kaggle.txt")
    wheels = read_pins(source / "wheels" / PINS)
    names = [normalised(Requirement(one).name) for one in wanted]
    lacking = [name for name in names if name not in image and name not in wheels]
    if lacking:
        raise InputError(
            f"rehearsal: the kit needs {', '.join(lacking)}, which neither constraints/kaggle.txt nor "
            f"wheels/{PINS} has; pin a wheel of it"
        )
    return sorted({name for name in names if name in image and name not in (*SHARED, *wheels)})


def shared_files(projects: Iterable[str]) -> set[str]:
    """List names in site-packages of projects and all they need, but for what the image pins itself."""
    waiting, seen, found = [normalised(name) for name in projects], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name in ("numpy", "pillow"):
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # torch works without it here
        found |= {file.parts[0] for file in distribution.files or ()}
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(normalised(requirement.name))
    return {name for name in found if name not in ("..", "__pycache__") and not name.endswith(".pth")}


def _share(folder: Path, purelib: Path) -> None:
    """Let an environment see torch and what it needs where they lie, and nothing else that lies there."""
    links = folder / "shared"
    links.mkdir()
    for name in shared_files(SHARED):
        for library in _libraries():
            if (Path(library) / name).exists() and not (links / name).exists():
                (links / name).symlink_to(Path(library) / name)
    (purelib / "zz_shared.pth").write_text(f"{links.resolve()}\n", "utf-8")


def _libraries() -> list[str]:
    """Where what is shared lies; an environment of other places links to what may be gone."""
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def _write_guard(purelib: Path) -> None:
    """Put the socket block where each Python of the environment meets it first; it sleeps until named."""
    shutil.copy(Path(__file__).with_name("no_network.py"), purelib / f"{GUARD}.py")
    line = f"import os; os.environ.get('HPA_KIT_NO_NETWORK') and __import__('{GUARD}').block()\n"
    (purelib / f"{GUARD}.pth").write_text(line, "utf-8")


def _purelib(python: Path) -> Path:
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def _run(command: list[str], folder: Path, *, shown: bool = False) -> None:
    """Run a command; ``shown`` counts the packages that pip says it is at."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        progress_bar("rehearsal: fetch", None, "package", quiet=not shown) as bar,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Collecting "):
                bar.update()
            elif line.startswith("Installing "):
                say("rehearsal: fetch: all here, installing")
        if process.wait():
            errors.seek(0)
            reason = pip_reason(errors.read())
            raise InputError(
                f"rehearsal: the environment {folder} cannot be made ({reason}); it takes a network once, "
                "and none afterwards"
            )
