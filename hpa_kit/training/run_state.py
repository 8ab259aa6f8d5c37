"""What a run has come to: all that training changes, as a checkpoint and back."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.training.checkpoint import LAST, Checkpoint
from hpa_kit.training.log import Metrics
from hpa_kit.training.member import load_weights
from hpa_kit.training.optimisation import Averages, optimiser_state, restore_optimiser
from hpa_kit.training.processes import Processes
from hpa_kit.training.run_folder import refuse_other_fields


class EpochSums:
    """What an epoch has come to so far: sums of its losses over its fields, on the device until asked for.

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
        sums = {name: float(total) for name, total in self._sums.items()}
        return {"batches": self.batches, "seen": self.seen, "sums": sums}

    @classmethod
    def restored(
        cls, states: list[dict[str, Any]], processes: Processes, device: torch.device
    ) -> "EpochSums":
        """Go on from the states of all processes of a checkpoint, which may have been another number.

        Then the first process has what all had come to.
        """
        restored = cls()
        restored.batches = states[0]["batches"]
        if len(states) == processes.world:
            mine = states[processes.rank]
            restored.seen, sums = mine["seen"], mine["sums"]
        else:
            share = 1 if processes.first else 0
            restored.seen = share * sum(state["seen"] for state in states)
            sums = {name: share * sum(state["sums"][name] for state in states) for name in states[0]["sums"]}
        restored._sums = {name: torch.tensor(total, device=device) for name, total in sums.items()}
        return restored


@dataclass
class RunState:
    """All that a run changes as it goes, and what it was started with.

    Attributes:
        model, optimiser, scaler, averages: what is trained and what trains it.
        fingerprint: of the fields, their labels and folds; ``contents``: of other files that it learns by.
        epoch: epochs done; ``step_number``: updates of the weights.
        best: the lowest validation loss; ``history``: the metrics of each epoch done.
        sums: what the epoch that is going on has come to.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averages: Averages
    fingerprint: str
    contents: dict[str, str]
    epoch: int = 0
    step_number: int = 0
    best: float = math.inf
    history: list[Metrics] = field(default_factory=list)
    sums: EpochSums = field(default_factory=EpochSums)

    def best_checkpoint(self) -> dict[str, Any]:
        """The weights that were validated last, averaged ones where there are any, and their metrics."""
        kept = self.averages.best_of(self.model)
        return {
            "model": kept.state_dict(),
            "averaged": kept is not self.model,
            "epoch": self.epoch,
            "metrics": self.history[-1],
        }

    def last_checkpoint(self, processes: Processes) -> dict[str, Any]:
        """All that going on needs, within an epoch too; every process of a run has to call it.

        ``processes`` has, for each of them, its generators and what the epoch that is going on has come to.
        """
        return {
            "model": self.model.state_dict(),
            "optimiser": optimiser_state(self.optimiser),
            "scaler": self.scaler.state_dict(),
            "processes": processes.gather(self.sums.state() | {"random": random_state()}),
            "step_number": self.step_number,
            "epoch": self.epoch,
            "metrics": self.history[-1] if self.history else {},
            "best": self.best,
            "history": self.history,
            "fields": self.fingerprint,
            "contents": self.contents,
            **self.averages.state(),
        }

    def restore(
        self, checkpoint: Checkpoint, settings: TrainSettings, processes: Processes, device: torch.device
    ) -> None:
        """Go on from what :meth:`last_checkpoint` gave; the number of processes may be another now.

        Raises:
            InputError: the run's data have changed, its weights do not fit, or no run wrote it.
        """
        last, state = settings.out / LAST, checkpoint.state
        try:
            refuse_other_fields(settings, state["fields"], self.fingerprint)
            load_weights(self.model, state["model"], last)
            self.averages.restore(state, last)
            restore_optimiser(self.optimiser, state["optimiser"], device)
            self.scaler.load_state_dict(state["scaler"])
            self.step_number, self.epoch, self.best = state["step_number"], state["epoch"], state["best"]
            self.history = state["history"]
            self.sums = EpochSums.restored(state["processes"], processes, device)
            if len(state["processes"]) == processes.world:
                restore_random_state(state["processes"][processes.rank]["random"])
            else:
                torch.manual_seed(settings.seed + processes.rank + 1000 * self.step_number)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"checkpoint: {last} cannot be gone on from: {reason}; delete it to start anew"
            ) from None

    @property
    def size(self) -> int:
        """About how many bytes a checkpoint will take: two moments per weight, and each average."""
        weights = sum(value.numel() * value.element_size() for value in self.model.state_dict().values())
        averages = sum(average is not None for average in (self.averages.ema, self.averages.swa))
        return weights * (3 + averages)


def random_state() -> dict[str, Any]:
    """The state of torch's generators, which dropout draws from; augmentation is seeded field by field.

    Of several GPUs the current one's is taken.
    """
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put the generators where :func:`random_state` found them; the GPU's only where there was and is one."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
