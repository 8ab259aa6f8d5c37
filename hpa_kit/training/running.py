"""What an epoch has come to so far: its batches and the sums of their losses."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpa_kit.training.log import Metrics
from hpa_kit.training.processes import Processes


class Running:
    """Sums of an epoch's losses over its fields; they stay on the device until somebody asks.

    Attributes:
        batches: how many are done.
        seen: fields that this process has learnt from.
    """

    def __init__(self) -> None:
        self.batches = self.seen = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: Mapping[str, Tensor], fields: int) -> None:
        """Add a batch: the means of its losses, over so many fields."""
        self.batches += 1
        self.seen += fields
        for name, loss in losses.items():
            total = loss.float() * fields
            self._sums[name] = self._sums[name] + total if name in self._sums else total

    def mean(self) -> float:
        """The loss of this process, all parts of it together."""
        return sum(float(total) for total in self._sums.values()) / self.seen if self.seen else math.nan

    def metrics(self, processes: Processes) -> Metrics:
        """Means over the fields of all processes: ``train_loss`` and, where it has several, its parts."""
        totals = processes.total({name: float(total) for name, total in self._sums.items()})
        seen = processes.total({"seen": self.seen})["seen"]
        means = {name: total / seen for name, total in totals.items()}
        parts = {f"train_{name}": mean for name, mean in means.items()} if len(means) > 1 else {}
        return {"train_loss": sum(means.values()), **parts}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this process."""
        return {
            "batches": self.batches,
            "seen": self.seen,
            "sums": {name: float(total) for name, total in self._sums.items()},
        }

    @classmethod
    def restored(cls, states: list[dict[str, Any]], processes: Processes, device: torch.device) -> "Running":
        """Go on from the states of all processes of a checkpoint, which may have been another number.

        Then the first process has what all had come to.
        """
        running = cls()
        running.batches = states[0]["batches"]
        if len(states) == processes.world:
            mine = states[processes.rank]
            running.seen, sums = mine["seen"], mine["sums"]
        else:
            share = 1 if processes.first else 0
            running.seen = share * sum(state["seen"] for state in states)
            sums = {name: share * sum(state["sums"][name] for state in states) for name in states[0]["sums"]}
        running._sums = {name: torch.tensor(total, device=device) for name, total in sums.items()}
        return running
