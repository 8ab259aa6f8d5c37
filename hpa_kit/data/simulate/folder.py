"""Writing a synthetic competition in the real folder layout."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from hpa_kit.classes import format_label
from hpa_kit.config import SimulateSettings
from hpa_kit.data.simulate.claim import claim, field_files
from hpa_kit.data.simulate.field import Truth, draw, prepare
from hpa_kit.data.simulate.plan import SPLITS, FieldPlan, plan_fields
from hpa_kit.files import atomic_path, atomic_text, make_folder, remove_stale
from hpa_kit.flow import interrupts_ignored
from hpa_kit.npz import write_npz
from hpa_kit.progress import track
from hpa_kit.submission import encode_label_map, encode_mask, truth_string
from hpa_kit.timing import Forecast

# Fewer pixels than this are drawn before a second process has started.
_PACKING = 6  # zlib's level, of label maps
_SMALL_WORK = 8 * 512**2


class Job(NamedTuple):
    """One field to write."""

    plan: FieldPlan
    folder: Path
    keep: bool  # leave files that an interrupted run wrote


class Row(NamedTuple):
    """What the tables say of a field."""

    plan: FieldPlan
    label: str
    truth: str


def simulate(settings: SimulateSettings) -> Path:
    """Write a synthetic competition with the truth of every cell.

    The folder gets ``train.csv``, ``sample_submission.csv``, ``train/`` and ``test/`` with four 8-bit PNG
    files per field, ``truth_train.csv`` and ``truth.csv`` (pairs of class and mask), and ``masks/ID.npz``
    with the int32 label maps ``cells`` and ``nuclei``. The same settings give the same bytes, with any number
    of workers. A run that was interrupted goes on where it was.

    Args:
        settings: what to write and where.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something other than an earlier simulation with these settings.
    """
    folder = settings.out
    keep = claim(settings)
    jobs = [Job(plan, folder, keep) for split in SPLITS for plan in plan_fields(settings, split)]
    for part in (*SPLITS, "masks"):
        remove_stale(make_folder(folder / part))
    pixels = sum(max(job.plan.height * job.plan.width, 256**2) for job in jobs)
    with _mapper(1 if pixels <= _SMALL_WORK else min(settings.workers, len(jobs))) as run:
        forecast, rows = Forecast("simulate", len(jobs), 2 * settings.workers), []
        for row in track(run(_write_field, jobs), "simulate", len(jobs)):
            rows.append(row)
            forecast.add(1)
    _write_tables(folder, rows)
    return folder


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[[Callable[[Job], Row], list[Job]], Iterable[Row]]]:
    """``map`` in this process, or over several; results keep the order of the jobs."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: this process may hold threads of numba or torch.
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:

        def run(function: Callable[[Job], Row], jobs: list[Job]) -> Iterable[Row]:
            with interrupts_ignored():  # by the processes, which start here; this one ends them
                pool.submit(int)
            return pool.map(function, jobs)

        try:
            yield run
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_field(job: Job) -> Row:
    prepared = prepare(job.plan)
    truth = prepared.truth
    *images, masks = field_files(job.folder, job.plan.split, job.plan.id)
    if not (job.keep and all(path.is_file() and path.stat().st_size for path in (*images, masks))):
        for path, channel in zip(images, draw(prepared), strict=True):
            _write_png(path, channel)
        with atomic_path(masks) as temporary:
            write_npz(temporary, {"cells": truth.cells, "nuclei": truth.nuclei}, _PACKING)
    return Row(job.plan, format_label(_shown(truth)), _truth_string(truth))


def _write_png(path: Path, channel: np.ndarray) -> None:
    done, data = cv2.imencode(".png", channel, [cv2.IMWRITE_PNG_COMPRESSION, 2])
    if not done:
        raise OSError(f"{path}: the PNG encoder failed")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _shown(truth: Truth) -> list[int]:
    """The image label: all that the cells show; Negative only where nothing else is."""
    shown = [int(index) for index in np.flatnonzero(truth.shows[:, :-1].any(axis=0))]
    return shown or [truth.shows.shape[1] - 1]


def _truth_string(truth: Truth) -> str:
    shown = {cell: np.flatnonzero(row) for cell, row in enumerate(truth.shows, start=1)}
    return truth_string(shown, encode_label_map(truth.cells))


def _write_tables(folder: Path, rows: list[Row]) -> None:
    train, test = ([row for row in rows if row.plan.split == split] for split in SPLITS)
    _write_csv(folder / "train.csv", "ID,Label", [f"{row.plan.id},{row.label}" for row in train])
    header = "ID,ImageWidth,ImageHeight,PredictionString"
    _write_csv(folder / "truth_train.csv", header, [_size_row(row, row.truth) for row in train])
    _write_csv(folder / "truth.csv", header, [_size_row(row, row.truth) for row in test])
    _write_csv(folder / "sample_submission.csv", header, [_size_row(row, _empty(row)) for row in test])


def _empty(row: Row) -> str:
    """What the competition's sample says of every field: class 0 at confidence 1, and no pixel."""
    return f"0 1 {encode_mask(np.zeros((row.plan.height, row.plan.width), bool))}"


def _size_row(row: Row, text: str) -> str:
    return f"{row.plan.id},{row.plan.width},{row.plan.height},{text}"


def _write_csv(path: Path, header: str, lines: list[str]) -> None:
    atomic_text(path, "\n".join([header, *lines]) + "\n")
