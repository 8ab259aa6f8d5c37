"""A run, from settings to checkpoints: a step, an epoch, a validation, and epoch after epoch to the end."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.progress import Bar, progress_bar
from hpa_kit.training.checkpoint import BEST, LAST, Checkpoint, write_checkpoint
from hpa_kit.training.clock import Clock, Verdict, Work
from hpa_kit.training.data import Batch, Loader, TrainingData, fingerprint_of
from hpa_kit.training.log import Metrics, RunLog, write_metrics
from hpa_kit.training.member import build_network, learns_with_all_weights, refuse_what_cannot_learn
from hpa_kit.training.objectives.base import Losses, Objective, objective_of
from hpa_kit.training.optimisation import Averages, Schedule, make_optimiser
from hpa_kit.training.processes import Processes, say_idle_gpus
from hpa_kit.training.run_folder import (
    METRICS,
    as_started,
    contents_of,
    find_checkpoint,
    open_run,
    refuse_other_data,
    with_label_round,
)
from hpa_kit.training.run_state import EpochSums, RunState

log = logging.getLogger(__name__)

# Reading the loss makes the host wait for the GPU, so the bar asks for it this seldom.
_SECONDS_BETWEEN_LOOKS = 0.5

AfterEpoch = Callable[[int, nn.Module], None]


def train(settings: TrainSettings, after_epoch: AfterEpoch | None = None) -> Path:
    """Train a network on image labels or pseudo labels, or go on with the run that ``settings.out`` holds.

    A run that was killed at any moment goes on after its last checkpoint, of which there is one at the end of
    every epoch and every ``checkpoint_minutes`` within, and ends, on a CPU, with the same weights as one that
    was left alone. So does one that ``time_limit`` ended, in ``out`` or, by ``resume_from``, elsewhere. A
    finished run of the same fields and labels returns at once. Under ``torchrun`` one process per GPU takes
    its share of every batch.

    Args:
        settings: see :class:`~hpa_kit.config.TrainSettings`.
        after_epoch: is given each finished epoch's number and network, in evaluation mode, to look at.

    Returns:
        The run folder: ``settings.yaml``, ``folds.csv``, ``best.safetensors`` (lowest validation loss),
        ``last.safetensors`` (all that resuming needs), ``metrics.csv``, ``tensorboard/``.

    Raises:
        InputError: data or settings cannot be used, a folder holds a run of other settings or data, or the
            loss became infinite or NaN.
    """
    return Trainer(settings, after_epoch).fit()


class Trainer:
    """One run. What differs between kinds of networks is in their objective.

    Attributes:
        processes: the processes that train together, and this one's place among them.
        clock: watches this session's time.
        state: what the run has come to; there once it is built, as are the next.
        objective: what the network is trained for; ``schedule``: the learning rate of each update.
        steps_per_epoch, total_steps: updates of the weights.
    """

    state: RunState
    objective: Objective
    schedule: Schedule

    def __init__(self, settings: TrainSettings, after_epoch: AfterEpoch | None = None) -> None:
        self.settings, self.after_epoch = settings, after_epoch
        self.processes = Processes.here()
        self.device = self.processes.device(settings.device)
        self.amp = settings.amp and self.device.type == "cuda"
        self.clock = Clock(settings.limits)
        self.steps_per_epoch = self.total_steps = 0

    # What variants override.

    def load_data(self) -> TrainingData:
        """Batches to learn from and to validate on."""
        return objective_of(self.settings.network).load_data(self.settings, self.device, self.processes)

    def build_model(self, settings: TrainSettings) -> nn.Module:
        """The network with its initial weights; a resumed run asks for it without pretrained ones."""
        return build_network(settings)

    def build_objective(self, model: nn.Module, fields: pd.DataFrame) -> Objective:
        """What the network is trained for; ``fields`` has ID and Label of the fields by their number."""
        return objective_of(self.settings.network).of(self.settings, model, fields)

    @torch.inference_mode()
    def validate(self, model: nn.Module, loader: Loader) -> Metrics:
        """Metrics on the validation fold; the lowest ``val_loss`` marks the best checkpoint."""
        model.eval()
        with self._autocast():
            return self.objective.evaluate(model, loader.epoch(0))

    def after_update(self) -> bool:
        """Keep a checkpoint where it is time to; whether the next step still fits."""
        verdict = self.processes.agree(self.clock.tick())
        line = self.clock.forecast(self._work_left(), self.device)
        if line is not None:
            self._say(line)
        if verdict == Verdict.SAVE:
            self._write_last()
        return verdict != Verdict.STOP

    # The one way through.

    def fit(self) -> Path:
        """Train to the last epoch, or until the time is up; see :func:`train`."""
        self.complete_settings()
        settings, processes = self.settings, self.processes
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        say_idle_gpus(settings)
        if settings.all_fields:
            self._say(
                f"train: all fields are learnt from; metrics of fold {settings.fold} say little of others"
            )
        with processes.joined(self.device):
            checkpoint = processes.first_alone(self._open)
            if checkpoint is not None and checkpoint.state["epoch"] >= settings.epochs:
                if processes.first:
                    self._refuse_other_data(checkpoint)
                    write_metrics(settings.out / METRICS, checkpoint.state["history"])
                return settings.out
            torch.manual_seed(settings.seed)
            data = processes.first_alone(self.load_data)
            self.build(data, fresh=checkpoint is None)
            share = processes.world * sum(data.validation.sizes) / sum(data.train.sizes)
            self.clock.expect(self.state.size, share)
            if checkpoint is not None:
                self.state.restore(checkpoint, settings, processes, self.device)
            run_log = RunLog(settings.out, settings, self.state.history) if processes.first else None
            with closing(run_log) if run_log is not None else nullcontext():
                while self.state.epoch < settings.epochs and self._run_epoch(data, run_log):
                    pass
        return settings.out

    def complete_settings(self) -> None:
        """Where settings leave it open, take what the start of the run chose, or what the data decide."""
        self.settings = objective_of(self.settings.network).completed(
            with_label_round(as_started(self.settings))
        )

    def try_network(self) -> None:
        """Find out whether the network can learn as the settings say; nothing is kept.

        Raises:
            InputError: it cannot be built, or cannot learn from fields of that size or from so few at once;
                or what it would learn from is missing.
        """
        self.complete_settings()
        objective_of(self.settings.network).check(self.settings)
        alone = self.processes.fields_alone(self.settings.batch, self.device)
        refuse_what_cannot_learn(self.settings, self._bare_model, 1 if alone else 2)

    def _open(self) -> Checkpoint | None:
        """What to go on from; a run that starts is refused before its folder is made."""
        settings = self.settings
        if not self.processes.first:
            return find_checkpoint(settings)
        if not (settings.out / LAST).exists() and settings.resume_from is None:
            self.try_network()
        return open_run(settings)

    def _refuse_other_data(self, finished: Checkpoint) -> None:
        """Refuse a finished run of other data as one that goes on is; what is gone is not compared."""
        settings = self.settings
        read = (settings.data, settings.external, settings.external_images, settings.pseudo_labels)
        gone = [str(path) for path in read if path is not None and not path.exists()]
        if gone:
            log.info(f"train: {settings.out} is finished; {', '.join(gone)} is gone, and not compared")
            return
        fingerprint = fingerprint_of(objective_of(settings.network).fields(settings))
        refuse_other_data(settings, finished.state, fingerprint, contents_of(settings))

    def _bare_model(self) -> nn.Module:
        """The network with weights that come from no other file."""
        return self.build_model(self.settings.model_copy(update={"pretrained": None, "warm_start": None}))

    def build(self, data: TrainingData, fresh: bool = True) -> None:
        """Make the model and what trains it; pretrained weights are only read for a fresh run."""
        settings, processes, device = self.settings, self.processes, self.device
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        model = self.build_model(settings) if fresh else self._bare_model()
        model = processes.synchronised(model, device).to(device)
        if device.type == "cuda":  # on a CPU this order of the pixels is several times slower
            model.to(memory_format=torch.channels_last)
        self.objective = self.build_objective(model, data.folds).to(device)
        some_rest = processes.world > 1 and not learns_with_all_weights(settings, self._bare_model)
        self._shared = processes.shared(self.objective, some_rest)
        optimiser = make_optimiser(model, settings)
        # Some of timm's optimisers look at how the gradient itself changes.
        self._second_order = bool(getattr(optimiser, "is_second_order", False))
        self.steps_per_epoch = math.ceil(len(data.train) / settings.accumulate)
        self.total_steps = self.steps_per_epoch * settings.epochs
        self.schedule = Schedule(optimiser, settings, self.total_steps)
        self.state = RunState(
            model,
            optimiser,
            torch.amp.GradScaler(device.type, enabled=self.amp),
            Averages(model, settings, self.total_steps),
            fingerprint_of(data.folds),
            {**contents_of(settings), **data.contents},
        )
        if not processes.first:  # the weights are the same by now; dropout is to differ
            torch.manual_seed(settings.seed + processes.rank)

    def step(self, batch: Batch, weight: float = 1.0, update: bool = True) -> dict[str, Tensor]:
        """Forward, backward, update: the parts of the loss, still on the device.

        Args:
            batch: this process's share.
            weight: of its mean loss in the mean over all fields of the update.
            update: False gathers gradients for a later one.
        """
        state = self.state
        with self.processes.alone(self._shared, not update):
            with self._autocast():
                losses: Losses = self._shared(batch, state.step_number / self.total_steps)
            loss = torch.stack(list(losses.values())).sum() * weight
            state.scaler.scale(loss).backward(create_graph=self._second_order)
        if update:
            self.schedule.step_update(state.step_number)
            state.scaler.step(state.optimiser)
            state.scaler.update()
            state.optimiser.zero_grad(set_to_none=True)
            state.step_number += 1
            state.averages.update(state.model, state.step_number)
        return {name: loss.detach() for name, loss in losses.items()}

    def train_epoch(self, epoch: int, loader: Loader, bar: Bar) -> Metrics | None:
        """Learn once from all training fields, or from what is left of them; None where it was ended early.

        Returns:
            Mean losses, and the learning rate of the last step.
        """
        state, accumulate, sizes = self.state, self.settings.accumulate, loader.sizes
        state.model.train()
        looked = time.perf_counter()
        bar.update(state.sums.batches)
        for batch in loader.epoch(epoch, state.sums.batches):
            # Of all batches that share this one's update of the weights: their fields, and which is the last.
            start = state.sums.batches - state.sums.batches % accumulate
            together = sizes[start : start + accumulate]
            update = state.sums.batches + 1 == start + len(together)
            losses = self.step(batch, len(batch.targets) * self.processes.world / sum(together), update)
            state.sums.add(losses, len(batch.targets))
            bar.update()
            if time.perf_counter() - looked > _SECONDS_BETWEEN_LOOKS:
                mean = state.sums.mean()
                self._check_finite(mean, epoch)
                bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
                looked = time.perf_counter()
            if update and not self.after_update():
                return None
        metrics = state.sums.metrics(self.processes)
        self._check_finite(metrics["train_loss"], epoch)
        return {"lr": state.optimiser.param_groups[0]["lr"], **metrics}

    def _run_epoch(self, data: TrainingData, run_log: RunLog | None) -> bool:
        """Learn, validate, keep; False where the time is up."""
        state, processes, epoch = self.state, self.processes, self.state.epoch + 1
        started = time.perf_counter()
        text, quiet = f"epoch {epoch}/{self.settings.epochs}", not processes.first
        with progress_bar(text, len(data.train), "step", quiet=quiet) as bar:
            self.clock.start()
            learnt = self.train_epoch(epoch, data.train, bar)
            if learnt is None or not processes.agree(self.clock.validation_fits(self.steps_per_epoch)):
                self._write_last()
                return self._stop(len(data.train))
            with self._autocast():  # all processes: batch norm of several GPUs looks at the whole batch
                state.averages.measure_statistics(data.train.epoch(epoch), self.objective.logits)
            metrics: Metrics = {"epoch": epoch, **learnt}
            if processes.first:
                with self.clock.validating():
                    metrics |= self.validate(state.averages.best_of(state.model), data.validation)
                self._check_finite(metrics["val_loss"], epoch)
                shown = {"train_loss": "loss", "val_loss": "val", "macro_f1": "f1", "cells_met": "met"}
                bar.set_postfix({shown[name]: f"{metrics[name]:.4f}" for name in shown if name in metrics})
        state.epoch, state.sums = epoch, EpochSums()
        if run_log is not None:
            state.history.append(metrics)
            if metrics["val_loss"] < state.best:
                state.best = metrics["val_loss"]
                self._write_best()
            run_log.add(state.history, {"seconds": time.perf_counter() - started})
            if self.after_epoch is not None:
                self.after_epoch(epoch, state.averages.best_of(state.model).eval())
        # `last` is what resuming reads, so it is written last: a kill before it costs this epoch, which is
        # then done again with the same result, and nothing else.
        self._write_last()
        fits = epoch == self.settings.epochs or processes.agree(self.clock.fits(0))
        return bool(fits) or self._stop(len(data.train))

    def _write_best(self) -> None:
        write_checkpoint(self.settings.out / BEST, self.settings, self.state.best_checkpoint())

    def _write_last(self) -> None:
        with self.clock.writing():
            state = self.state.last_checkpoint(self.processes)
            if self.processes.first:
                write_checkpoint(self.settings.out / LAST, self.settings, state)

    def _stop(self, batches: int) -> bool:
        """Say where the time limit ended the run; False, as it does not go on."""
        settings, state = self.settings, self.state
        done = state.sums.batches
        part = f" and {done} of {batches} batches of the next" if done else ""
        self._say(
            f"train: stopped by the time limit of {settings.limits.hours:g} h, after {state.epoch} of "
            f"{settings.epochs} epochs{part}; the same command goes on, in a new session with "
            f"--resume-from {settings.out} where it lies then"
        )
        return False

    def _say(self, line: str) -> None:
        """Log a line, once for all processes."""
        if self.processes.first:
            log.info(line)

    def _work_left(self) -> Work:
        epochs = self.settings.epochs
        return Work(
            steps=self.total_steps - self.state.step_number,
            validations=epochs - self.state.epoch,
            steps_per_epoch=self.steps_per_epoch,
            epoch=self.state.epoch,
            epochs=epochs,
        )

    def _check_finite(self, loss: float, epoch: int) -> None:
        if math.isfinite(loss):
            return
        settings, done = self.settings, self.state.epoch
        kept = f"epoch {done} is kept in {settings.out}" if done else "no epoch was finished"
        raise InputError(
            f"train: the loss became {loss} in epoch {epoch}, {kept}; start again with a lower lr than "
            f"{settings.lr} and another --out"
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.float16, enabled=self.amp)
