"""Commands that are killed: what they run on, and the process that starts them."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

NEVER = (-1, 0.0)


class Command(NamedTuple):
    """A long command.

    Attributes:
        name: of the command.
        words: its command line after the name; ``data``, ``run`` and ``masks`` lie beside ``out``.
        unit: a piece of work: a call of ``module:Class.function``, or with ``[]`` an entry of its first list.
        lost: pieces of work that a kill may cost at most.
        what: a piece of work, in words.
        set: constants that are made small, so that little work has many pieces.
    """

    name: str
    words: str
    unit: str
    lost: int
    what: str
    set: dict[str, object] = {}  # noqa: RUF012 - never changed


class Ended(NamedTuple):
    """How a command ended: exit status (negative: the signal), seconds, what it said."""

    status: int
    seconds: float
    said: str


class Place:
    """A folder in which a command runs, once or several times."""

    def __init__(self, zygote: "Zygote", root: Path, inputs: Path, command: Command) -> None:
        self.zygote, self.root, self.command = zygote, root, command
        self.work, self.log = root / "work", root / "log.txt"
        self.work.mkdir(parents=True)
        for name in ("data", "run", "masks"):
            (self.work / name).symlink_to(inputs / name)
        self._units = root / "units"

    def start(self, kill: tuple[int, float] = NEVER) -> int:
        """Start it; its process."""
        words = [self.command.name, *self.command.words.split()]
        return self.zygote.ask(
            start=words, folder=str(self.work), log=str(self.log), unit=self.command.unit,
            units=str(self._units), touches=str(self.root / "touches"), kill=kill, set=self.command.set,
        )["pid"]  # fmt: skip

    def end(self, pid: int, begun: float) -> Ended:
        """Wait for a process."""
        status = self.zygote.ask(wait=pid)["status"]
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        return Ended(status, time.monotonic() - begun, said)

    def run(self, kill: tuple[int, float] = NEVER) -> Ended:
        """Run it to its end, or until it is killed."""
        begun = time.monotonic()
        return self.end(self.start(kill), begun)

    @property
    def units(self) -> int:
        """Pieces of work that were begun, in all runs together."""
        return self._units.stat().st_size if self._units.exists() else 0

    @property
    def touches(self) -> int:
        """How often the last run that ended touched a file."""
        return int((self.root / "touches").read_text())

    def files(self) -> dict[str, Path]:
        """What the command has left where one looks: by name, without links to inputs and hidden files."""
        found = {}
        for path in sorted(self.work.rglob("*")):
            parts = path.relative_to(self.work).parts
            if path.is_file() and parts[0] not in ("data", "run", "masks") and not parts[-1].startswith("."):
                found["/".join(parts)] = path
        return found


class Zygote:
    """The process that starts commands."""

    def __init__(self) -> None:
        path = Path(__file__).with_name("zygote.py")
        self._process = subprocess.Popen(
            [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def ask(self, **asked: object) -> dict:
        """Ask for something; the answer."""
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        assert line, "the process that starts commands has died"
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait(30)


@pytest.fixture(scope="session")
def zygote():
    """The process that starts commands."""
    if sys.platform == "win32":
        pytest.skip("there is no SIGKILL on this system")
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="session")
def inputs(zygote, tmp_path_factory):
    """A simulated competition, a run trained on it, and its label maps."""
    root = tmp_path_factory.mktemp("inputs")
    unit = "hpa_kit.training.loop:Trainer.step"
    for number, words in enumerate(
        ("simulate data --train 8 --test 4 --size 64", f"train data --out run {TRAIN} --epochs 1")
    ):
        ended = zygote.ask(
            start=words.split(), folder=str(root), log=str(root / "log.txt"), unit=unit, kill=NEVER, set={},
            units=str(root / "units"), touches=str(root / "touches"),
        )  # fmt: skip
        assert zygote.ask(wait=ended["pid"])["status"] == 0, (number, (root / "log.txt").read_text())
    (root / "masks").symlink_to(root / "data" / "masks")
    return root


@pytest.fixture(scope="session")
def make_place(zygote, inputs, tmp_path_factory):
    """Makes a folder in which a command runs."""
    return lambda command: Place(zygote, tmp_path_factory.mktemp(command.name), inputs, command)


TRAIN = (
    "--backbone resnet10t --stride 8 --stride-by both --size 32 --batch 2 --folds 2 --workers 0 --device cpu"
)
LOOK = "data --members run --masks masks --map-size 32 --batch 1 --workers 1 --device cpu"
LOOKED = "hpa_kit.inference.ensemble:Ensemble.look[]"
COMMANDS = (
    Command(
        "simulate", "out --train 6 --test 3 --size 64 --workers 1",
        "hpa_kit.data.simulate.folder:draw", 1, "field",
    ),
    Command(
        "segment", "data --split train --out out --segmenter classical --workers 1 --device cpu",
        "hpa_kit.cells.classical:ClassicalSegmenter._segment", 2, "field",
    ),
    Command(
        "store", "data --out out --size 32 --workers 1",
        "hpa_kit.data.store:FieldStore._make", 1, "field",
    ),
    Command(
        "features", "data --member run --out out/features.npz --batch 1 --workers 1 --device cpu",
        "hpa_kit.training.features:pooled_features", 2, "field",
        {"hpa_kit.training.features:_FIELDS_PER_PART": 1},
    ),
    Command(
        "train", f"data --out out {TRAIN} --epochs 3",
        "hpa_kit.training.loop:Trainer.step", 2, "update",
    ),
    Command("pseudo-labels", f"{LOOK} --out out", LOOKED, 2, "field"),
    Command("infer", f"{LOOK} --out out/submission.csv", LOOKED, 2, "field"),
    Command("predict", f"{LOOK} --out out/cells.csv", LOOKED, 2, "field"),
    Command(
        "tune", f"{LOOK} --split test --truth data/truth.csv --parts 2 --repeats 1 --out out/tuned.yaml",
        LOOKED, 2, "field",
    ),
    Command(
        "report", "run --data data --fields 2 --masks masks --device cpu --out out/report.html",
        LOOKED, 99, "field",
    ),
    Command(
        "ablation",
        "data --out out --seeds 0 --variants round0 --epochs 1 --folds 2 --size 64 --rules copied "
        "--device cpu",
        "hpa_kit.script:Script.__call__", 1, "step",
    ),
)  # fmt: skip


@pytest.fixture(scope="session")
def commands():
    """Every long command by its name."""
    return {command.name: command for command in COMMANDS}
