"""The clock: how much can be done for each field so that all are done in time."""

import math
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple

Now = Callable[[], float]  # seconds from any zero on

# How much the latest batch counts in a mean: three or four batches are remembered.
LATEST = 0.3
# Part of the time left that is not planned with, and how much more it must be before more is done again.
MARGIN = 0.05
MARGIN_UP = 0.15
# An effort that saves less than this part of the time saves nothing: something else takes the time.
SAVES = 0.05


class Budget:
    """A time to end by.

    Args:
        seconds: what all may take.
        spent: seconds of them that are gone already.
        now: the clock.

    Attributes:
        reserve: seconds that the end itself takes, such as writing the CSV.
    """

    def __init__(self, seconds: float = math.inf, spent: float = 0.0, now: Now = monotonic) -> None:
        self.seconds = seconds
        self.now = now
        self.reserve = 0.0
        self._end = now() + seconds - spent

    def left(self) -> float:
        """Seconds left for fields; below 0 when it is over."""
        return self._end - self.reserve - self.now()


class Mean:
    """A mean of which the latest values count most; the first is forgotten when there is a second.

    The first batch waits for compilers, cold caches and a GPU that wakes up.
    """

    def __init__(self) -> None:
        self.value = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        """Take one more value into the mean."""
        latest = 1.0 if self.count < 2 else LATEST
        self.value += latest * (value - self.value)
        self.count += 1


class BatchSeconds(NamedTuple):
    """Seconds that a batch took.

    Attributes:
        ready: reading it, finding its cells, making it ready.
        members: looking at it.
        scoring: making scores and strings.
        whole: from when it was asked for till the next one was.
        scored: effort and number of the fields that were scored meanwhile, those of the batch before; None
            where they are this batch's own.
    """

    ready: float
    members: float
    scoring: float
    whole: float
    scored: tuple[int, int] | None = None


class Part:
    """What a part of the work takes for a field at each effort: as measured, else told from its cost.

    Args:
        costs: of the efforts: what its time grows with.
    """

    def __init__(self, costs: Sequence[float]) -> None:
        self.costs = list(costs)
        self._by_effort = [Mean() for _ in costs]
        self._per_cost = Mean()

    def add(self, effort: int, seconds: float) -> None:
        """Take the seconds of a field at an effort into account."""
        self._by_effort[effort].add(seconds)
        self._per_cost.add(seconds / self.costs[effort])

    def tried(self, effort: int | None = None) -> bool:
        """Whether it was measured at an effort, or at any."""
        return (self._per_cost if effort is None else self._by_effort[effort]).count > 0

    def takes(self, effort: int) -> float:
        """Seconds of a field at an effort; 0 before anything was measured."""
        return (
            self._by_effort[effort].value if self.tried(effort) else self._per_cost.value * self.costs[effort]
        )


class Deadline:
    """Measures what a field takes, and chooses how much is done for the next batch.

    A device, with threads of its own, takes for a field what the slowest of its parts takes, as they
    overlap: making the field ready, the members, the scores; and what was measured beyond that. What members
    and scores take at an effort that has not been tried is told from its cost. Chosen is the highest effort
    at which all fields that are left are done in time. Where there is none, it is the highest that hardly
    takes longer than the least does, and in the end some fields are left undone; but before that each lower
    effort is tried for a batch, as costs may be wrong. Nothing stands in the way of going up again, but more
    time must be left for that. Methods may be called by several threads.

    Args:
        budget: the time to end by.
        fields: number of fields to do.
        costs: of the efforts, from full to least: what the members' time grows with.
        devices: how many share the fields.
        scoring_costs: what the time of scoring grows with; by default it is the same at all efforts.
    """

    def __init__(
        self,
        budget: Budget,
        fields: int,
        costs: Sequence[float],
        devices: int = 1,
        scoring_costs: Sequence[float] | None = None,
    ) -> None:
        self.budget, self.left, self.devices = budget, fields, devices
        self.effort = 0
        self._lock = threading.Lock()
        self._ready, self._beyond = Mean(), Mean()
        self._members = Part(costs)
        self._scoring = Part([1.0] * len(costs) if scoring_costs is None else scoring_costs)
        self._efforts = range(len(costs))

    def choose(self, fields: int) -> int | None:
        """The effort for the next batch, or None where there is no time for it.

        Args:
            fields: in the batch.
        """
        with self._lock:
            seconds_left = self.budget.left()
            if seconds_left <= 0:
                return None
            if not self._members.tried():
                return self.effort
            self.effort = self._highest_in_time(seconds_left)
            # This batch is ready; the last ones may be done with less where that still comes in time.
            for effort in self._efforts[self.effort :]:
                if (self._members.takes(effort) + self._scoring.takes(effort)) * fields <= seconds_left:
                    return effort
            return None

    def add(self, effort: int, fields: int, good: int, spent: BatchSeconds) -> None:
        """Take a batch's seconds into account.

        Args:
            effort: that was done for it.
            fields: of the batch.
            good: of them that the members looked at.
            spent: where the time went.
        """
        with self._lock:
            self.left -= fields
            self._ready.add(spent.ready / fields)
            if good:
                self._members.add(effort, spent.members / good)
            at, scored = spent.scored or (effort, good)
            if scored:
                self._scoring.add(at, spent.scoring / scored)
            self._beyond.add(max(0.0, spent.whole / fields - self._slowest(effort)))

    def per_field(self, effort: int) -> float:
        """Seconds that a device takes for a field at an effort."""
        return self._slowest(effort) + self._beyond.value

    def expected(self) -> float:
        """Seconds that the fields left will take at the present effort."""
        return self.per_field(self.effort) * self.left / self.devices

    def parts(self) -> dict[str, float]:
        """Seconds per field of the members and of scoring, as measured."""
        return {"members": self._members.takes(self.effort), "scoring": self._scoring.takes(self.effort)}

    def _slowest(self, effort: int) -> float:
        return max(self._members.takes(effort), self._scoring.takes(effort), self._ready.value)

    def _highest_in_time(self, seconds_left: float) -> int:
        each = [self.per_field(effort) for effort in self._efforts]
        for effort, seconds in enumerate(each):
            margin = MARGIN_UP if effort < self.effort else MARGIN
            if seconds * self.left / self.devices <= seconds_left * (1 - margin):
                return effort
        best = next(effort for effort, seconds in enumerate(each) if seconds <= min(each) * (1 + SAVES))
        if self._slowest(best) <= self._ready.value * (1 + SAVES):
            return best  # it waits for the disk, which no effort makes faster
        untried = (effort for effort in self._efforts[best + 1 :] if not self._members.tried(effort))
        return next(untried, best)
