"""A run folder: what is in it, and whether a run may go on there."""

import shutil
from pathlib import Path

from hpa_kit.config import TrainSettings, make_settings, read_yaml, write_yaml
from hpa_kit.config.compare import differences
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_path, forget_torn
from hpa_kit.training.checkpoint import BEST, LAST, SETTINGS, Checkpoint, read_checkpoint

FOLDS, METRICS, EVENTS = "folds.csv", "metrics.csv", "tensorboard"

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
        "folds_of",
    }
)  # fmt: skip
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


def open_run(settings: TrainSettings) -> Checkpoint | None:
    """Make a run folder ready: the checkpoint to go on from, or None for a fresh start.

    Where ``settings.resume_from`` is further than ``settings.out``, its files are copied there first.

    Raises:
        InputError: a folder holds a checkpoint of other settings, or a damaged one, or is a file; or there is
            none in ``resume_from``.
    """
    out = settings.out
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; expected a folder for the run")
    forget_torn(out)
    checkpoint = find_checkpoint(settings)
    if settings.resume_from is not None and _take_over(settings, settings.resume_from, checkpoint):
        checkpoint = find_checkpoint(settings)
    if checkpoint is None:
        _drop_folds_of_another_start(settings)
    write_yaml(settings, out / SETTINGS)
    return checkpoint


def find_checkpoint(settings: TrainSettings) -> Checkpoint | None:
    """What the run folder holds to go on from; nothing is written.

    Raises:
        InputError: it is of other settings, or damaged.
    """
    last = settings.out / LAST
    if not last.exists():
        return None
    checkpoint = read_checkpoint(last)
    _refuse_half(checkpoint, last)
    _refuse_other_settings(settings, checkpoint, last)
    return checkpoint


def _take_over(settings: TrainSettings, earlier: Path, found: Checkpoint | None) -> bool:
    """Copy the run of an earlier session to ``out``, unless that one is as far already; whether it was."""
    last = earlier / LAST
    if not last.is_file():
        raise InputError(
            f"resume_from: {earlier} holds no {LAST}; expected the run folder of an earlier hpa-kit train"
        )
    before = read_checkpoint(last, only=_NEEDED)
    _refuse_half(before, last)
    _refuse_other_settings(settings, before, last)
    if found is not None and _progress(found) >= _progress(before):
        return False
    shutil.rmtree(settings.out / EVENTS, ignore_errors=True)  # of steps that the earlier session has as well
    events = sorted(path.relative_to(earlier) for path in (earlier / EVENTS).rglob("*") if path.is_file())
    # The checkpoint comes last: without it a copy that was cut off is made anew.
    for name in (Path(FOLDS), Path(METRICS), *events, Path(BEST), Path(LAST)):
        if (earlier / name).is_file():
            with atomic_path(settings.out / name) as temporary:
                shutil.copyfile(earlier / name, temporary)
    return True


def _refuse_half(checkpoint: Checkpoint, path: Path) -> None:
    """Refuse what no run can go on from, such as the best weights under the other name."""
    lacking = [name for name in _NEEDED if name not in checkpoint.state]
    if lacking:
        raise InputError(
            f"checkpoint: {path} lacks {', '.join(lacking)}, which going on needs; delete it to start anew"
        )


def _progress(checkpoint: Checkpoint) -> tuple[int, int]:
    """How far a run is; an epoch is further when it has been validated than when its steps are done."""
    return checkpoint.state["step_number"], checkpoint.state["epoch"]


def _refuse_other_settings(now: TrainSettings, checkpoint: Checkpoint, path: Path) -> None:
    # Through the class, so that a setting younger than the checkpoint has its default there.
    before = make_settings(type(now), checkpoint.settings, source=f"checkpoint: {path}")
    listed = differences(before, now, _FREE, _MOVABLE)
    if listed:
        raise InputError(
            f"train: the run in {path.parent} was started with {listed}; "
            "give these again to go on, or another --out"
        )


def _drop_folds_of_another_start(settings: TrainSettings) -> None:
    """Forget folds that a start without any checkpoint made for other data, folds or seed.

    Folds without settings beside them were put there by the user and are kept.
    """
    path = settings.out / SETTINGS
    if not path.is_file():
        return
    try:
        old = make_settings(TrainSettings, read_yaml(path), source=str(path))
    except InputError:
        old = None
    if old is None or any(getattr(old, name) != getattr(settings, name) for name in _OF_FOLDS):
        (settings.out / FOLDS).unlink(missing_ok=True)
