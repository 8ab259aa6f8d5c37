"""A function that runs in several processes of this machine, which find each other as torchrun has it.

For a notebook: it cannot fork once it has used a GPU, torchrun's command is on no path there, and the kit may
be on no path but the notebook's. Each process is a fresh Python that imports from where this one does.
"""

import codecs
import importlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import hpa_kit
from hpa_kit.config import Settings, make_settings, read_yaml, write_yaml
from hpa_kit.devices import cpus
from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text, disk_full, is_full

S = TypeVar("S", bound=Settings)
_News = tuple[int, str | int]  # of the process of a number: what it says, or the status with which it ended

_SETTINGS = "settings.yaml"
_GRACE = 20.0  # seconds in which a process has to end when asked to, before it is made to


def run_together(function: Callable[[S], Any], settings: S, processes: int) -> None:
    """Run a function in several processes, and write what they say to this one's output as it comes.

    Where one fails, or this one is interrupted, all are ended: by SIGTERM, then by SIGKILL. So are processes
    that they have started, and all of them where this process itself is gone.

    Args:
        function: of a module that can be imported; its result is dropped.
        settings: what it is given, there made anew.
        processes: how many. Each finds its number and the others by the variables that torchrun sets.

    Raises:
        InputError: as the function raised it in the process that failed first.
        RuntimeError: it raised another error, whose traceback is the message, or a process was ended from
            without.
    """
    from torch.distributed import TCPStore

    news: queue.SimpleQueue[_News] = queue.SimpleQueue()
    started: list[_Process] = []
    voice = _Voice(processes)
    with tempfile.TemporaryDirectory(prefix="hpa-kit-together-") as name:
        folder = Path(name)
        write_yaml(settings, folder / _SETTINGS)
        # Served from here, so that its port is nobody else's, and that it outlives each of the processes.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        words = [name, _name_of(function), _name_of(type(settings))]
        command = [sys.executable, "-P", "-u", "-m", "hpa_kit.together", *words]
        try:
            for rank in range(processes):
                started.append(_Process(command, _environment(rank, processes, store.port), rank, news))
            running = processes
            while running:
                rank, what = news.get()
                if isinstance(what, str):
                    voice.say(rank, what)
                    continue
                running -= 1
                if what != 0:
                    break
        finally:
            _stop(started)
            while not news.empty():
                rank, what = news.get()
                if isinstance(what, str):
                    voice.say(rank, what)
            voice.end()
        _raise_first_failure(started, folder)


def kit_folder() -> str:
    """Find the folder, or zip, that this ``hpa_kit`` comes from: what others need on ``PYTHONPATH``."""
    return str(Path(hpa_kit.__file__).absolute().parents[1])


class _Process:
    """One of the processes; what it says and how it ends goes to a queue.

    Attributes:
        rank: its number.
        code: the status with which it ended, that of a signal below 0; None as long as it runs.
        sent: signals that it was sent from here.
    """

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], rank: int, news: "queue.SimpleQueue[_News]"
    ) -> None:
        self.rank = rank
        self.code: int | None = None
        self.sent: set[int] = set()
        self._news = news
        # Its input says nothing and ends when this process does. In a session of its own it gets no interrupt
        # that is meant for this one, and what it starts can be ended with it.
        self._popen = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        for thread in (self._reader, threading.Thread(target=self._wait, daemon=True)):
            thread.start()

    def send(self, number: signal.Signals) -> None:
        """Send it, and what it has started, a signal, unless it has ended; it reads no more either."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        if not self._ended.is_set():
            self.sent.add(number)
            _kill_group(self._popen.pid, number)

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, and said all, after so many seconds."""
        if not self._ended.wait(seconds):
            return False
        self._reader.join(_GRACE)
        return True

    def _read(self) -> None:
        assert self._popen.stdout is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while part := os.read(self._popen.stdout.fileno(), 2**16):
            self._news.put((self.rank, decoder.decode(part)))

    def _wait(self) -> None:
        self.code = self._popen.wait()
        # What it started and left holds its output, so that nobody would hear its end.
        _kill_group(self._popen.pid, signal.SIGKILL)
        self._ended.set()
        self._news.put((self.rank, self.code))


class _Voice:
    """Writes what the first process says as it comes, bars too, and of the others whole lines in between.

    A line that the first has begun is not broken: the others' wait for its end. A bar has none for long, so
    theirs go below it.
    """

    def __init__(self, processes: int) -> None:
        self._begun = [""] * processes
        self._held = ""

    def say(self, rank: int, text: str) -> None:
        if rank:
            *lines, self._begun[rank] = (self._begun[rank] + text).split("\n")
            self._held += "".join(f"{line}\n" for line in lines)
        else:
            self._begun[0] = (self._begun[0] + text).rpartition("\n")[2]
            sys.stdout.write(text)
        bar = "\r" in self._begun[0]
        if self._held and (bar or not self._begun[0]):
            sys.stdout.write("\n" * bar + self._held)
            self._held = ""
            self._begun[0] = ""
        sys.stdout.flush()

    def end(self) -> None:
        """Write what the others said last, without an end of its line and without bars before it."""
        if self._begun[0] and "\r" not in self._begun[0]:
            self.say(0, "\n")
        for rank, text in enumerate(self._begun[1:], 1):
            if text.strip():
                self._begun[rank] = text.rstrip().rpartition("\r")[2]
                self.say(rank, "\n")


def imports_from_here() -> dict[str, str]:
    """Make the variables of a process that imports from where this one does, in the same order.

    That is the kit, which may be installed nowhere, and wheels that were put on this one's path.
    """
    folders = [str(Path(entry).absolute()) for entry in sys.path]
    if kit_folder() not in folders:
        folders.insert(0, kit_folder())
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(folders)),
        "PYTHONIOENCODING": "utf-8:backslashreplace",
    }


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """The variables of a process: this one's, and torchrun's."""
    return {
        **imports_from_here(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cpus() // processes)),
        "RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # So torchrun tells that it serves the store itself.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def _kill_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # all of it has ended
        os.killpg(leader, number)


def _name_of(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _stop(processes: Sequence[_Process]) -> None:
    """End all that still run, those that do not listen by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            process.send(number)
        until = time.monotonic() + _GRACE
        for process in processes:
            process.ended(max(0.0, until - time.monotonic()))


def _raise_first_failure(processes: Sequence[_Process], folder: Path) -> None:
    """Raise what went wrong first, if anything did: the others fail by the one that is gone.

    Which was first, each tells by the time at which it left word, before its connections were closed. One
    that was ended from without leaves none; torch aborts some whose neighbour is gone, so SIGABRT is last.
    """
    words = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("[0-9]*.json")]
    words.sort(key=lambda word: (not word["input"], word["at"]))
    if words and words[0]["input"]:
        raise InputError(words[0]["text"])
    fallen = [(one.code, one.rank) for one in processes if one.code and -one.code not in one.sent]
    killed = [(code, rank) for code, rank in fallen if code < 0 and code != -signal.SIGABRT]
    if words and not killed:
        raise RuntimeError(words[0]["text"])
    for code, rank in killed or fallen:
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        raise RuntimeError(
            f"process {rank + 1} of {len(processes)} ended by {how}, as where memory runs out; what it said "
            "stands above; the same again goes on from the last checkpoint"
        )


def _main(folder: Path, function: str, kind: str) -> None:
    """One of the processes."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    rank = int(os.environ["RANK"])
    # As the command line has it; what all would say is said by the first.
    warnings.showwarning = lambda message, *_: print(f"hpa-kit: {message}", flush=True)
    level = logging.INFO if rank == 0 else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    try:
        _named(function)(make_settings(_named(kind), read_yaml(folder / _SETTINGS)))
    except BaseException as error:
        _leave_word(folder / f"{rank}.json", error)
        # At once: an orderly end waits for the others, which wait for this process.
        os._exit(1)


def _named(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _leave_word(path: Path, error: BaseException) -> None:
    at = time.monotonic_ns()  # the same clock in all processes
    if isinstance(error, OSError) and is_full(error):
        error = disk_full(error.filename or "a file", error)
    is_input = isinstance(error, InputError)
    text = str(error) if is_input else "".join(traceback.format_exception(error))
    try:
        atomic_text(path, json.dumps({"at": at, "input": is_input, "text": text}))
    except InputError:
        print(text, flush=True)
    sys.stdout.flush()
    sys.stderr.flush()


def end_with_parent() -> None:
    """Wait until nobody holds this process's input any more, then end it and what it has started."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
