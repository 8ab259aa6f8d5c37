"""A run: epochs, validation, checkpoints, time; one way through, open to variants."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hpa_kit.config import TrainSettings
from hpa_kit.progress import Bar, progress_bar
from hpa_kit.training.checkpoint import BEST, LAST, Checkpoint, write_checkpoint
from hpa_kit.training.clock import Clock, Verdict, Work
from hpa_kit.training.contents import contents_of, refuse_other_contents
from hpa_kit.training.data import TrainingData, load_training_data
from hpa_kit.training.dataset import Loader
from hpa_kit.training.learner import Learner
from hpa_kit.training.log import Metrics, RunLog, write_metrics
from hpa_kit.training.processes import say_idle_gpus
from hpa_kit.training.run import METRICS, find_checkpoint, open_run
from hpa_kit.training.running import Running
from hpa_kit.training.state import best_state, last_state, restore, state_bytes

log = logging.getLogger(__name__)


AfterEpoch = Callable[[int, nn.Module], None]


def train(settings: TrainSettings, after_epoch: AfterEpoch | None = None) -> Path:
    """Train a network on image labels or pseudo labels, or go on with the run that ``settings.out`` holds.

    A run that was killed at any moment goes on after its last checkpoint, of which there is one at the end of
    every epoch and every ``checkpoint_minutes`` within, and ends, on a CPU, with the same weights as one that
    was left alone. So does one that ``time_limit`` ended, in ``out`` or, by ``resume_from``, elsewhere. A
    finished run returns at once. Under ``torchrun`` one process per GPU takes its share of every batch.

    Args:
        settings: see :class:`~hpa_kit.config.TrainSettings`.
        after_epoch: is given each finished epoch's number and network, in evaluation mode, to look at.

    Returns:
        The run folder: ``settings.yaml``, ``folds.csv``, ``best.safetensors`` (lowest validation loss),
        ``last.safetensors`` (all that resuming needs), ``metrics.csv``, ``tensorboard/``.

    Raises:
        InputError: data or settings cannot be used, a folder holds a run of other settings, or the loss
            became infinite or NaN.
    """
    return Trainer(settings, after_epoch).fit()


class Trainer(Learner):
    """One run; what differs between kinds of runs is their data and their objective.

    Attributes:
        clock: watches this session's time.
        history: the metrics of each epoch done; ``best``: the lowest validation loss in it.
        fingerprint: of the fields, their labels and folds; ``contents``: of other files that it learns by.
    """

    def __init__(self, settings: TrainSettings, after_epoch: AfterEpoch | None = None) -> None:
        self.after_epoch = after_epoch
        self.clock = Clock(settings)
        super().__init__(settings)
        self.best = math.inf
        self.history: list[Metrics] = []
        self.fingerprint = ""
        self.contents: dict[str, str] = {}

    # What variants override, beside the model and the objective.

    def load_data(self) -> TrainingData:
        """Batches to learn from and to validate on."""
        if self.settings.network == "unet":
            from hpa_kit.training.segmentation import load_segmentation_data

            return load_segmentation_data(self.settings, self.device, self.processes)
        return load_training_data(self.settings, self.device, self.processes)

    @torch.inference_mode()
    def validate(self, model: nn.Module, loader: Loader) -> Metrics:
        """Metrics on the held-out fold; the lowest ``val_loss`` marks the best checkpoint."""
        model.eval()
        with self._autocast():
            return self.objective.judge(model, loader.epoch(0))

    # The one way through.

    def fit(self) -> Path:
        """Train to the last epoch, or until the time is up; see :func:`train`."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        say_idle_gpus(self.settings)
        with self.processes.joined(self.device):
            self._fit()
        return self.settings.out

    def _fit(self) -> None:
        settings, first = self.settings, self.processes.first
        checkpoint = self.processes.first_alone(self._open if first else lambda: find_checkpoint(settings))
        self.contents = contents_of(settings)
        if checkpoint is not None:
            refuse_other_contents(checkpoint.state.get("contents", {}), self.contents, settings)
        if checkpoint is not None and checkpoint.state["epoch"] >= settings.epochs:
            if first:
                write_metrics(settings.out / METRICS, checkpoint.state["history"])
            return
        torch.manual_seed(settings.seed)
        data = self.processes.first_alone(self.load_data)
        self.build(data.folds, fresh=checkpoint is None)
        self.schedule(len(data.train))
        self.fingerprint = data.fingerprint
        self.contents = {**self.contents, **data.contents}
        share = self.processes.world * sum(data.validation.sizes) / sum(data.train.sizes)
        self.clock.expect(state_bytes(self), share)
        if checkpoint is not None:
            restore(self, checkpoint)
        events = RunLog(settings.out, settings, self.history) if first else None
        try:
            while self.epoch < settings.epochs and self._run_epoch(self.epoch + 1, data, events):
                pass
        finally:
            if events is not None:
                events.close()

    def _open(self) -> Checkpoint | None:
        """What to go on from; a run that starts is refused before its folder is made."""
        if not (self.settings.out / LAST).exists() and self.settings.resume_from is None:
            self.try_network()
        return open_run(self.settings)

    def after_update(self) -> bool:
        """Keep a checkpoint where it is time to; whether the next step still fits."""
        verdict = self.processes.agree(self.clock.tick())
        line = self.clock.forecast(self._work_left(), self.device)
        if line is not None:
            self._say(line)
        if verdict == Verdict.SAVE:
            self._write_last()
        return verdict != Verdict.STOP

    def _run_epoch(self, epoch: int, data: TrainingData, events: RunLog | None) -> bool:
        """Learn, validate, keep; False where the time is up."""
        started = time.perf_counter()
        text, quiet = f"epoch {epoch}/{self.settings.epochs}", not self.processes.first
        with progress_bar(text, len(data.train), "step", quiet=quiet) as bar:
            self.clock.start()
            learnt = self.learn(epoch, data.train, bar)
            if learnt is None or not self.processes.agree(self.clock.validation_fits(self.steps_per_epoch)):
                self._write_last()
                return self._stop(len(data.train))
            with self._autocast():  # all processes: batch norm of several GPUs looks at the whole batch
                self.averages.measure_statistics(data.train.epoch(epoch))
            metrics: Metrics = {"epoch": epoch, **learnt}
            if events is not None:
                metrics |= self._judge(epoch, data.validation)
                _show(bar, metrics)
        self.epoch, self.running = epoch, Running()
        if events is not None:
            self._keep(metrics, events, time.perf_counter() - started)
        # `last` is what resuming reads, so it is written last: a kill before it costs this epoch, which is
        # then done again with the same result, and nothing else.
        self._write_last()
        fits = epoch == self.settings.epochs or self.processes.agree(self.clock.fits(0))
        return bool(fits) or self._stop(len(data.train))

    def _judge(self, epoch: int, validation: Loader) -> Metrics:
        with self.clock.validating():
            metrics = self.validate(self.averages.best_of(self.model), validation)
        self._check_finite(metrics["val_loss"], epoch)
        return metrics

    def _keep(self, metrics: Metrics, events: RunLog, seconds: float) -> None:
        """Of a finished epoch: its metrics, and its weights where they are the best until now."""
        self.history.append(metrics)
        if metrics["val_loss"] < self.best:
            self.best = metrics["val_loss"]
            self._write_best(metrics)
        events.add(self.history, {"seconds": seconds})
        if self.after_epoch is not None:
            self.after_epoch(int(metrics["epoch"]), self.averages.best_of(self.model).eval())

    def _write_best(self, metrics: Metrics) -> None:
        write_checkpoint(self.settings.out / BEST, self.settings, best_state(self, metrics))

    def _write_last(self) -> None:
        with self.clock.writing():
            state = last_state(self)
            if self.processes.first:
                write_checkpoint(self.settings.out / LAST, self.settings, state)

    def _stop(self, batches: int) -> bool:
        """Say where the time limit ended the run; False, as it does not go on."""
        done = self.running.batches
        part = f" and {done} of {batches} batches of the next" if done else ""
        self._say(
            f"train: stopped by the time limit of {self.settings.time_limit:g} h, after {self.epoch} of "
            f"{self.settings.epochs} epochs{part}; the same command goes on, in a new session with "
            f"--resume-from {self.settings.out} where it lies then"
        )
        return False

    def _say(self, line: str) -> None:
        """Log a line, once for all processes."""
        if self.processes.first:
            log.info(line)

    def _work_left(self) -> Work:
        epochs = self.settings.epochs
        return Work(
            steps=self.total_steps - self.step_number,
            validations=epochs - self.epoch,
            steps_per_epoch=self.steps_per_epoch,
            epoch=self.epoch,
            epochs=epochs,
        )


def _show(bar: Bar, metrics: Metrics) -> None:
    """The epoch's result behind its bar."""
    names = {"train_loss": "loss", "val_loss": "val", "macro_f1": "f1"}
    bar.set_postfix({short: f"{metrics[name]:.4f}" for name, short in names.items() if name in metrics})
