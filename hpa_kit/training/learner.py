"""A network and what trains it: made from settings, one step, one pass over the training fields."""

import math
import time

import pandas as pd
import torch
from torch import Tensor, nn

from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.progress import Bar
from hpa_kit.training.averages import Averages
from hpa_kit.training.dataset import Batch, Loader
from hpa_kit.training.log import Metrics
from hpa_kit.training.member import build_network
from hpa_kit.training.objectives import Losses, Objective, make_objective, no_fields
from hpa_kit.training.processes import Processes
from hpa_kit.training.running import Running
from hpa_kit.training.schedule import make_optimiser, make_scheduler
from hpa_kit.training.trial import learns_with_all_weights, refuse_what_cannot_learn

# Reading the loss makes the host wait for the GPU, so the bar asks for it this seldom.
_SECONDS_BETWEEN_LOOKS = 0.5


class Learner:
    """A network with its objective, optimiser, learning rate and averages; it knows nothing of files.

    Attributes:
        model, objective, optimiser, scaler, averages: what is trained and what trains it.
        processes: the processes that train together, and this one's place among them.
        epoch: epochs done; ``step_number`` and ``total_steps``: how far the run is, in updates of weights.
        running: what the epoch that is going on has come to.
    """

    model: nn.Module

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.processes = Processes.here()
        self.device = self.processes.device(settings.device)
        self.amp = settings.amp and self.device.type == "cuda"
        self.epoch = self.step_number = self.total_steps = 0
        self.running = Running()

    # What variants override.

    def build_model(self, settings: TrainSettings) -> nn.Module:
        """The network with its initial weights; a resumed run asks for it without pretrained ones."""
        return build_network(settings)

    def build_objective(self, model: nn.Module, fields: pd.DataFrame) -> Objective:
        """What the network is trained for; ``fields`` has ID and Label of the fields by their number."""
        return make_objective(self.settings, model, fields)

    def after_update(self) -> bool:
        """Called after each update of the weights; False ends the pass."""
        return True

    # The one way through.

    def try_network(self) -> None:
        """Find out whether the network can learn as the settings say; nothing is kept.

        Raises:
            InputError: it cannot be built, or cannot learn from fields of that size or from so few at once.
        """
        settings = self.settings
        alone = self.processes.fields_alone(settings.batch, self.device)
        refuse_what_cannot_learn(settings, lambda: self.build_model(_begun(settings)), 1 if alone else 2)

    def build(self, fields: pd.DataFrame | None = None, fresh: bool = True) -> None:
        """Make the model and what trains it; pretrained weights are only read for a fresh run.

        Args:
            fields: ID and Label of the fields by their number; None where the objective needs no table.
            fresh: whether the run starts now.
        """
        settings = self.settings
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        self.model = self.build_model(settings if fresh else _begun(settings))
        self.model = self.processes.synchronised(self.model, self.device).to(self.device)
        if self.device.type == "cuda":  # on a CPU this order of the pixels is several times slower
            self.model.to(memory_format=torch.channels_last)
        self.objective = self.build_objective(self.model, no_fields() if fields is None else fields)
        self.objective.to(self.device)
        some_rest = self.processes.world > 1 and not learns_with_all_weights(
            settings, lambda: self.build_model(_begun(settings))
        )
        self._shared = self.processes.shared(self.objective, some_rest)
        self.optimiser = make_optimiser(self.model, settings)
        # Some of timm's optimisers look at how the gradient itself changes.
        self._second_order = bool(getattr(self.optimiser, "is_second_order", False))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.amp)
        self.averages = Averages(self.model, settings)
        if not self.processes.first:  # the weights are the same by now; dropout is to differ
            torch.manual_seed(settings.seed + self.processes.rank)

    def schedule(self, batches_per_epoch: int) -> None:
        """Lay the learning rate over all updates of the run."""
        self.steps_per_epoch = math.ceil(batches_per_epoch / self.settings.accumulate)
        self.total_steps = self.steps_per_epoch * self.settings.epochs
        self.scheduler = make_scheduler(self.optimiser, self.settings, self.total_steps)
        self.averages.schedule(self.total_steps)

    def step(self, batch: Batch, weight: float = 1.0, update: bool = True) -> dict[str, Tensor]:
        """Forward, backward, update: the parts of the loss, still on the device.

        Args:
            batch: this process's share.
            weight: of its mean loss in the mean over all fields of the update.
            update: False gathers gradients for a later one.
        """
        with self.processes.alone(self._shared, not update):
            with self._autocast():
                losses: Losses = self._shared(batch, self.step_number / self.total_steps)
            loss = torch.stack(list(losses.values())).sum() * weight
            self.scaler.scale(loss).backward(create_graph=self._second_order)
        if update:
            self.scheduler.step_update(self.step_number)
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self.optimiser.zero_grad(set_to_none=True)
            self.step_number += 1
            self.averages.update(self.model, self.step_number)
        return {name: loss.detach() for name, loss in losses.items()}

    def learn(self, epoch: int, loader: Loader, bar: Bar) -> Metrics | None:
        """One pass over the training fields, or over what is left of it; None where it was ended early.

        Returns:
            Mean losses, and the learning rate of the last step.
        """
        self.model.train()
        looked = time.perf_counter()
        bar.update(self.running.batches)
        for batch in loader.epoch(epoch, self.running.batches):
            together, update = self._update_of(self.running.batches, loader.sizes)
            losses = self.step(batch, len(batch.targets) * self.processes.world / together, update)
            self.running.add(losses, len(batch.targets))
            bar.update()
            if time.perf_counter() - looked > _SECONDS_BETWEEN_LOOKS:
                mean = self.running.mean()
                self._check_finite(mean, epoch)
                bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
                looked = time.perf_counter()
            if update and not self.after_update():
                return None
        metrics = self.running.metrics(self.processes)
        self._check_finite(metrics["train_loss"], epoch)
        return {"lr": self.optimiser.param_groups[0]["lr"], **metrics}

    def _update_of(self, batch: int, sizes: list[int]) -> tuple[int, bool]:
        """Fields of all batches that share a batch's update of the weights, and whether it is their last."""
        start = batch - batch % self.settings.accumulate
        together = sizes[start : start + self.settings.accumulate]
        return sum(together), batch + 1 == start + len(together)

    def _check_finite(self, loss: float, epoch: int) -> None:
        if math.isfinite(loss):
            return
        kept = f"epoch {self.epoch} is kept in {self.settings.out}" if self.epoch else "no epoch was finished"
        raise InputError(
            f"train: the loss became {loss} in epoch {epoch}, {kept}; start again with a lower lr than "
            f"{self.settings.lr} and another --out"
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.float16, enabled=self.amp)


def _begun(settings: TrainSettings) -> TrainSettings:
    """Settings of a run whose weights do not come from other files."""
    return settings.model_copy(update={"pretrained": None, "warm_start": None})
