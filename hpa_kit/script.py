"""Commands run one after another, each printed before it runs, so that it can be typed for another folder."""

import csv
import io
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpa_kit.errors import InputError
from hpa_kit.files import atomic_text
from hpa_kit.tables import read_table

Run = Callable[[Sequence[str]], int]


class Script:
    """Runs commands of the command line.

    Args:
        name: of the command that runs them, to begin an error with.
        run: the command line's entry point.
        journal: CSV that keeps which commands are done and how long each took; None keeps nothing.

    Raises:
        InputError: the journal cannot be read.
    """

    def __init__(self, name: str, run: Run, journal: Path | None = None) -> None:
        self.name, self._run, self._journal = name, run, journal
        self._seconds: dict[str, float] = {}
        if journal is not None and journal.exists():
            self._seconds = _read(journal)

    def __call__(self, *words: object) -> float:
        """Run one command; return the seconds that it took.

        Raises:
            InputError: it failed; what was done so far is kept.
        """
        command = [str(word) for word in words]
        print(f"\n$ hpa-kit {shlex.join(command)}", flush=True)
        begun = time.monotonic()
        if self._run(command) != 0:
            raise InputError(f"{self.name}: the step {command[0]} failed; see above")
        seconds = time.monotonic() - begun
        self._seconds[shlex.join(command)] = seconds
        if self._journal is not None:
            _write(self._journal, self._seconds)
        return seconds

    def done(self, *words: object) -> float | None:
        """Tell the seconds that exactly this command took, or None where the journal does not have it."""
        return self._seconds.get(shlex.join(str(word) for word in words))


def _read(path: Path) -> dict[str, float]:
    table = read_table(path, ("command", "seconds"))
    try:
        return {
            command: float(seconds)
            for command, seconds in zip(table["command"], table["seconds"], strict=True)
        }
    except ValueError as error:
        raise InputError(f"script: {path} is damaged: {error}; delete it to do all steps again") from None


def _write(path: Path, seconds: dict[str, float]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("command", "seconds"))
    writer.writerows((command, f"{took:.2f}") for command, took in seconds.items())
    atomic_text(path, text.getvalue())
