"""A Dask cluster by its address: workers of this machine, a scheduler by its address or its file.

with connected("local:2", "predict", device="cpu") as workers:
    ...  # hpa_kit.cluster.done_by_workers
"""

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from hpa_kit.cluster.worker import Task, versions
from hpa_kit.config import Settings
from hpa_kit.config.kinds import local_workers
from hpa_kit.devices import cpus
from hpa_kit.errors import InputError, one_line

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)

EXTRA = "pip install 'hpa-kit[distributed]'"
CONNECT_SECONDS = 15.0
COUNT_SECONDS = 2.0  # for which a number of workers is taken to be known
# Workers that die at a batch before it is taken apart; of another's scheduler its own setting counts.
DEATHS = 2
LOOPBACK = "127.0.0.1"
_LOGGERS = ("distributed", "distributed.client", "distributed.scheduler", "distributed.worker",
            "distributed.nanny", "distributed.core", "distributed.comm", "bokeh", "tornado",
            "tornado.application")  # fmt: skip


class Cluster:
    """The workers of a cluster, as :func:`~hpa_kit.cluster.done_by_workers` needs them.

    Args:
        client: of ``distributed``.
        what: the command, for log and errors.
        address: as the user has it.
    """

    def __init__(self, client: Any, what: str, address: str) -> None:
        self._client, self._what, self._address = client, what, address
        self._counted, self._count, self._waits = -COUNT_SECONDS, 0, False

    def submit(self, function: Any, task: Task) -> Any:
        """Have a worker call a function; the task's name on the dashboard is the command."""
        try:
            return self._client.submit(function, task, key=f"{self._what}-{uuid4().hex}", pure=False)
        except Exception as error:
            raise self._gone() from error

    def count(self) -> int:
        """How many workers there are, and say so where there is none, once.

        Raises:
            InputError: the scheduler does not answer any more.
        """
        if self._client.status != "running":
            raise self._gone()
        if (now := time.monotonic()) - self._counted >= COUNT_SECONDS:
            try:
                self._count = len(self._client.nthreads())
            except Exception:
                raise self._gone() from None
            self._counted = now
            if self._count == 0 and not self._waits:
                log.warning(f"{self._what}: no worker is at {self._address}; waiting for one")
            self._waits = self._count == 0
        return self._count

    def death(self, error: BaseException) -> str | None:
        """How workers died at what gave this error; None where it is another error."""
        from distributed.scheduler import KilledWorker

        if not isinstance(error, KilledWorker):
            return None
        return (
            f"{error.allowed_failures + 1} workers ended at it, the last at {error.last_worker.address}, as "
            "where memory runs out"
        )

    def _gone(self) -> InputError:
        return InputError(
            f"{self._what}: the scheduler of {self._address} is gone; what is done is kept, and the same "
            "command goes on, on another cluster too"
        )


@contextmanager
def connected(address: str | None, what: str, device: str | None) -> Iterator[Cluster | None]:
    """Connect with a cluster; processes that were started for it end with the block.

    Args:
        address: ``local:N`` for N processes of this machine, ``tcp://HOST:PORT`` or ``tls://HOST:PORT`` of a
            scheduler, or the file that ``dask scheduler --scheduler-file`` writes; None gives None.
        what: the command, for log and errors.
        device: on which workers of this machine run networks, as settings have it; None where none runs.

    Raises:
        InputError: ``distributed`` is missing, nobody answers, or the scheduler is of another version.
    """
    if address is None:
        yield None
        return
    try:
        import distributed
    except ImportError as error:
        raise InputError(f"cluster: {error.name} is missing: {EXTRA}") from None
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        if (n := local_workers(address)) is not None:
            where: Any = stack.enter_context(_local(n, device))
        else:
            where = address if "://" in address else _address_in(Path(address))
        try:
            client = distributed.Client(where, timeout=CONNECT_SECONDS, set_as_default=False, name="hpa-kit")
        except Exception as error:  # of another version what it answers is none of what can be foreseen
            raise InputError(
                f"cluster: nobody answers at {where} within {CONNECT_SECONDS:.0f} s, or no Dask scheduler of "
                f"this version: {type(error).__name__}: {one_line(error)}"
            ) from None
        stack.callback(_close, client)
        _refuse_other_scheduler(client, where)
        cluster = Cluster(client, what, address)
        where = client.scheduler_info()["address"]
        log.info(f"{what}: {cluster.count()} workers at {where}; dashboard {client.dashboard_link}")
        yield cluster


def _close(client: Any) -> None:
    with suppress(Exception):  # the scheduler may be gone, and nothing is lost with it
        client.close(timeout=2)


def _address_in(path: Path) -> str:
    """The address in a scheduler's file.

    Raises:
        InputError: it is missing, or another file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["address"])
    except FileNotFoundError:
        raise InputError(
            f"cluster: {path} is missing; expected local:N, tcp://HOST:PORT, or the file that dask scheduler "
            "--scheduler-file writes"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cluster: {path} is no scheduler's file ({type(error).__name__}: {one_line(error)}); expected "
            "what dask scheduler --scheduler-file writes"
        ) from None


def _refuse_other_scheduler(client: Any, where: Any) -> None:
    """Refuse a scheduler whose versions its messages depend on are others; workers tell theirs themselves."""
    found = client.get_versions()["scheduler"]["packages"].get("distributed")
    if found != (own := versions()["distributed"]):
        raise InputError(
            f"cluster: the scheduler at {where} has distributed {found}, here it is {own}; give all of a "
            "cluster the same environment"
        )


@contextmanager
def _local(n: int, device: str | None) -> Iterator[Any]:
    """Workers of this machine, and their scheduler in this process, which other machines do not reach.

    Raises:
        InputError: they cannot be started.
    """
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    options = {"dashboard": True, "dashboard_address": f"{LOOPBACK}:0", "host": LOOPBACK, "port": 0}
    workers = dict(enumerate(worker_options(n, cpus(), gpus(device))))
    try:
        with dask.config.set({"distributed.scheduler.allowed-failures": DEATHS - 1}):
            cluster = SpecCluster(
                workers={number: {"cls": Nanny, "options": one} for number, one in workers.items()},
                scheduler={"cls": Scheduler, "options": options},
                silence_logs=logging.CRITICAL,
                name="hpa-kit",
            )
    except Exception as error:
        raise InputError(
            f"cluster: {n} workers of this machine cannot be started: {type(error).__name__}: "
            f'{one_line(error)}; a script of yours has its work under if __name__ == "__main__"'
        ) from None
    with cluster:
        yield cluster


def worker_options(n: int, processors: int, gpus: Sequence[str]) -> list[dict[str, Any]]:
    """Tell how workers of this machine are started: processors shared out, a GPU for each in turn.

    Args:
        n: how many.
        processors: of the machine.
        gpus: as ``CUDA_VISIBLE_DEVICES`` has them.
    """
    threads = int(os.environ.get("OMP_NUM_THREADS") or 0) or max(1, processors // n)
    found = []
    for number in range(n):
        env = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        # What fields and networks hold is none of Dask's data, by which its limits of memory go.
        found.append(
            {"nthreads": threads, "host": LOOPBACK, "env": env, "memory_limit": 0, "dashboard": False,
             "silence_logs": logging.CRITICAL}
        )  # fmt: skip
    return found


def gpus(device: str | None) -> list[str]:
    """List the GPUs that workers are given in turn, where settings leave it open which they use."""
    if device not in ("auto", "cuda"):
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one.strip() for one in visible.split(",") if one.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def _quiet() -> Iterator[None]:
    """Have Dask say nothing by itself: what a user needs is said by the command."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="distributed")
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def with_whole_paths(settings: S) -> S:
    """Settings whose paths mean the same in every process, wherever that runs."""

    def whole(value: Any) -> Any:
        if isinstance(value, Path):
            return value.absolute()
        if isinstance(value, Settings):
            return with_whole_paths(value)
        return tuple(map(whole, value)) if isinstance(value, tuple) else value

    return settings.model_copy(update={name: whole(value) for name, value in settings})
