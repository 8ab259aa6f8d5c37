"""What of a run goes into its checkpoints, and back."""

from typing import TYPE_CHECKING, Any

import torch

from hpa_kit.errors import InputError
from hpa_kit.training.checkpoint import LAST, Checkpoint, random_state, restore_random_state
from hpa_kit.training.contents import refuse_other_contents
from hpa_kit.training.log import Metrics
from hpa_kit.training.member import load_weights
from hpa_kit.training.running import Running
from hpa_kit.training.schedule import optimiser_state, restore_optimiser

if TYPE_CHECKING:
    from hpa_kit.training.loop import Trainer


def best_state(trainer: "Trainer", metrics: Metrics) -> dict[str, Any]:
    """The weights that were validated, averaged ones where there are any."""
    kept = trainer.averages.best_of(trainer.model)
    return {
        "model": kept.state_dict(),
        "averaged": kept is not trainer.model,
        "epoch": trainer.epoch,
        "metrics": metrics,
    }


def last_state(trainer: "Trainer") -> dict[str, Any]:
    """All that resuming needs, within an epoch too; every process of a run has to call it.

    ``processes`` has, for each of them, its generators and what the epoch that is going on has come to.
    """
    return {
        "model": trainer.model.state_dict(),
        "optimiser": optimiser_state(trainer.optimiser),
        "scaler": trainer.scaler.state_dict(),
        "processes": trainer.processes.gather(trainer.running.state() | {"random": random_state()}),
        "step_number": trainer.step_number,
        "epoch": trainer.epoch,
        "metrics": trainer.history[-1] if trainer.history else {},
        "best": trainer.best,
        "history": trainer.history,
        "fields": trainer.fingerprint,
        "contents": trainer.contents,
        **trainer.averages.state(),
    }


def restore(trainer: "Trainer", checkpoint: Checkpoint) -> None:
    """Put a run where :func:`last_state` found it; it may have another number of processes now.

    Raises:
        InputError: its data have changed, its weights do not fit, or it was not written by a run.
    """
    try:
        _put_back(trainer, checkpoint.state)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"checkpoint: {trainer.settings.out / LAST} cannot be gone on from: {reason}; "
            "delete it to start anew"
        ) from None


def _put_back(trainer: "Trainer", state: dict[str, Any]) -> None:
    settings = trainer.settings
    if state["fields"] != trainer.fingerprint:
        raise InputError(
            f"train: the run in {settings.out} was started with other fields or labels than data "
            f"{settings.data} has; give that folder again to go on, or another --out"
        )
    refuse_other_contents(state.get("contents", {}), trainer.contents, settings)
    last = settings.out / LAST
    load_weights(trainer.model, state["model"], last)
    trainer.averages.restore(state, last)
    restore_optimiser(trainer.optimiser, state["optimiser"], trainer.device)
    trainer.scaler.load_state_dict(state["scaler"])
    trainer.step_number, trainer.epoch, trainer.best = state["step_number"], state["epoch"], state["best"]
    trainer.history = state["history"]
    processes = trainer.processes
    trainer.running = Running.restored(state["processes"], processes, trainer.device)
    if len(state["processes"]) == processes.world:
        restore_random_state(state["processes"][processes.rank]["random"])
    else:
        torch.manual_seed(settings.seed + processes.rank + 1000 * trainer.step_number)


def state_bytes(trainer: "Trainer") -> int:
    """About what a checkpoint will take: two moments per weight, and each average."""
    weights = sum(value.numel() * value.element_size() for value in trainer.model.state_dict().values())
    averages = sum(average is not None for average in (trainer.averages.ema, trainer.averages.swa))
    return weights * (3 + averages)
