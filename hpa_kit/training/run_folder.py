"""A run folder: what lies there, where a run begins, and whether it may go on from what it finds.

What results depend on, so that a run goes on with it and nothing else: its settings, but for those that only
say where things lie and what computes; of files their names, and of those that are read again, as it goes on,
their content; fields, labels and folds.
"""

import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpa_kit.config import TrainSettings, make_settings, read_yaml, write_yaml
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, remove_stale
from hpa_kit.resume import refuse_other_settings
from hpa_kit.training.checkpoint import BEST, LAST, SETTINGS, Checkpoint, read_checkpoint

FOLDS, METRICS, EVENTS = "folds.csv", "metrics.csv", "tensorboard"
GROWING = "growing.png"  # class maps after some epochs, where somebody watched

# These may change between two starts of a run: where things lie and what computes, not what is computed.
_FREE = frozenset(
    {
        "data", "out", "workers", "cache", "device", "store", "external", "external_images",
        "time_limit", "checkpoint_minutes", "resume_from",
    }
)  # fmt: skip
# Files that may lie elsewhere in another session, but must have the same name.
_MOVABLE = frozenset(
    {
        "pretrained", "warm_start", "external", "subcategories", "pseudo_labels", "masks", "augmentation",
        "folds_of", "features", "encoder",
    }
)  # fmt: skip
# Chosen as a run starts, where they are not given; see Objective.completed.
_CHOSEN = ("crop_size", "label_round", "encoder", "encoder_sha256")
# Of a checkpoint to go on from; the best weights alone have no history.
_NEEDED = ("step_number", "epoch", "best", "history", "fields")
_OF_FOLDS = (
    "data",
    "external",
    "external_images",
    "external_mode",
    "in_channels",
    "folds",
    "folds_of",
    "seed",
)


class Start(NamedTuple):
    """Where a run begins.

    Attributes:
        folder: the run folder whose checkpoint it goes on from; None begins anew.
        epochs, steps: done there, steps being updates of the weights.
        folds: the CSV that holds its folds; None where there is none yet.
    """

    folder: Path | None
    epochs: int
    steps: int
    folds: Path | None

    def __str__(self) -> str:
        if self.folder is None:
            return "nothing"
        return f"{self.folder} (epochs done: {self.epochs}, steps: {self.steps})"


def label_round_of(settings: TrainSettings) -> int | None:
    """Which round of labels of cells a run is of: 0 for image labels, else what its pseudo labels say.

    None where these are not there any more, which a finished run does not need.

    Raises:
        InputError: as :func:`~hpa_kit.data.read_label_round`.
    """
    if settings.pseudo_labels is None:
        return 0
    if not settings.pseudo_labels.is_dir():
        return None
    from hpa_kit.data import read_label_round

    return read_label_round(settings.pseudo_labels)


def with_label_round(settings: TrainSettings) -> TrainSettings:
    """The same settings with their label round, to be kept with the run.

    Raises:
        InputError: another one was given, or as :func:`label_round_of`.
    """
    found, given = label_round_of(settings), settings.label_round
    if found is None:
        return settings
    if given not in (None, found):
        source = settings.pseudo_labels or "without pseudo_labels a run"
        raise InputError(f"train: label_round is {given}, but {source} is of round {found}; leave it out")
    return settings.model_copy(update={"label_round": found})


def find_start(settings: TrainSettings) -> Start:
    """Tell where a run begins once it is started; nothing is written.

    Raises:
        InputError: a folder holds a checkpoint of another run, or a damaged one, or is a file; or there is
            none in ``resume_from``.
    """
    out, earlier = settings.out, settings.resume_from
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; expected a folder for the run")
    folder, found = out, _read(settings, out, (*_NEEDED, "contents")) if (out / LAST).exists() else None
    if earlier is not None:
        if not (earlier / LAST).is_file():
            raise InputError(
                f"resume_from: {earlier} holds no {LAST}; expected the run folder of an earlier hpa-kit train"
            )
        before = _read(settings, earlier, (*_NEEDED, "contents"))
        if found is None or _progress(found) < _progress(before):
            folder, found = earlier, before
    if found is None:
        made = (out / FOLDS).is_file() and not _has_folds_of_another_start(settings)
        return Start(None, 0, 0, out / FOLDS if made else None)
    folds = next(filter(Path.is_file, (folder / FOLDS, out / FOLDS)), None)
    return Start(folder, found.state["epoch"], found.state["step_number"], folds)


def as_started(settings: TrainSettings) -> TrainSettings:
    """Settings with what an earlier start of the run chose where they leave it open.

    Raises:
        InputError: its checkpoint is damaged.
    """
    given = settings.model_dump()
    left_open = [name for name in _CHOSEN if given[name] is None]
    for folder in (settings.out, settings.resume_from):
        if left_open and folder is not None and (folder / LAST).is_file():
            kept = read_checkpoint(folder / LAST, only=()).settings
            before = make_settings(type(settings), kept, source=f"checkpoint: {folder / LAST}").model_dump()
            return settings.model_copy(update={name: before[name] for name in left_open})
    return settings


def open_run(settings: TrainSettings) -> Checkpoint | None:
    """Make a run folder ready: the checkpoint to go on from, or None for a fresh start.

    Where ``settings.resume_from`` is further than ``settings.out``, its files are copied there first.

    Raises:
        InputError: as :func:`find_start`.
    """
    start = find_start(settings)
    remove_stale(settings.out)
    if start.folder is not None and start.folder != settings.out:
        _copy_run(start.folder, settings.out)
    elif start.folds is None:
        (settings.out / FOLDS).unlink(missing_ok=True)
    write_yaml(settings, settings.out / SETTINGS)
    return find_checkpoint(settings)


def find_checkpoint(settings: TrainSettings) -> Checkpoint | None:
    """What the run folder holds to go on from; nothing is written.

    Raises:
        InputError: it is of another run, or damaged.
    """
    return _read(settings, settings.out) if (settings.out / LAST).exists() else None


def contents_of(settings: TrainSettings) -> dict[str, str]:
    """By setting, a text that changes where its file's content does; a missing file has none.

    Of the files that a run that goes on reads again; the fingerprint of its fields does not tell of them.
    """
    files = {"subcategories": settings.sc_cam.subcategories, "augmentation": settings.augmentation}
    if settings.network == "cam" and settings.pseudo_labels is not None:
        files["pseudo_labels"] = settings.pseudo_labels / "cell_scores.csv"
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if isinstance(path, Path) and path.is_file()
    }


def refuse_other_data(
    settings: TrainSettings, before: Mapping[str, Any], fingerprint: str, contents: Mapping[str, str]
) -> None:
    """Compare what a run was started with, as its checkpoint has it, with what there is now.

    Args:
        settings: of the run.
        before: ``fields``, the fingerprint of fields, labels and folds, and ``contents`` by setting.
        fingerprint, contents: the same of now.

    Raises:
        InputError: they differ.
    """
    others = list(_other_contents(before.get("contents", {}), contents, settings))
    if before["fields"] != fingerprint:
        others.append(f"other fields or labels than data {settings.data} has")
    refuse_other_settings("train", settings.out, settings, settings, _FREE, others=others)


def _read(settings: TrainSettings, folder: Path, only: Collection[str] | None = None) -> Checkpoint:
    """The checkpoint in a folder, or some parts of it, that a run with these settings goes on from.

    Raises:
        InputError: it is damaged, as the best weights alone under its name are, or of another run.
    """
    path = folder / LAST
    checkpoint = read_checkpoint(path, only)
    lacking = [name for name in _NEEDED if name not in checkpoint.state]
    if lacking:
        raise InputError(
            f"checkpoint: {path} lacks {', '.join(lacking)}, which going on needs; delete it to start anew"
        )
    # Through the class, so that a setting younger than the checkpoint has its default there.
    before = make_settings(type(settings), checkpoint.settings, source=f"checkpoint: {path}")
    instead = "another --out" if folder == settings.out else "no resume_from (False in the notebook)"
    others = _other_contents(checkpoint.state.get("contents", {}), contents_of(settings), settings)
    old, new = before.model_dump(), settings.model_dump()
    free = _FREE | {name for name in _CHOSEN if old[name] is None or new[name] is None}
    refuse_other_settings("train", folder, before, settings, free, _MOVABLE, instead, others)
    return checkpoint


def _other_contents(
    before: Mapping[str, str], now: Mapping[str, str], settings: TrainSettings
) -> Iterator[str]:
    """Files whose content is another now; one that is missing then or now is not compared.

    What is finished needs none.
    """
    paths = settings.model_dump()
    for name in sorted(before.keys() & now.keys()):
        if before[name] != now[name]:
            yield f"another content of {name} {paths[name]}"


def _copy_run(earlier: Path, out: Path) -> None:
    """Copy the run of an earlier session."""
    shutil.rmtree(out / EVENTS, ignore_errors=True)  # of steps that the earlier session has as well
    events = sorted(path.relative_to(earlier) for path in (earlier / EVENTS).rglob("*") if path.is_file())
    # The checkpoint comes last: without it a copy that was cut off is made anew.
    for name in (Path(FOLDS), Path(METRICS), Path(GROWING), *events, Path(BEST), Path(LAST)):
        if (earlier / name).is_file():
            with atomic_path(out / name) as temporary:
                shutil.copyfile(earlier / name, temporary)


def _progress(checkpoint: Checkpoint) -> tuple[int, int]:
    """How far a run is; an epoch is further when it has been validated than when its steps are done."""
    return checkpoint.state["step_number"], checkpoint.state["epoch"]


def _has_folds_of_another_start(settings: TrainSettings) -> bool:
    """Whether a start without any checkpoint made the folds in ``out`` for other data, folds or seed.

    Folds without settings beside them were put there by the user.
    """
    path = settings.out / SETTINGS
    if not path.is_file():
        return False
    try:
        old = make_settings(TrainSettings, read_yaml(path), source=str(path))
    except InputError:
        return True
    return any(getattr(old, name) != getattr(settings, name) for name in _OF_FOLDS)
