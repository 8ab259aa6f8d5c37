"""A synthetic competition in the real folder layout, which takes nothing that somebody else put there."""

import hashlib
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import yaml

from hpa_kit.classes import format_label
from hpa_kit.config import SimulateSettings, Split, make_settings, read_yaml
from hpa_kit.data.simulate.field import Truth, draw, prepare
from hpa_kit.data.simulate.plan import SPLITS, FieldPlan, field_id, plan_fields
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, atomic_text, make_folder, remove_stale
from hpa_kit.flow import interrupts_ignored
from hpa_kit.npz import write_npz
from hpa_kit.progress import track
from hpa_kit.resume import refuse_other_settings
from hpa_kit.submission import encode_label_map, encode_mask, truth_string
from hpa_kit.timing import Forecast

MARKER = "simulation.yaml"
FREE = {"out", "workers"}  # these may change between two starts
CHANNEL_FILES = ("red", "green", "blue", "yellow")
TABLES = ("train.csv", "sample_submission.csv", "truth.csv", "truth_train.csv")
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


def field_files(folder: Path, split: Split, field: str) -> list[Path]:
    """List the files of one field; its label maps come last, they are written last."""
    images = [folder / split / f"{field}_{channel}.png" for channel in CHANNEL_FILES]
    return [*images, folder / "masks" / f"{field}.npz"]


def claim(settings: SimulateSettings) -> bool:
    """Make the folder ready and mark it as a simulation with these settings.

    Fields that another version of the simulator drew from the same settings are removed, nothing else
    ever is. Hidden files do not count.

    Returns:
        Whether the folder holds fields of these very settings, to be kept.

    Raises:
        InputError: the folder is a file, or holds something other than a simulation with these settings.
    """
    folder, marker = settings.out, settings.out / MARKER
    if folder.exists() and not folder.is_dir():
        raise InputError(f"simulate: {folder} is a file; expected a folder to write")
    # All that decides the bytes: the code that draws, and the settings without place and processes.
    drawn_by, chosen = _code(), settings.model_dump(mode="json", exclude=FREE)
    content = yaml.safe_dump({"drawn_by": drawn_by} | chosen, sort_keys=False)
    # Before the marker is read: what another process that begins now puts here comes after its marker.
    strangers = folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir())
    if not marker.exists():
        if strangers:
            raise InputError(
                f"simulate: {folder} holds files but no {MARKER}, so it is no earlier simulation; "
                "name a new or an empty folder"
            )
        atomic_text(marker, content)
        return False
    values = read_yaml(marker)
    drawn_before_by = values.pop("drawn_by", None)
    before = make_settings(SimulateSettings, values, {"out": folder}, source=str(marker))
    refuse_other_settings("simulate", folder, before, settings, FREE, instead="another folder")
    _refuse_strangers(settings)
    if drawn_before_by == drawn_by:
        return True
    for path in (*_files(settings), *(folder / name for name in TABLES)):
        path.unlink(missing_ok=True)
    atomic_text(marker, content)
    return False


def _code() -> str:
    """A mark that changes with the simulator and what it draws with, so that no older field is kept."""
    digest = hashlib.sha256(f"numpy {np.__version__} opencv {cv2.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _files(settings: SimulateSettings) -> Iterator[Path]:
    for number, split in enumerate(SPLITS):
        for index in range(settings.train if split == "train" else settings.test):
            yield from field_files(settings.out, split, field_id((settings.seed, number, index)))


def _refuse_strangers(settings: SimulateSettings) -> None:
    known = set(_files(settings))
    for part in (*SPLITS, "masks"):
        for path in sorted((settings.out / part).glob("*")):
            if path not in known and not path.name.startswith("."):
                raise InputError(
                    f"simulate: {path} was not written by the simulation in this folder; "
                    "move it away or name another folder"
                )


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[[Callable[[Job], Row], list[Job]], Iterable[Row]]]:
    """``map`` in this process, or over several; results keep the order of the jobs."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: this process may hold threads of numba or torch.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_process) as pool:

        def run(function: Callable[[Job], Row], jobs: list[Job]) -> Iterable[Row]:
            # By the processes, of which each of these jobs starts one as long as none is idle; this one ends
            # them. One that starts later says so itself.
            with interrupts_ignored():
                for _ in range(workers):
                    pool.submit(int)
            return pool.map(function, jobs)

        try:
            yield run
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_process() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
