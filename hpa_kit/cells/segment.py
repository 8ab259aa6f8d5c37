"""``hpa-kit segment``: the label maps of all fields of a split, kept as files."""

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hpa_kit.cells.label_maps import VERSION, label_map_info, write_label_maps
from hpa_kit.cells.mask_folder import read_label_maps
from hpa_kit.cells.segmenters import FieldCells, Segmenter, load_or_segment, segmenter
from hpa_kit.config import SegmentSettings
from hpa_kit.data import DataFolder, field_size
from hpa_kit.errors import InputError
from hpa_kit.files import forget_torn
from hpa_kit.flow import Failure, run_ahead, share
from hpa_kit.timing import Forecast

log = logging.getLogger(__name__)


def segment(settings: SegmentSettings) -> Path:
    """Find the cells of every field of a split, or of a shard of it, and keep the label maps.

    Args:
        settings: see :class:`~hpa_kit.config.SegmentSettings`. Shards are contiguous shares of the sorted
            IDs; several processes, each with its own shard, may write to one folder.

    Returns:
        The folder, with ``ID.npz`` for each field, see :func:`~hpa_kit.cells.write_label_maps`.

    Goes on where it was stopped: whole files made by the same segmenter with the same weights stay; damaged,
    foreign and outdated ones are made again, with a warning. What is begun and not written yet, of the
    classical segmenter three fields per worker at most, is lost with a kill. A field that cannot be read or
    segmented stops no other.

    Raises:
        InputError: data or settings cannot be used, or some fields cannot; the others are written then.
    """
    folder = DataFolder(settings.data)
    images = folder.images(settings.split)
    ids = share(sorted(folder.fields(settings.split).ids), settings.shard, settings.shards)
    if settings.out.exists() and not settings.out.is_dir():
        raise InputError(f"segment: {settings.out} is a file; expected a folder for label maps")
    finder = segmenter(
        settings.segmenter, settings.weights, settings.device, settings.batch, settings.workers
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    forget_torn(settings.out)
    todo = _todo(ids, images, settings.out, finder.settings, settings.workers)
    log.info("segment: %d fields to do, %d kept from before", len(todo), len(ids) - len(todo))
    forecast = Forecast("segment", len(todo), 2 * settings.batch)
    failed = _make(todo, images, settings, finder, forecast)
    if failed:
        for id in sorted(failed):
            log.error("segment: %s: %s", id, failed[id])
        raise InputError(
            f"segment: {len(failed)} of {len(ids)} fields could not be segmented, the others are in "
            f"{settings.out}: {', '.join(sorted(failed))}; first: {failed[min(failed)]}"
        )
    return settings.out


def _todo(ids: list[str], images: Path, out: Path, made_with: dict[str, Any], workers: int) -> list[str]:
    """The IDs without a whole file of these settings; warns where there is one that is not good."""
    todo = []
    with ThreadPoolExecutor(workers, "look") as pool:
        faults = run_ahead(pool, partial(_fault, images, out, made_with), ids, 4 * workers)
        looked = tqdm(zip(ids, faults, strict=True), "look", len(ids), leave=False, unit="field")
        for id, fault in looked:
            if fault:
                warnings.warn(f"{fault}; made again", stacklevel=3)
            if fault is not None:
                todo.append(id)
    return todo


def _fault(images: Path, out: Path, made_with: dict[str, Any], id: str) -> str | None:
    """What is wrong with a field's file; empty where there is none, None where it is good."""
    path = out / f"{id}.npz"
    if not path.is_file():
        return ""
    try:
        info = label_map_info(path)
        if (info.version, info.settings) != (VERSION, made_with):
            return (
                f"label maps: {path} is of version {info.version} and {info.settings}; wanted {VERSION} and "
                f"{made_with}"
            )
        # A damaged array shows only when it is read; the size is all of the field that reading needs here.
        height, width = field_size(images, id)
        read_label_maps(out, id, np.broadcast_to(np.uint8(0), (4, height, width)))
    except InputError as error:
        return str(error)
    return None


def _make(
    ids: list[str], images: Path, settings: SegmentSettings, finder: Segmenter, forecast: Forecast
) -> dict[str, str]:
    """Segment fields and write their files; returns {ID: reason} of those that could not be."""
    out, workers = settings.out, settings.workers

    def write(item: tuple[str, FieldCells | Failure]) -> tuple[str, str | None]:
        id, result = item
        if isinstance(result, Failure):
            return id, result.reason
        try:
            write_label_maps(out / f"{id}.npz", result.maps, finder.settings)
        except OSError as error:
            raise InputError(
                f"segment: {out / id}.npz cannot be written: {error.strerror or error}; the same command "
                "goes on once it can"
            ) from error
        return id, None

    failed = {}
    with (
        ThreadPoolExecutor(workers, "write") as writing,
        tqdm(total=len(ids), desc="segment", unit="field") as bar,
    ):
        found = load_or_segment(ids, images, finder, workers=workers, needed=settings.in_channels)
        for id, fault in run_ahead(writing, write, found, workers):
            if fault is not None:
                failed[id] = fault
            forecast.add(1)
            bar.update()
    return failed
