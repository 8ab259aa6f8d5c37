"""The package in another folder."""

import shutil
from pathlib import Path

import hpa_kit


def copy_kit(folder: Path) -> Path:
    """Copy the package as ``folder``, without caches: tests that run beside this one write into them."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(Path(hpa_kit.__file__).parent, folder, ignore=ignored, dirs_exist_ok=True))


def link_kit(folder: Path) -> Path:
    """Link the package as ``folder``, with what is compiled, but for an ``__init__.py`` of its own."""
    package = Path(hpa_kit.__file__).parent
    folder.mkdir(parents=True)
    for path in package.iterdir():
        if path.name not in ("__init__.py", "__pycache__"):
            (folder / path.name).symlink_to(path)
    shutil.copy(package / "__init__.py", folder)
    return folder
