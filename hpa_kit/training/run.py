"""A run folder: what is in it, and whether a run may go on there."""

from typing import Any

import yaml

from hpa_kit.config import TrainSettings, make_settings, write_yaml
from hpa_kit.errors import InputError
from hpa_kit.training.checkpoint import LAST, Checkpoint, read_checkpoint

SETTINGS, FOLDS, METRICS = "settings.yaml", "folds.csv", "metrics.csv"

# These may change between two starts of a run: where things lie and what computes, not what is computed.
_FREE = frozenset({"data", "out", "workers", "cache", "device"})
_OF_FOLDS = ("data", "folds", "seed")


def open_run(settings: TrainSettings) -> Checkpoint | None:
    """Make a run folder ready: the checkpoint to go on from, or None for a fresh start.

    Raises:
        InputError: the folder holds a checkpoint of other settings, or a damaged one, or is a file.
    """
    out = settings.out
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; expected a folder for the run")
    last = out / LAST
    checkpoint = None
    if last.exists():
        checkpoint = read_checkpoint(last)
        # Through the class, so that a setting younger than the checkpoint has its default there.
        before = make_settings(type(settings), checkpoint.settings, source=f"checkpoint: {last}")
        _refuse_other_settings(before, settings)
    else:
        _drop_folds_of_another_start(settings)
    write_yaml(settings, out / SETTINGS)
    return checkpoint


def _refuse_other_settings(before: TrainSettings, now: TrainSettings) -> None:
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    differing = [name for name in new if name not in _FREE and old[name] != new[name]]
    if differing:
        listed = ", ".join(f"{name} {old[name]} (now {new[name]})" for name in differing)
        raise InputError(
            f"train: the run in {now.out} was started with {listed}; "
            "give these again to go on, or another --out"
        )


def _drop_folds_of_another_start(settings: TrainSettings) -> None:
    """Forget folds that a start without any finished epoch made for other data, folds or seed.

    Folds without settings beside them were put there by the user and are kept.
    """
    path = settings.out / SETTINGS
    if not path.is_file():
        return
    new = settings.model_dump(mode="json")
    try:
        old: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        old = None
    if not isinstance(old, dict) or any(old.get(name) != new[name] for name in _OF_FOLDS):
        (settings.out / FOLDS).unlink(missing_ok=True)
