"""The package in another folder."""

import shutil
from pathlib import Path

import hpa_kit


def copy_kit(folder: Path) -> Path:
    """Copy the package as ``folder``, without caches: tests that run beside this one write into them."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(Path(hpa_kit.__file__).parent, folder, ignore=ignored, dirs_exist_ok=True))
