"""What the files say that a run learns by, so that it does not go on by others of the same names."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError

# Read again by a run that goes on; the fingerprint of fields and labels does not tell of them.
_FILES = ("subcategories", "augmentation")


def contents_of(settings: TrainSettings) -> dict[str, str]:
    """By setting, a text that changes where its file's content does; a missing file has none."""
    paths = {name: getattr(settings, name) for name in _FILES}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if isinstance(path, Path) and path.is_file()
    }


def refuse_other_contents(before: Mapping[str, str], now: Mapping[str, str], settings: TrainSettings) -> None:
    """Compare what a run was started with, as :func:`contents_of` told, with what there is now.

    A file that either of them lacks is not compared: what is finished needs none.

    Raises:
        InputError: a file has another content; it is named.
    """
    for name in before.keys() & now.keys():
        if before[name] != now[name]:
            raise InputError(
                f"train: the run in {settings.out} was started with another content of {name} "
                f"{getattr(settings, name)}; give that content again to go on, or another --out"
            )
