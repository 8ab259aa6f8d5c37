"""The labelled fields of a run: the competition's and external ones, and where their images lie."""

import logging
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hpa_kit.config import PseudoLabelSettings, StoreSettings, TrainSettings
from hpa_kit.data.external import PLACEHOLDER_LINE, read_external, sample_external
from hpa_kit.data.fields import CHANNELS
from hpa_kit.data.layout import DataFolder
from hpa_kit.data.sources import Sources, image_folders, image_stems, require_images
from hpa_kit.data.tables import read_labels
from hpa_kit.errors import InputError

log = logging.getLogger(__name__)

_Settings = TrainSettings | StoreSettings | PseudoLabelSettings


class LabelledFields(NamedTuple):
    """``ID``, ``Label``, ``Cellline`` and ``External`` (bool) of fields; the folder of each ID."""

    table: pd.DataFrame
    folders: dict[str, Path]


def labelled_fields(settings: _Settings) -> LabelledFields:
    """The competition's training fields, then the external fields that settings ask for.

    Images of the competition's fields are looked for in ``train/`` and then among the external ones; all must
    be there. External fields without images are left out, with a warning, before they are sampled, and so are
    those that the competition has.

    Raises:
        InputError: a table cannot be read, a field of the competition lacks images, or not one external field
            is taken.
    """
    folder = DataFolder(settings.data)
    images, channels = folder.images("train"), CHANNELS[: settings.in_channels]
    labels = read_labels(folder.labels())
    if labels.empty:
        raise InputError(f"data: {folder.labels()} has no row; expected one per labelled field")
    others = {} if settings.external_images is None else image_folders(settings.external_images)
    folders = require_images(images, labels["ID"], channels, others)
    table = labels.assign(Cellline=PLACEHOLDER_LINE, External=False)
    if settings.external is None:
        return LabelledFields(table, folders)
    sources = Sources(others | {images: image_stems(images)}, channels)
    taken = _external_fields(settings, settings.external, set(labels["ID"]), sources)
    folders |= dict(zip(taken["ID"], taken["folder"], strict=True))
    external = taken[["ID", "Label", "Cellline"]].assign(External=True)
    return LabelledFields(pd.concat([table, external], ignore_index=True), folders)


def fields_to_keep(settings: StoreSettings) -> dict[str, Path]:
    """The folder of each field to resize: the labelled ones or, where no table is, all that are found.

    Raises:
        InputError: as :func:`labelled_fields`; or there is no field.
    """
    folder = DataFolder(settings.data)
    if (folder.root / "train.csv").is_file():
        return labelled_fields(settings).folders
    return dict.fromkeys(folder.fields("train").ids, folder.images("train"))


def _external_fields(settings: _Settings, path: Path, known: set[str], sources: Sources) -> pd.DataFrame:
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


def _with_images(table: pd.DataFrame, path: Path, sources: Sources) -> pd.DataFrame:
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
