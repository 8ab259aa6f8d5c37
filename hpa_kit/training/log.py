"""What a run says about itself: metrics.csv, and TensorBoard's scalars and hyper-parameters."""

import csv
import io
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hpa_kit.config import TrainSettings
from hpa_kit.files import atomic_text
from hpa_kit.training.run_folder import METRICS

Metrics = dict[str, float]


class RunLog:
    """Writes each epoch's metrics of a run.

    Args:
        folder: the run's folder.
        settings: shown as TensorBoard's hyper-parameters.
        history: metrics of the epochs done before, one mapping each; the first column is ``epoch``.
    """

    def __init__(self, folder: Path, settings: TrainSettings, history: Sequence[Metrics]) -> None:
        self.folder = folder
        if history:
            write_metrics(folder / METRICS, history)
        # Events of epochs that were cut off and are done again are hidden.
        self.writer = _summary_writer(folder / "tensorboard", purge_step=len(history) + 1)
        self._write_hyper_parameters(settings)

    def add(self, history: Sequence[Metrics], timings: Mapping[str, float]) -> None:
        """Add the last epoch; ``timings`` go to TensorBoard only, so that the CSV of equal runs is equal."""
        write_metrics(self.folder / METRICS, history)
        step = int(history[-1]["epoch"])
        for name, value in {**history[-1], **timings}.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        self.writer.close()

    def _write_hyper_parameters(self, settings: TrainSettings) -> None:
        """At the start, so that a run that is cut off shows them too; the scalars are its metrics."""
        from torch.utils.tensorboard.summary import hparams

        values = {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name, value in settings.model_dump(mode="json").items()
        }
        experiment, start, _ = hparams(values, {"val_loss": 0.0, "macro_f1": 0.0})
        self.writer.file_writer.add_summary(experiment)
        self.writer.file_writer.add_summary(start)
        self.writer.flush()


def write_metrics(path: Path, rows: Sequence[Metrics]) -> None:
    """Write metrics as CSV, atomically: one row per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_text(path, text.getvalue())


def read_scalars(folder: Path, name: str) -> dict[int, float]:
    """The values of one TensorBoard scalar by step; of a step that was done twice the last one.

    What a killed run left half written at a file's end is passed over.

    Args:
        folder: with event files; a missing one holds none.
        name: the scalar's.
    """
    _without_tensorflow()
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[int, float] = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=_numbers_of):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag == name and value.tensor.float_val:
                    found[int(event.step)] = float(value.tensor.float_val[0])
    return found


def _numbers_of(path: Path) -> list[int]:
    """The order of event files: their second, process and number, which as text would put 10 before 9."""
    return [int(number) for number in re.findall(r"\d+", path.name.removeprefix("events.out.tfevents."))]


def _summary_writer(folder: Path, purge_step: int) -> Any:
    """TensorBoard's writer without TensorFlow."""
    _without_tensorflow()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=purge_step)


def _without_tensorflow() -> None:
    """Have tensorboard use its own file access.

    It imports TensorFlow for that wherever it is installed, which takes seconds and GPU memory; this module's
    presence is the switch that it looks for to use its own.
    """
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
