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


class LabelledFields(NamedTuple):
    """``ID``, ``Label``, ``Cellline`` and ``External`` (bool) of fields; the folder of each ID."""

    table: pd.DataFrame
    folders: dict[str, Path]


def labelled_fields(settings: TrainSettings | StoreSettings | PseudoLabelSettings) -> LabelledFields:
    """The competition's training fields, then the external fields that settings ask for.

    Images of the competition's fields are looked for in ``train/`` and then among the external ones; all must
    be there. External fields without images are left out, with a warning, before they are sampled, and so are
    those that the competition has.

    Raises:
        InputError: a table cannot be read, or a field of the competition lacks images.
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
    rows = _with_images(read_external(settings.external), settings.external, set(labels["ID"]), sources)
    taken = sample_external(rows, settings.external_mode)
    log.info(
        f"external: {len(taken)} of {len(rows)} fields with images are taken in mode {settings.external_mode}"
    )
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


def _with_images(table: pd.DataFrame, path: Path, known: set[str], sources: Sources) -> pd.DataFrame:
    """The rows of new fields whose images are there, with a column ``folder``; says how many are not."""
    new = table[~table["ID"].isin(known)]
    if len(new) < len(table):
        log.info(f"external: {len(table) - len(new)} rows of {path} are fields of the competition; left out")
    places = [sources.find(id, name) for id, name in zip(new["ID"], new["dir"], strict=True)]
    there = np.array([place is not None for place in places], dtype=bool)
    missing = len(new) - int(there.sum())
    if missing:
        example = new["ID"].iloc[int(np.argmin(there))]
        channels = ", ".join(sources.channels)
        warnings.warn(
            f"external: {missing} of {len(new)} rows of {path} lack images ({channels}), such as ID "
            f"{example}; left out",
            stacklevel=3,
        )
    return new.assign(folder=pd.Series(places, index=new.index, dtype=object))[there]
