"""A Python environment with what Kaggle's image has, at its versions, and nothing else."""

import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from pathlib import Path

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.kaggle.versions import normalised, read_image
from hpa_kit.kaggle.wheels import PINS, pip_reason, read_pins

# Gigabytes, and the same whoever installs them, so those of the Python that runs this are looked at instead.
SHARED = ("torch", "torchvision")
GUARD = "hpa_kit_no_network"


def make_environment(folder: Path, source: Path) -> Path:
    """An environment as Kaggle's image is, made anew where what it is made from has changed.

    Args:
        folder: of the environment.
        source: the checkout, whose constraints say what the image has.

    Returns:
        Its Python.

    Raises:
        InputError: the kit needs something that neither the image nor ``wheels/`` has; pip cannot install.
    """
    packages = image_packages(source)
    constraints = source / "constraints" / "kaggle.txt"
    python, key = folder / "bin" / "python", environment_key(source)
    ready = folder / "ready"
    if not ready.is_file() or ready.read_text("utf-8") != key:
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], folder)
        _share(folder, _purelib(python))
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint",
              str(constraints), *packages], folder)  # fmt: skip
    _write_guard(_purelib(python))
    take_out_wheels(python, source)
    atomic_text(ready, key)
    return python


def environment_key(source: Path) -> str:
    """A text that changes where anything does that an environment is made from: versions, and links' places.

    Raises:
        InputError: as :func:`image_packages`.
    """
    constraints = (source / "constraints" / "kaggle.txt").read_text("utf-8")
    shared = [f"{name}=={importlib.metadata.version(name)}" for name in SHARED]
    python = [sys.version, sys.base_prefix, *_libraries()]
    made_from = [*python, constraints, *image_packages(source), *shared, *sorted(shared_files(SHARED))]
    return hashlib.sha256("\n".join(made_from).encode()).hexdigest()


def take_out_wheels(python: Path, source: Path) -> None:
    """Undo what a notebook has installed: the next one starts in the image again."""
    pins = list(read_pins(source / "wheels" / PINS))
    if pins:
        _run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *pins], python.parents[1])


def image_packages(source: Path) -> list[str]:
    """What the kit and its notebooks need of the image, but for what is shared.

    Raises:
        InputError: something is neither in the image nor in ``wheels/``.
    """
    project = tomllib.loads((source / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["notebooks"]]
    image = read_image(source / "constraints" / "kaggle.txt")
    wheels = read_pins(source / "wheels" / PINS)
    names = [normalised(re.match(r"[\w.-]+", one)[0]) for one in wanted]  # type: ignore[index]
    lacking = [name for name in names if name not in image and name not in wheels]
    if lacking:
        raise InputError(
            f"rehearsal: the kit needs {', '.join(lacking)}, which neither constraints/kaggle.txt nor "
            f"wheels/{PINS} has; pin a wheel of it"
        )
    return sorted({name for name in names if name in image and name not in (*SHARED, *wheels)})


def shared_files(projects: Iterable[str]) -> set[str]:
    """Names in site-packages of projects and of all they need, but for what the image pins itself."""
    waiting, seen, found = [normalised(name) for name in projects], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name in ("numpy", "pillow"):
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system than this one
        found |= {file.parts[0] for file in distribution.files or ()}
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                waiting.append(normalised(re.match(r"[\w.-]+", requirement)[0]))  # type: ignore[index]
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


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"rehearsal: the environment {folder} cannot be made ({pip_reason(done.stderr)}); it takes a "
            "network once, and none afterwards"
        )
