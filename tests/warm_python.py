"""Processes of Python that start at once, for tests that run what a user runs: see ``warm_server.py``."""

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import Popen  # which a test may put another in the place of
from typing import Any

import pytest
from warm_server import LEVELS

SERVER = Path(__file__).with_name("warm_server.py")
START = 300.0  # seconds in which a level has imported what it has, on however busy a machine


class WarmPython:
    """Starts processes as :class:`subprocess.Popen` and :func:`subprocess.run` do, by forks.

    Each is a Python with the words that one has after its name, ``-c CODE`` or ``-m MODULE``. It has imported
    nothing of the kit, and of other packages what its level says.

    Args:
        folder: where the processes that serve listen; tests that share it share them.
        patron: process at whose end they go.
    """

    def __init__(self, folder: Path, patron: int) -> None:
        self._folder, self._patron = folder, patron
        folder.mkdir(exist_ok=True)

    def start(self, words: Sequence[object], level: str = "training", **options: Any) -> "Process":
        """Start a process.

        Args:
            words: as of a command, with or without Python's name.
            level: of ``warm_server.LEVELS``.
            options: as of :class:`subprocess.Popen`: cwd, env, stdin, stdout, stderr, text, errors,
                start_new_session.
        """
        given = [str(word) for word in words if word != sys.executable]
        place = next(number for number, word in enumerate(given) if word in ("-c", "-m"))
        asked = {
            "unbuffered": "-u" in given[:place], "safe_path": "-P" in given[:place],
            {"-c": "code", "-m": "module"}[given[place]]: given[place + 1], "args": given[place + 2 :],
            "folder": str(Path(options.pop("cwd", None) or ".").absolute()),
            "environment": dict(options.pop("env", None) or os.environ),
            "session": options.pop("start_new_session", False),
        }  # fmt: skip
        return Process(self._ask(level), asked, **options)

    def run(
        self, words: Sequence[object], level: str = "training", **options: Any
    ) -> "subprocess.CompletedProcess[Any]":
        """Run a process to its end; options as of :func:`subprocess.run`, beside those of :meth:`start`."""
        check, timeout = options.pop("check", False), options.pop("timeout", None)
        if options.pop("capture_output", False):
            options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(words, level, **options) as process:
            out, err = process.communicate(timeout)
        done = subprocess.CompletedProcess(list(words), process.returncode, out, err)
        if check:
            done.check_returncode()
        return done

    def _ask(self, level: str) -> socket.socket:
        """A connection to a level, which is begun where nobody has done so yet."""
        path = self._folder / level
        if not path.exists():
            with (self._folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not path.exists():
                    self._begin(level)
        return self._connect(level)

    def _connect(self, level: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._folder / level))
        return connection

    def _begin(self, level: str) -> None:
        place = list(LEVELS).index(level)
        ends = time.monotonic() + START
        if place == 0:
            command = [sys.executable, "-P", str(SERVER), str(self._folder), str(self._patron)]
            threads = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
            server = Popen(command, env=os.environ | threads, stdin=subprocess.DEVNULL)
            ended = server.poll
        else:
            below = list(LEVELS)[place - 1]
            if not (self._folder / below).exists():
                self._begin(below)
            process = Process(self._connect(below), {"level": level})
            ended = process.poll
        while not (self._folder / level).exists():
            assert time.monotonic() < ends and ended() is None, f"no process with {level} comes up"
            time.sleep(0.01)


class Process:
    """One that was started; as :class:`subprocess.Popen`, as far as tests go.

    Attributes:
        pid: its number.
        stdin, stdout, stderr: this end of its streams where they are pipes.
        returncode: as of :class:`subprocess.Popen`.
    """

    def __init__(
        self, server: socket.socket, asked: dict[str, Any], *, stdin: Any = subprocess.DEVNULL,
        stdout: Any = None, stderr: Any = None, text: bool = False, errors: str | None = None,
    ) -> None:  # fmt: skip
        self._server, self._answers = server, server.makefile("rb")
        self.returncode: int | None = None
        self.stdin = self.stdout = self.stderr = None
        theirs: list[int] = []
        for place, wanted in enumerate((stdin, stdout, stderr)):
            if wanted == subprocess.PIPE:
                read, write = os.pipe()
                theirs.append(write if place else read)
                mode = {"mode": "rb" if place else "wb"}
                if text:
                    mode = {"mode": mode["mode"][0], "encoding": "utf-8", "errors": errors}
                setattr(
                    self, ("stdin", "stdout", "stderr")[place], os.fdopen(read if place else write, **mode)
                )
            elif wanted == subprocess.DEVNULL:
                theirs.append(os.open(os.devnull, os.O_RDWR))
            elif wanted == subprocess.STDOUT:
                theirs.append(os.dup(theirs[1]))
            else:
                number = place if wanted is None else wanted if isinstance(wanted, int) else wanted.fileno()
                theirs.append(os.dup(number))
        try:
            data = json.dumps(asked).encode() + b"\n"
            sent = socket.send_fds(server, [data], theirs)
            server.sendall(data[sent:])
        finally:
            for file in theirs:
                os.close(file)
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        """The status with which it ended; None as long as it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        if self.returncode is None:
            ready, _, _ = select.select([self._server], [], [], timeout)
            if not ready:
                raise subprocess.TimeoutExpired("a warm process", timeout or 0)
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._server.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Read what it says to its end, and wait for that."""
        said: dict[str, Any] = {}
        pipes = [name for name in ("stdout", "stderr") if getattr(self, name) is not None]

        def read(name: str) -> None:
            said[name] = getattr(self, name).read()

        readers = [threading.Thread(target=read, args=(name,), daemon=True) for name in pipes]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
        self.wait(timeout)
        return said.get("stdout"), said.get("stderr")

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it by force."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        self.wait()


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> WarmPython:
    """Starts processes of Python by forks; all workers of a run share those that have imported much."""
    if sys.platform == "win32":
        pytest.skip("there is no fork on this system")
    own, shared = tmp_path_factory.getbasetemp(), "PYTEST_XDIST_WORKER" in os.environ
    return WarmPython((own.parent if shared else own) / "warm", os.getppid() if shared else os.getpid())
