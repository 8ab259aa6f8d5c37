"""One command of the kit in a process of its own, whose lines are heard as they come."""

import os
import queue
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from hpa_kit.together import end_with_parent, imports_from_here

_LAST_WORDS = 5.0  # seconds
INTERRUPTED = 130  # how the kit's commands end after an interrupt


class News(NamedTuple):
    """A line that a child says, or the status with which it ended."""

    child: "Child"
    line: str | None = None
    status: int | None = None


class Child:
    """A command that runs; its news go to a queue. It ends with this process, however that ends.

    Args:
        words: of the command, without ``hpa-kit``.
        environment: variables to set beside this process's.
        news: where its lines and its end go to.
        processes: several share its work, as torchrun starts them.
    """

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        news: "queue.SimpleQueue[News]",
        processes: int = 1,
    ) -> None:
        self._news = news
        # In a session of its own it gets no interrupt that is meant for this process, which passes it on.
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", "hpa_kit.recipe.children", str(processes), *words],
            env={**imports_from_here(), **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._listen, daemon=True)
        for thread in (self._reader, threading.Thread(target=self._wait, daemon=True)):
            thread.start()

    def send(self, number: signal.Signals) -> None:
        """Send it, and what it has started, a signal, unless it has ended."""
        if self._popen.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def _listen(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._news.put(News(self, line=line.rstrip("\n")))

    def _wait(self) -> None:
        status = self._popen.wait()
        with suppress(ProcessLookupError, PermissionError):  # what it started and left
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._reader.join(_LAST_WORDS)  # of which one that holds its output may still be there
        self._news.put(News(self, status=status))


def _main(processes: int, words: Sequence[str]) -> int:
    """The child."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    threading.Thread(target=end_with_parent, daemon=True).start()
    if processes > 1:
        from torch.distributed.run import main as torchrun

        torchrun(["--standalone", "--nproc-per-node", str(processes), "-m", "hpa_kit.cli", *words])
        return 0
    sys.argv[1:] = words
    runpy.run_module("hpa_kit.cli", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), sys.argv[2:]))
