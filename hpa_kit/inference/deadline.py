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
# A level that saves less than this part of the time saves nothing: something else takes the time.
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
        members: predicting it.
        scoring: making scores and strings.
        whole: from when it was asked for till the next one was.
        scored: level and number of the fields that were scored meanwhile, those of the batch before; None
            where they are this batch's own.
    """

    ready: float
    members: float
    scoring: float
    whole: float
    scored: tuple[int, int] | None = None


class Part:
    """What a part of the work takes for a field at each level: as measured, else told from its cost.

    Args:
        costs: of the levels: what its time grows with.
    """

    def __init__(self, costs: Sequence[float]) -> None:
        self.costs = list(costs)
        self._by_level = [Mean() for _ in costs]
        self._per_cost = Mean()

    def add(self, level: int, seconds: float) -> None:
        """Take the seconds of a field at a level into account."""
        self._by_level[level].add(seconds)
        self._per_cost.add(seconds / self.costs[level])

    def reprice(self, costs: Sequence[float], level: int) -> None:
        """Take other costs for the same levels; what was measured at a level stays what it was."""
        self._per_cost.value *= self.costs[level] / costs[level]
        self.costs = list(costs)

    def tried(self, level: int | None = None) -> bool:
        """Whether it was measured at a level, or at any."""
        return (self._per_cost if level is None else self._by_level[level]).count > 0

    def takes(self, level: int) -> float:
        """Seconds of a field at a level; 0 before anything was measured."""
        return self._by_level[level].value if self.tried(level) else self._per_cost.value * self.costs[level]


class Deadline:
    """Measures what a field takes, and chooses how much is done for the next batch.

    A device, with threads of its own, takes for a field what the slowest of its parts takes, as they
    overlap: making the field ready, the members, the scores; and what was measured beyond that. What members
    and scores take at a level that has not been tried is told from its cost. Chosen is the highest level
    at which all fields that are left are done in time. Where there is none, it is the highest that hardly
    takes longer than the least does, and in the end some fields are left undone; but before that each lower
    level is tried for a batch, as costs may be wrong. Nothing stands in the way of going up again, but more
    time must be left for that. Methods may be called by several threads.

    Args:
        budget: the time to end by.
        fields: number of fields to do.
        costs: of the levels, from full to least: what the members' time grows with.
        devices: how many share the fields.
        scoring_costs: what the time of scoring grows with; by default it is the same at all levels.
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
        self.level = 0
        self._lock = threading.Lock()
        self._ready, self._beyond = Mean(), Mean()
        self._members = Part(costs)
        self._scoring = Part([1.0] * len(costs) if scoring_costs is None else scoring_costs)
        self._levels = range(len(costs))

    def choose(self, fields: int) -> int | None:
        """The level for the next batch, or None where there is no time for it.

        Args:
            fields: in the batch.
        """
        with self._lock:
            seconds_left = self.budget.left()
            if seconds_left <= 0:
                return None
            if not self._members.tried():
                return self.level
            self.level = self._highest_in_time(seconds_left)
            # This batch is ready; the last ones may be done with less where that still comes in time.
            for level in self._levels[self.level :]:
                if (self._members.takes(level) + self._scoring.takes(level)) * fields <= seconds_left:
                    return level
            return None

    def add(self, level: int, fields: int, good: int, spent: BatchSeconds) -> None:
        """Take a batch's seconds into account.

        Args:
            level: that was done for it.
            fields: of the batch.
            good: of them that the members predicted.
            spent: where the time went.
        """
        with self._lock:
            self.left -= fields
            self._ready.add(spent.ready / fields)
            if good:
                self._members.add(level, spent.members / good)
            at, scored = spent.scored or (level, good)
            if scored:
                self._scoring.add(at, spent.scoring / scored)
            self._beyond.add(max(0.0, spent.whole / fields - self._slowest(level)))

    def reprice(self, costs: Sequence[float]) -> None:
        """Take other costs of the members for the same levels, as where they hang on what fields hold."""
        with self._lock:
            self._members.reprice(costs, self.level)

    def per_field(self, level: int) -> float:
        """Seconds that a device takes for a field at a level."""
        return self._slowest(level) + self._beyond.value

    def expected(self) -> float:
        """Seconds that the fields left will take at the present level."""
        return self.per_field(self.level) * self.left / self.devices

    def parts(self) -> dict[str, float]:
        """Seconds per field of the members and of scoring, as measured."""
        return {"members": self._members.takes(self.level), "scoring": self._scoring.takes(self.level)}

    def _slowest(self, level: int) -> float:
        return max(self._members.takes(level), self._scoring.takes(level), self._ready.value)

    def _highest_in_time(self, seconds_left: float) -> int:
        each = [self.per_field(level) for level in self._levels]
        for level, seconds in enumerate(each):
            margin = MARGIN_UP if level < self.level else MARGIN
            if seconds * self.left / self.devices <= seconds_left * (1 - margin):
                return level
        best = next(level for level, seconds in enumerate(each) if seconds <= min(each) * (1 + SAVES))
        if self._slowest(best) <= self._ready.value * (1 + SAVES):
            return best  # it waits for the disk, which no level makes faster
        untried = (level for level in self._levels[best + 1 :] if not self._members.tried(level))
        return next(untried, best)
