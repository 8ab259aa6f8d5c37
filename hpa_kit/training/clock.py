"""The time of a session: when to keep a checkpoint, when to stop, and what the run is going to take."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple

import torch

from hpa_kit.config import LimitSettings
from hpa_kit.timing import peak_memory

# The first steps choose algorithms and fill queues; what a run takes is read from those after them.
_WARM_UP, _STEPS_TO_FORECAST = 5, 20
# Beside a step and a checkpoint, this much of the limit stays unused, for whatever a machine does at its end.
_MARGIN, _LARGEST_MARGIN = 0.02, 120.0
_SLOW_DISK = 5e7  # bytes a second, until a checkpoint has been written
_VALIDATING = 0.6  # a validation field's time against a training field's, until a validation has been seen


class Verdict(IntEnum):
    """What follows a step."""

    GO_ON = 0
    SAVE = 1
    STOP = 2


class Work(NamedTuple):
    """How much is left: updates of the weights, validations, epochs done and of the whole run."""

    steps: int
    validations: int
    steps_per_epoch: int
    epoch: int
    epochs: int


class Clock:
    """Watches one session of a run.

    Args:
        limits: ``hours``, from now on, and ``checkpoint_minutes``.
        now: gives seconds.
    """

    def __init__(self, limits: LimitSettings, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started = self._saved = self._ticked = now()
        self.limit = math.inf if limits.hours is None else limits.hours * 3600
        self._between_saves = limits.checkpoint_minutes * 60
        self.steps = 0
        self._slowest = self._writing = 0.0
        self._counted = self._counted_seconds = 0.0
        self._validation: float | None = None
        self._validation_share = _VALIDATING

    def expect(self, state_bytes: int, validation_share: float) -> None:
        """Guess what has not been seen yet.

        Args:
            state_bytes: size of a checkpoint.
            validation_share: fields that the first process validates on, against those it learns from.
        """
        self._writing = state_bytes / _SLOW_DISK
        self._validation_share = validation_share * _VALIDATING

    def start(self) -> None:
        """Steps follow: time from here on is theirs."""
        self._ticked = self._now()

    def tick(self) -> Verdict:
        """An update of the weights is done."""
        now = self._now()
        seconds, self._ticked = now - self._ticked, now
        self.steps += 1
        self._slowest = seconds if self.steps <= _WARM_UP else max(0.95 * self._slowest, seconds)
        if self.steps > _WARM_UP:
            self._counted += 1
            self._counted_seconds += seconds
        if not self.fits(self._slowest):
            return Verdict.STOP
        return Verdict.SAVE if now - self._saved > self._between_saves else Verdict.GO_ON

    def fits(self, seconds: float) -> bool:
        """Whether work of some seconds and the checkpoint after it end within the limit."""
        margin = min(_MARGIN * self.limit, _LARGEST_MARGIN)
        return self._now() + seconds + 1.5 * self._writing + margin <= self._started + self.limit

    def validation_fits(self, steps_per_epoch: int) -> bool:
        """Whether a validation still fits; a session that has done nothing else does it in any case."""
        return self.steps == 0 or self.fits(1.2 * self._validation_seconds(steps_per_epoch))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A block that writes a checkpoint."""
        started = self._now()
        yield
        self._saved = self._now()
        self._writing = self._saved - started
        self.start()

    @contextmanager
    def validating(self) -> Iterator[None]:
        """A block that validates."""
        started = self._now()
        yield
        self._validation = self._now() - started

    def forecast(self, left: Work, device: torch.device) -> str | None:
        """Once, after the first steps: what is left takes, in one line; None at all other times."""
        if self.steps != _STEPS_TO_FORECAST:
            return None
        step, validation = self._step_seconds(), self._validation_seconds(left.steps_per_epoch)
        seconds = left.steps * step + left.validations * validation
        line = (
            f"train: {step:.3g} s a step; the {left.steps:,} steps and {left.validations} validations that "
            f"are left take about {_hours(seconds)}; {_memory(device)}"
        )
        if self.limit == math.inf:
            return line
        spare = self._started + self.limit - self._now()
        if seconds <= spare:
            return f"{line}; the time limit of {_hours(self.limit)} is enough"
        epochs = left.epoch + spare / (left.steps_per_epoch * step + validation)
        return (
            f"{line}; the time limit of {_hours(self.limit)} ends it at about epoch {epochs:.1f} of "
            f"{left.epochs}, to be gone on with"
        )

    def _step_seconds(self) -> float:
        return self._counted_seconds / self._counted if self._counted else self._slowest

    def _validation_seconds(self, steps_per_epoch: int) -> float:
        if self._validation is not None:
            return self._validation
        return self._validation_share * steps_per_epoch * self._step_seconds()


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _memory(device: torch.device) -> str:
    """The most memory that was used until now."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_reserved(device) / 2**30:.1f} GiB of GPU memory"
    return f"{peak_memory() / 2**30:.1f} GiB of memory"
