"""What runs in a worker of a cluster: a job is loaded once, then batches of fields are done with it.

What a batch takes over the network is a pickled job, which is settings, and IDs; what comes back is what the
job makes of each field, and warnings that were given meanwhile. Fields and label maps stay on disk.
"""

import hashlib
import logging
import pickle
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hpa_kit import __version__
from hpa_kit.errors import InputError
from hpa_kit.flow import Failure
from hpa_kit.timing import peak_memory

log = logging.getLogger(__name__)

# Packages of which another version may give other numbers; one that differs is said, not refused.
_COUNTS = ("numpy", "opencv-python-headless", "timm", "torch")


class Item(NamedTuple):
    """A field of a batch: its ID, and what else a worker has to know of it."""

    id: str
    more: Any = None


# What a job does with a batch: fields -> ID and what was made of it, of each once; or why there is nothing.
Work = Callable[[Sequence[Item]], Iterable[tuple[str, Any]]]


class Job(Protocol):
    """What workers do with batches of fields; pickled, and small.

    Attributes:
        paths: of files and folders that each worker has to see.
    """

    @property
    def paths(self) -> Sequence[Path]: ...

    def load(self, threads: int) -> Work:
        """Load what all batches need, in a worker that may use so many processors.

        Raises:
            InputError: it cannot be loaded.
        """


class Task(NamedTuple):
    """A batch as it is sent: the job, pickled, and what the worker's versions are compared with."""

    job: bytes
    versions: dict[str, str]
    items: list[Item]


class Done(NamedTuple):
    """What came of a batch.

    Attributes:
        results: {ID: what was made of the field, or why there is nothing}; a failure where the whole batch
            failed.
        said: levels and texts of the warnings that were given.
        worker: who did it; empty where nobody lived to tell.
        seconds: of processor time that it took, without loading the job.
        loaded: whether the job had to be loaded first.
        memory: bytes that the worker has held at most.
    """

    results: "dict[str, Any] | Failure"
    said: Sequence[tuple[int, str]] = ()
    worker: str = ""
    seconds: float = 0.0
    loaded: bool = False
    memory: int = 0


class Refused(NamedTuple):
    """Why a worker cannot do any batch of a job."""

    reason: str


_LOADED: dict[str, Work] = {}  # the job that was done last, by its checksum
_ONE_AT_A_TIME = threading.Lock()


def do_batch(task: Task) -> Done | Refused:
    """Do a batch in a worker; a second one at the same time waits.

    The job stays loaded until another comes. What goes wrong with single fields is in the results; an
    :class:`~hpa_kit.errors.InputError` is a fault of the job, and refuses it.
    """
    with _ONE_AT_A_TIME, _heard() as said:
        key = hashlib.sha256(task.job).hexdigest()
        loads = key not in _LOADED
        try:
            if loads:
                _LOADED.clear()
                said.extend(_other_versions(task.versions))
                _LOADED[key] = _load(task.job)
            begun = time.process_time()
            results = _results(_LOADED[key], task.items)
        except InputError as error:
            return Refused(f"worker {_address()}: {error}")
        return Done(results, said, _address(), time.process_time() - begun, loads, peak_memory())


def versions() -> dict[str, str]:
    """Tell what client and workers must have alike, and then what they should."""
    python = ".".join(platform.python_version_tuple()[:2])
    found = {"hpa-kit": __version__, "Python": python, "distributed": _version("distributed")}
    return found | {name: _version(name) for name in _COUNTS}


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]  # what follows says for which devices it was built
    except PackageNotFoundError:
        return "none"


def _other_versions(expected: dict[str, str]) -> list[tuple[int, str]]:
    """What differs and may give other numbers, to be said.

    Raises:
        InputError: what has to be the same differs.
    """
    own = versions()
    differing = {name: theirs for name, theirs in expected.items() if own.get(name) != theirs}
    listed = ", ".join(f"{name} {own.get(name)} (here {theirs})" for name, theirs in differing.items())
    if differing.keys() - set(_COUNTS):
        raise InputError(f"it has {listed}; give all of a cluster the same environment")
    if not differing:
        return []
    return [(logging.WARNING, f"worker {_address()} has {listed}: its numbers may differ in the last digits")]


def _load(pickled: bytes) -> Work:
    try:
        job: Job = pickle.loads(pickled)
    except ImportError as error:
        raise InputError(
            f"{error.name or error} cannot be imported there; a segmenter or rule of your own stands in a "
            "file that workers have on their path too"
        ) from None
    missing = [path for path in job.paths if not path.exists()]
    if missing:
        raise InputError(
            f"it does not see {missing[0]}; data, members and results lie on disks that all workers have "
            "under the same path"
        )
    worker = _worker()
    if worker is None:
        return job.load(1)
    threads = int(worker.state.nthreads)  # by --nthreads of dask worker: processors that it may use
    work = job.load(threads)
    for name, limit in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
        if name in sys.modules:
            getattr(sys.modules[name], limit)(threads)
    return work


def _results(work: Work, items: Sequence[Item]) -> dict[str, Any] | Failure:
    try:
        return dict(work(items))
    except InputError:
        raise
    except Exception as error:
        log.warning("an unexpected fault", exc_info=True)
        return Failure(f"{type(error).__name__}: {error}")


def _address() -> str:
    worker = _worker()
    return "here" if worker is None else str(worker.address)


def _worker() -> Any:
    """The worker that this runs in; None outside of one."""
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


class _Heard(logging.Handler):
    """Keeps warnings, to be said where the command runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self.said.append((record.levelno, self.format(record)))


@contextmanager
def _heard() -> Iterator[list[tuple[int, str]]]:
    """The kit's warnings in a block, which go nowhere else."""
    ours, handler = logging.getLogger("hpa_kit"), _Heard()
    before = ours.propagate
    ours.addHandler(handler)
    ours.propagate = False
    try:
        yield handler.said
    finally:
        ours.propagate = before
        ours.removeHandler(handler)
