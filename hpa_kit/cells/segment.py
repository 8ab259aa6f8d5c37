"""``hpa-kit segment``: the label maps of all fields of a split, kept as files."""

import logging
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hpa_kit.cells.label_maps import VERSION, LabelMaps, label_map_info, read_label_maps, write_label_maps
from hpa_kit.cells.segmenters import Segmenter, segmenter
from hpa_kit.config import SegmentSettings
from hpa_kit.data import DataFolder, field_size, read_field
from hpa_kit.errors import InputError

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """One field to segment: where it is read from and written to."""

    images: Path
    id: str
    out: Path
    settings: dict[str, Any]


def segment(settings: SegmentSettings) -> Path:
    """Find the cells of every field of a split and keep the label maps.

    Args:
        settings: see :class:`~hpa_kit.config.SegmentSettings`.

    Returns:
        The folder, with ``ID.npz`` for each field, see :func:`~hpa_kit.cells.write_label_maps`.

    Goes on where it was stopped: whole files made with the same settings stay; damaged, foreign and outdated
    ones are made again, with a warning. A field that cannot be read stops no other.

    Raises:
        InputError: data or settings cannot be used, or some fields cannot; the others are written then.
    """
    folder = DataFolder(settings.data)
    images, fields = folder.images(settings.split), folder.fields(settings.split)
    finder = segmenter(settings.segmenter)
    made_with = {"segmenter": finder.name}
    if settings.out.exists() and not settings.out.is_dir():
        raise InputError(f"segment: {settings.out} is a file; expected a folder for label maps")
    settings.out.mkdir(parents=True, exist_ok=True)
    jobs = [Job(images, id, settings.out / f"{id}.npz", made_with) for id in fields.ids]
    jobs = [job for job in tqdm(jobs, desc="look", unit="field", leave=False) if not _is_done(job)]
    log.info("segment: %d fields to do, %d kept from before", len(jobs), len(fields.ids) - len(jobs))
    failed = dict(_run(jobs, finder, settings.workers))
    if failed:
        for id in sorted(failed):
            log.error("segment: %s: %s", id, failed[id])
        raise InputError(
            f"segment: {len(failed)} of {len(fields.ids)} fields could not be segmented, the others are in "
            f"{settings.out}: {', '.join(sorted(failed))}; first: {failed[min(failed)]}"
        )
    return settings.out


def _is_done(job: Job) -> bool:
    """Whether a whole file of these settings is there; says why where one is there and is not good."""
    if not job.out.is_file():
        return False
    try:
        info = label_map_info(job.out)
        if (info.version, info.settings) != (VERSION, job.settings):
            raise InputError(
                f"label maps: {job.out} is of version {info.version} and {info.settings}; wanted "
                f"{VERSION} and {job.settings}"
            )
        # A damaged array shows only when it is read; the size is all of the field that reading needs here.
        height, width = field_size(job.images, job.id)
        read_label_maps(job.out.parent, job.id, np.broadcast_to(np.uint8(0), (4, height, width)))
    except InputError as error:
        warnings.warn(f"{error}; made again", stacklevel=2)
        return False
    return True


def _run(jobs: list[Job], finder: Segmenter, workers: int) -> Iterator[tuple[str, str]]:
    """Do all jobs; yields the ID and the error of each that fails on its input."""
    # Threads do: reading, numba and OpenCV let go of the interpreter, and nothing has to be loaded again.
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(jobs), desc="segment", unit="field") as bar:
        waiting = {pool.submit(do, job, finder): job for job in jobs}
        try:
            for future in as_completed(waiting):
                bar.update()
                if error := future.result():
                    yield waiting[future].id, error
        finally:
            pool.shutdown(cancel_futures=True)


def do(job: Job, finder: Segmenter) -> str | None:
    """Segment one field and write its file; returns the error's text where the field cannot be used."""
    try:
        maps = LabelMaps(*finder(read_field(job.images, job.id)))
    except InputError as error:
        return str(error)
    write_label_maps(job.out, maps, job.settings)
    return None
