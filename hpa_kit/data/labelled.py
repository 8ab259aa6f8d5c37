"""The labelled fields of a run, the competition's and external ones, and the folder in which each lies."""

import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from hpa_kit.data.external import PLACEHOLDER_LINE, read_external, sample_external
from hpa_kit.data.fields import CHANNELS, ENDINGS, Images, find_fields
from hpa_kit.data.layout import DataFolder, read_labels
from hpa_kit.errors import InputError

if TYPE_CHECKING:
    from hpa_kit.config import PseudoLabelSettings, StoreSettings, TrainSettings

log = logging.getLogger(__name__)

_Settings: TypeAlias = "TrainSettings | StoreSettings | PseudoLabelSettings"

# Folders of images inside the one that is given: Kaggle unpacks some data sets one folder deeper than others.
_DEPTH = 2

Stems = frozenset[str]


class LabelledFields(NamedTuple):
    """``ID``, ``Label``, ``Cellline`` and ``External`` (bool) of fields; the folder of each ID."""

    table: pd.DataFrame
    folders: "dict[str, Images]"


def labelled_fields(settings: _Settings) -> LabelledFields:
    """List the competition's training fields, then the external fields that settings ask for.

    Images of the competition's fields are looked for in ``train/`` and then among the external ones; all must
    be there. External fields without images are left out, with a warning, before they are sampled, and so are
    those that the competition has.

    Raises:
        InputError: a table cannot be read, a field of the competition lacks images, or not one external field
            is taken.
    """
    folder = DataFolder(settings.data, settings)
    images, channels = folder.images("train"), CHANNELS[: settings.in_channels]
    labels = read_labels(folder.labels())
    if labels.empty:
        raise InputError(f"data: {folder.labels()} has no row; expected one per labelled field")
    if not isinstance(images, Path):
        return _of_a_lab(settings, images, labels)
    others = {} if settings.external_images is None else image_folders(settings.external_images)
    folders: dict[str, Images] = dict(require_images(images, labels["ID"], channels, others))
    table = labels.assign(Cellline=PLACEHOLDER_LINE, External=False)
    if settings.external is None:
        return LabelledFields(table, folders)
    sources = Sources(others | {images: image_stems(images)}, channels)
    taken = _external_fields(settings, settings.external, set(labels["ID"]), sources)
    folders |= dict(zip(taken["ID"], taken["folder"], strict=True))
    external = taken[["ID", "Label", "Cellline"]].assign(External=True)
    return LabelledFields(pd.concat([table, external], ignore_index=True), folders)


def _of_a_lab(settings: _Settings, images: Images, labels: pd.DataFrame) -> LabelledFields:
    """The labelled fields of a folder of another layout than the competition's, without external ones."""
    if settings.external is not None:
        raise InputError(
            f"external: external fields go with the competition's, not with images as those of {images}; "
            "leave external out"
        )
    known = set(find_fields(images))
    missing = [id for id in labels["ID"] if id not in known]
    if missing:
        raise InputError(
            f"fields: {len(missing)} of {len(labels)} labelled fields have no image in {images}, such as ID "
            f"{missing[0]}; add them, or take their rows out of train.csv"
        )
    table = labels.assign(Cellline=PLACEHOLDER_LINE, External=False)
    return LabelledFields(table, dict.fromkeys(labels["ID"], images))


def fields_to_keep(settings: "StoreSettings") -> "dict[str, Images]":
    """Find the folder of each field to resize: the labelled ones or, where no table is, all there are.

    Raises:
        InputError: as :func:`labelled_fields`; or there is no field.
    """
    folder = DataFolder(settings.data, settings)
    if (folder.root / "train.csv").is_file():
        return labelled_fields(settings).folders
    return dict.fromkeys(folder.fields("train").ids, folder.images("train"))


def _external_fields(settings: _Settings, path: Path, known: set[str], sources: "Sources") -> pd.DataFrame:
    """The rows of external fields to take, with a column ``folder``; says what is left out.

    Raises:
        InputError: nothing is left.
    """
    mode = settings.external_mode
    listed = read_external(path)
    new = listed[~listed["ID"].isin(known)]
    rows = _with_images(new, path, sources)
    taken = sample_external(rows, mode)
    if taken.empty:
        if len(rows):
            why = f"external_mode {mode} takes none of the {len(rows)} with images"
        elif len(new):
            where = settings.external_images or settings.data
            why = f"none of its {len(new)} new IDs, such as {new['ID'].iloc[0]}, has its images in {where}"
        else:
            why = f"of its {len(listed)} rows none is of a field that the competition's table lacks"
        raise InputError(
            f"external: no field of {path} is taken: {why}; put that right or leave external out"
        )
    if len(new) < len(listed):
        log.info(f"external: {len(listed) - len(new)} rows of {path} are fields of the competition; left out")
    log.info(f"external: {len(taken)} of {len(rows)} fields with images are taken in mode {mode}")
    return taken


def _with_images(table: pd.DataFrame, path: Path, sources: "Sources") -> pd.DataFrame:
    """The rows of fields whose images are there, with a column ``folder``; says how many are not."""
    places = [sources.find(id, name) for id, name in zip(table["ID"], table["dir"], strict=True)]
    there = np.array([place is not None for place in places], dtype=bool)
    missing = len(table) - int(there.sum())
    if missing:
        example = table["ID"].iloc[int(np.argmin(there))]
        channels = ", ".join(sources.channels)
        warnings.warn(
            f"external: {missing} of {len(table)} rows of {path} lack images ({channels}), such as ID "
            f"{example}; left out",
            stacklevel=3,
        )
    return table.assign(folder=pd.Series(places, index=table.index, dtype=object))[there]


def image_stems(folder: str | Path) -> Stems:
    """List what the images in a folder are called, without their endings (``ID_red``), in one pass.

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
        """Find the first folder that holds a field whole, or None.

        Args:
            id: the field.
            name: folders called so are looked into before the others.
        """
        wanted = [f"{id}_{channel}" for channel in self.channels]
        holding = [folder for folder, stems in self.folders.items() if all(stem in stems for stem in wanted)]
        return next((folder for folder in holding if folder.name == name), next(iter(holding), None))

    def lacking(self, id: str) -> list[str]:
        """List the channels that no folder has of a field."""
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
