"""The official Kaggle client at work: each command a process, asked again where the network failed it.

Standard library only. What its words mean is in ``answers``.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import IO, NamedTuple, Protocol

from hpa_kit.flow import interrupts_ignored
from hpa_kit.kaggle.publish.answers import AGAIN, Answer, is_passing
from hpa_kit.kaggle.publish.client import find_client
from hpa_kit.kaggle.publish.dataset import Fault


class Pace(NamedTuple):
    """How often Kaggle is asked, in seconds: the one place that says so."""

    dataset: float = 15.0  # whether it is ready
    lines: float = 5.0  # new lines of a notebook's log are looked for
    looks: int = 12  # so often, before it is asked whether the notebook still runs
    busy: float = 300.0  # whether a notebook may be pushed while two others run
    score: float = 60.0
    network: float = 30.0  # until a command that the network failed is tried again
    tries: int = 40  # so often: 20 minutes
    settle: int = 8  # answers of a dataset that it is ready, while its version is still the earlier one
    sleep: Callable[[float], None] = time.sleep


PACE = Pace()


class Running(Protocol):
    """A command that runs beside the caller."""

    def poll(self) -> int | None:
        """Tell its exit status; None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""


class Client:
    """The client, as a user has it: with that user's account and settings.

    Args:
        python: the Python that has it.
        folder: where it runs, the checkout.
        pace: how often things are asked.
    """

    def __init__(self, python: Path, folder: Path, pace: Pace = PACE) -> None:
        self.words = (str(python.absolute()), "-P", "-m", "kaggle")
        self.folder, self.pace = folder, pace

    def once(self, *words: str, shown: bool = False) -> Answer:
        """Run a command once and wait for it; interrupted, it is ended.

        Args:
            words: what follows ``kaggle``.
            shown: what it says on stderr, such as how far an upload is, is printed too.
        """
        with interrupts_ignored():
            process = subprocess.Popen(
                [*self.words, *words], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, env=_environment(), text=True, errors="replace",
            )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        errors: list[str] = []
        reader = Thread(target=_read, args=(process.stderr, errors, shown), daemon=True)
        reader.start()
        try:
            printed = process.stdout.read()
            status = process.wait()
        except BaseException:
            process.terminate()
            raise
        reader.join()
        return Answer(shown_command(words), status, printed, "".join(errors))

    def ask(self, *words: str, shown: bool = False) -> Answer:
        """Run a command that may be run twice; again, after a while, where the network or Kaggle failed it.

        Raises:
            Fault: it was tried often enough.
        """
        answer = self.once(*words, shown=shown)
        for _ in range(self.pace.tries):
            if not is_passing(answer):
                return answer
            self.rest(answer)
            answer = self.once(*words, shown=shown)
        if is_passing(answer):
            raise unreachable(answer)
        return answer

    def rest(self, answer: Answer) -> None:
        """Wait after an answer that is the network's, or Kaggle's own, and say so."""
        said = next((line for line in answer.text.splitlines() if line.strip()), "nothing")
        self.say(f"`{answer.command}`: {said[:160]}; again in {self.pace.network:g} s")
        self.pace.sleep(self.pace.network)

    def begin(self, path: Path, *words: str) -> Running:
        """Start a command that runs on its own and writes what it prints to a file, which is made anew."""
        path.unlink(missing_ok=True)  # one that a killed call left behind may still write to it
        with interrupts_ignored(), path.open("wb") as file:
            return subprocess.Popen(
                [*self.words, *words], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, env=_environment(),
            )  # fmt: skip

    def say(self, line: str) -> None:
        """Tell the user something."""
        print(line, flush=True)


def make_client(source: Path, pace: Pace = PACE) -> Client:
    """Find the client that belongs to a checkout.

    Raises:
        Fault: there is none.
    """
    python = find_client(source)
    if python is None:
        raise Fault("kaggle: no Kaggle client here", "make client")
    return Client(python, source.absolute(), pace)


def shown_command(words: Sequence[str]) -> str:
    """Write a command as one would give it in a shell."""
    return shlex.join(["kaggle", *words])


def unreachable(answer: Answer) -> Fault:
    """Make the fault of a network that stays away."""
    said = next((line for line in answer.text.splitlines() if line.strip()), "nothing")
    return Fault(f"kaggle: `{answer.command}` does not reach Kaggle: {said[:300]}", f"later {AGAIN}")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


def _read(stream: IO[str], found: list[str], shown: bool) -> None:
    while piece := stream.read(1 if shown else -1):
        found.append(piece)
        if shown and sys.stderr is not None:
            sys.stderr.write(piece)
            sys.stderr.flush()
