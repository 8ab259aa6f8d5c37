"""The cells that a notebook's network learns from: where their label maps are, finding them, showing them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from hpa_kit.cells import MaskFolder, resized
from hpa_kit.cells.segment import segment
from hpa_kit.config import SegmentSettings, TrainSettings, make_settings
from hpa_kit.data import labelled_fields, read_field, resize_field
from hpa_kit.devices import cpus
from hpa_kit.inference.deadline import Now
from hpa_kit.report.pictures import Picture, composite, outlined, tiled
from hpa_kit.training.checkpoint import LAST, settings_of

log = logging.getLogger(__name__)

LABEL_MAPS = "label_maps"
MIN_HOURS = 0.01  # of a run whose time is up before it begins: it stops with a checkpoint


def cells_to_learn_from(
    masks: str | Path | bool | None, out: Path, resume_from: Path | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings by which a run learns from cells, before anything is made or compared.

    Label maps that are not given are those beside the run that is gone on from, else ``label_maps`` beside
    the run folder, where :func:`with_label_maps` makes them. A run that began without cells goes on so.

    Args:
        masks: folder of label maps; None finds them, False learns from whole fields.
        out: run folder.
        resume_from: run folder of an earlier session.
        settings: any other options of the run.

    Returns:
        ``masks`` and ``pooling``, those of them that are to be set.

    Raises:
        InputError: the run that is gone on from is damaged.
    """
    if masks is False:
        return {"pooling": "field"}
    if masks:
        return {"masks": Path(str(masks))}
    network, pooling = settings.get("network", "cam"), settings.get("pooling")
    if network not in ("cam", "crops") or settings.get("pseudo_labels") or pooling == "field":
        return {}
    earlier = next((run for run in (out, resume_from) if run is not None and (run / LAST).is_file()), None)
    before = None if earlier is None else settings_of(earlier / LAST)
    if before is not None and before.network == "cam" and before.masks is None:
        if pooling is None:
            log.info(f"train: {earlier} learnt from whole fields, and goes on so")
        return {"pooling": pooling or before.cells.pooling}
    kept = None if resume_from is None else resume_from.parent / LABEL_MAPS
    return {"masks": kept if kept is not None and kept.is_dir() else out.parent / LABEL_MAPS}


def with_label_maps(
    settings: TrainSettings, weights: Path | None = None, now: Now = monotonic
) -> TrainSettings:
    """The settings of a run whose label maps are there: those in ``label_maps`` beside it are found now.

    They lie in archives, as an output of Kaggle takes no file per field of a competition. Whole ones stay.
    What it takes is taken off the run's time limit. Settings that name other label maps, or none, stay as
    they are.

    Args:
        settings: of the run.
        weights: folder of the two published cell networks; without it cells are found without weights.
        now: the clock, in seconds from any zero on.

    Raises:
        InputError: data cannot be used, or some fields cannot be segmented.
    """
    begun, out, limit = now(), settings.out.parent / LABEL_MAPS, settings.limits.hours
    if settings.masks != out:
        return settings
    for data in filter(None, (settings.data, settings.external_images)):
        found = {"data": data, "out": out, "split": "train", "weights": weights, "workers": max(2, cpus())}
        found |= {"in_channels": settings.in_channels, "device": settings.device, "pack": True}
        segment(make_settings(SegmentSettings, found))
    left = None if limit is None else max(MIN_HOURS, limit - (now() - begun) / 3600)
    return settings.model_copy(update={"time_limit": left})


def cells_learnt_from(settings: TrainSettings, fields: int = 4, side: int = 320) -> Picture:
    """The first labelled fields with the outlines of their cells, as a run learns from them.

    Args:
        settings: of the run; without ``masks`` there are no outlines.
        fields: how many.
        side: of each panel in pixels.

    Raises:
        InputError: the data or a label map cannot be read.
    """
    labels, folders = labelled_fields(settings)
    shown = []
    for id in labels["ID"][:fields]:
        field = read_field(folders[id], id, settings.in_channels)
        cells = np.zeros(field.shape[1:], np.int32)
        if settings.masks is not None:
            cells = MaskFolder(settings.masks).read_cells(id)
        small = composite(resize_field(field, side))
        shown.append(outlined(small, resized(cells, (side, side))))
    named = "whole fields" if settings.masks is None else f"label maps of {settings.masks}"
    return tiled([shown], side, [named])
