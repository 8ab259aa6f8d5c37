"""In which of several folders the images of each field lie."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpa_kit.data.fields import CHANNELS, ENDINGS
from hpa_kit.errors import InputError

# Folders of images inside the one that is given: Kaggle unpacks some data sets one folder deeper than others.
_DEPTH = 2

Stems = frozenset[str]


def image_stems(folder: str | Path) -> Stems:
    """What the images in a folder are called, without their endings (``ID_red``), in one pass.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        raise InputError(f"fields: {folder} cannot be read: {error.strerror}") from None
    return frozenset(
        name.rpartition(".")[0] for name in names if name.lower().endswith(ENDINGS) and name[0] != "."
    )


def image_folders(root: str | Path) -> dict[Path, Stems]:
    """A folder, the folders in it and those in these, as far as they hold images; itself first, then sorted.

    Raises:
        InputError: it cannot be read.
    """
    root = Path(root)
    found = {root: image_stems(root)}
    level = [root]
    for _ in range(_DEPTH):
        level = [
            folder
            for parent in level
            for folder in sorted(parent.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
        ]
        found |= {folder: image_stems(folder) for folder in level}
    return {folder: stems for folder, stems in found.items() if stems}


class Sources:
    """Folders in which fields are looked for.

    Args:
        folders: what each holds, those that are looked into first being first.
        channels: images that a field needs, such as the first three of :data:`CHANNELS`.
    """

    def __init__(self, folders: dict[Path, Stems], channels: Sequence[str] = CHANNELS) -> None:
        self.folders, self.channels = folders, tuple(channels)

    def find(self, id: str, name: str = "") -> Path | None:
        """The first folder that holds a field whole, or None.

        Args:
            id: the field.
            name: folders called so are looked into before the others.
        """
        wanted = [f"{id}_{channel}" for channel in self.channels]
        holding = [folder for folder, stems in self.folders.items() if all(stem in stems for stem in wanted)]
        return next((folder for folder in holding if folder.name == name), next(iter(holding), None))

    def lacking(self, id: str) -> list[str]:
        """The channels that no folder has of a field."""
        return [
            channel
            for channel in self.channels
            if not any(f"{id}_{channel}" in stems for stems in self.folders.values())
        ]


def require_images(
    folder: Path,
    ids: Iterable[str],
    channels: Sequence[str] = CHANNELS,
    others: dict[Path, Stems] | None = None,
) -> dict[str, Path]:
    """Find every field of a table of labels, before anything is read.

    Args:
        folder: looked into first, such as ``train/``.
        ids: the fields.
        channels: images that a field needs.
        others: further folders, as :func:`image_folders` gives.

    Returns:
        The folder of each field.

    Raises:
        InputError: fields lack images; how many, and what the first lacks.
    """
    sources = Sources({folder: image_stems(folder)} | (others or {}), channels)
    found = {id: sources.find(id) for id in ids}
    missing = [id for id, place in found.items() if place is None]
    if missing:
        lacking = ", ".join(sources.lacking(missing[0])) or "in no folder all of them"
        raise InputError(
            f"fields: {len(missing)} of {len(found)} labelled fields lack images in {folder}, such as "
            f"ID {missing[0]} ({lacking}); add them, or take their rows out of train.csv"
        )
    return {id: place for id, place in found.items() if place is not None}
