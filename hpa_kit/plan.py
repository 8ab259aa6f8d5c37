"""Commands that follow from each other: each planned once, in an order in which they can run."""

from pathlib import Path
from typing import NamedTuple

from hpa_kit.config import EnsembleSettings


class Step(NamedTuple):
    """One command.

    Attributes:
        title: what it does, to be read.
        kind: steps of one kind take about the same time.
        command: its words.
        out: what it writes; a command that was done but whose output is gone is done again.
    """

    title: str
    kind: str
    command: tuple[str, ...]
    out: Path


class Plan:
    """Collects steps; what several others need is there once.

    Attributes:
        steps: by command, in an order in which they can run.
        ensembles: YAML files that steps read and no step writes.
    """

    def __init__(self) -> None:
        self.steps: dict[tuple[str, ...], Step] = {}
        self.ensembles: dict[Path, EnsembleSettings] = {}

    def add(
        self, title: str, kind: str, *words: object, out: Path, option: tuple[str, ...] = ("--out",)
    ) -> Path:
        """Plan a command, unless it is planned already; return what it writes.

        Args:
            title, kind, out: see :class:`Step`.
            words: of the command, but for where it writes.
            option: the words before ``out``.
        """
        command = (*map(str, words), *option, str(out))
        self.steps.setdefault(command, Step(title, kind, command, out))
        return out

    def needs(self, step: Step) -> list[Step]:
        """List the steps whose output a step reads, be it as members of an ensemble."""
        read = {Path(word) for word in step.command} - {step.out}
        for ensemble in [self.ensembles[path] for path in read & self.ensembles.keys()]:
            read |= {member.checkpoint for member in ensemble.members}
            read |= {path for path in (ensemble.masks, ensemble.weights) if path is not None}
        around = {place for path in read for place in (path, *path.parents)}
        return [other for other in self.steps.values() if other != step and other.out in around]
