"""Training in several processes, one per GPU, as ``torchrun`` starts them."""

import atexit
import logging
import os
import shlex
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import timm
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from hpa_kit.config import TrainSettings
from hpa_kit.devices import cpus, pick_device
from hpa_kit.errors import InputError
from hpa_kit.together import kit_folder

log = logging.getLogger(__name__)
T = TypeVar("T")

# Others wait while the first process reads all fields or validates, which can take hours. A process that died
# is noticed at once all the same: its connections close, and torchrun ends the others.
_PATIENCE = timedelta(days=1)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ADDRESS = ("RANK", "MASTER_ADDR", "MASTER_PORT")


class Processes(NamedTuple):
    """The processes of a run and this one's place among them; a run without ``torchrun`` has one.

    Only the first writes and validates. What all must decide alike, such as when to stop, it decides and
    tells the others.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
        local_rank: of this process among those on this machine: the number of its GPU.
        local_world: how many there are on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @classmethod
    def here(cls) -> "Processes":
        """As ``torchrun`` has put it into the environment.

        Raises:
            InputError: ``WORLD_SIZE`` speaks of several processes but how they find each other is not there.
        """
        world = _number("WORLD_SIZE", 1)
        if world <= 1:
            return cls()
        missing = [name for name in _ADDRESS if not os.environ.get(name)]
        if missing:
            raise InputError(
                f"train: WORLD_SIZE is {world} but {', '.join(missing)} is not set; "
                "start with torchrun, or unset WORLD_SIZE for one process"
            )
        rank = _number("RANK", 0)
        return cls(rank, world, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", world))

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process: of several processes on GPUs, each has the one of its number.

        Raises:
            InputError: the device cannot be used, or there are more processes than GPUs.
        """
        if self.world == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return torch.device(pick_device(name))
        if name not in ("auto", "cuda"):
            raise InputError(f"device: {name} for {self.world} processes; give auto, cuda or cpu")
        found = torch.cuda.device_count()
        if self.local_world > found:
            raise InputError(
                f"train: torchrun started {self.local_world} processes for {found} GPUs; "
                f"give --nproc-per-node {max(found, 1)}, or --device cpu"
            )
        return torch.device(pick_device(f"cuda:{self.local_rank}"))

    def workers(self, wanted: int) -> int:
        """Processes that read for this one: as many as wanted, at most its share of the processors.

        Each worker computes with one thread.
        """
        return min(wanted, max(1, cpus() // self.local_world))

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Connect the processes for a block of work; with one process, or where they are, do nothing.

        They stay connected for further work until they end, as they cannot meet a second time. After an error
        they are not disconnected in order: that would wait for the others, which wait for this one. It ends
        instead, and ``torchrun`` ends them.
        """
        if self.world == 1 or distributed.is_initialized():
            yield
            return
        # What the host decides goes through gloo and waits for no GPU; gradients go through NCCL.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE, rank=self.rank, world_size=self.world)
        atexit.register(distributed.destroy_process_group)
        try:
            yield
        except BaseException:
            atexit.unregister(distributed.destroy_process_group)
            raise

    def synchronised(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The network with batch norms that see the whole batch, on GPUs; torch has none for CPUs.

        So a run on two GPUs is the run on one with the same batch. On CPUs each process normalises its share
        by itself, and the running statistics are those of the first; a single value, which has no spread of
        its own, is normalised by these.
        """
        if self.world == 1:
            return model
        if device.type != "cuda":
            for module in model.modules():
                if isinstance(module, _BATCH_NORMS):
                    spared = _SparedSingleValue()
                    module.register_forward_pre_hook(spared.before)
                    module.register_forward_hook(spared.after)
            return model
        converted: nn.Module = convert_sync_batchnorm(model)
        return converted

    def fields_alone(self, batch: int | None, device: torch.device) -> bool:
        """Whether no process ever sees two fields at once, in batches of that many; None is many."""
        synchronised = self.world > 1 and device.type == "cuda"
        return batch is not None and batch <= self.world and not synchronised

    def shared(self, objective: nn.Module, some_rest: bool = False) -> nn.Module:
        """The objective with gradients that are averaged over the processes; some weights may have none."""
        if self.world == 1:
            return objective
        return DistributedDataParallel(objective, find_unused_parameters=some_rest)

    def alone(self, objective: nn.Module, wanted: bool) -> AbstractContextManager[None]:
        """A block in which gradients are only gathered here, as an update still waits for further batches."""
        if wanted and isinstance(objective, DistributedDataParallel):
            return objective.no_sync()
        return nullcontext()

    def first_alone(self, action: Callable[[], T]) -> T:
        """Let the first process act, such as write a file, then all others, which find it done."""
        if self.first:
            result = action()
            self.agree(0)
            return result
        self.agree(0)
        return action()

    def agree(self, value: int) -> int:
        """The first process's value, in all processes."""
        if self.world == 1:
            return value
        told = torch.tensor(value)
        distributed.broadcast(told, src=0)
        return int(told)

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in all processes, in their order."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def total(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Sums over all processes, which have them under the same names."""
        if self.world == 1:
            return dict(sums)
        values = torch.tensor(list(sums.values()), dtype=torch.float64)
        distributed.all_reduce(values)
        return dict(zip(sums, values.tolist(), strict=True))


def processes_for(settings: TrainSettings) -> int:
    """How many processes a run may use on this machine: with ``device: auto`` one per GPU, else one.

    One, too, where a batch has a single field, or where the backbone was added by code that other processes
    do not have; the latter is said.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = min(found, settings.batch or found)
    if found < 2 or settings.device != "auto" or Processes.here().world > 1:
        return 1
    if timm.is_model(name := settings.backbone.partition(".")[0]):
        source = timm.model_entrypoint(name).__module__
        if source.partition(".")[0] not in ("timm", "hpa_kit"):
            log.info(f"train: one of {found} GPUs is used, as the others' processes do not know {name}")
            return 1
    return found


def say_idle_gpus(settings: TrainSettings) -> None:
    """Tell how all GPUs of a machine are used where only one of several is."""
    found = processes_for(settings)
    if found > 1:
        installed = kit_folder() in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        path = "" if installed else f"PYTHONPATH={shlex.quote(kit_folder())} "
        torchrun = f"{shlex.quote(sys.executable)} -m torch.distributed.run --standalone"
        log.info(
            f"train: one of {found} GPUs is used; all are by "
            f"{path}{torchrun} --nproc-per-node {found} -m hpa_kit.cli train ..."
        )


class _SparedSingleValue:
    """Has a batch norm take its running statistics where it would see a single value per channel."""

    def __init__(self) -> None:
        self.learns = False

    def before(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.learns = norm.training
        norm.training = norm.training and inputs[0].numel() > inputs[0].shape[1]

    def after(self, norm: nn.Module, *_: Any) -> None:
        norm.training = self.learns


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise InputError(f"train: {name} is {text!r}; expected the whole number that torchrun sets")
    return int(text)
