"""Commands that are killed: what they run on, and the process that starts them."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from warm_python import WarmPython

# When a command kills itself: before it does something of a kind for the N-th time. ``file``: it makes,
# writes, renames or removes one; ``work``: begins a piece of work; ``call``: calls a function or returns.
Kill = tuple[str, int]


class Command(NamedTuple):
    """A long command.

    Attributes:
        name: of the command, with options by which one is told from another of this name.
        words: its command line after the name; ``data``, ``run`` and ``masks`` lie beside ``out``.
        unit: a piece of work: a call of ``module:Class.function``, or with ``[]`` an entry of its first list.
        what: a piece of work, in words.
        under_way: pieces of work that are begun and not kept yet at one time, at most: what a kill may cost.
        why: how many these are with any settings, in words.
        together: what becomes of two that are at the same work in one folder.
        set: constants that are made small, so that little work has many pieces.
    """

    name: str
    words: str
    unit: str
    what: str
    under_way: int
    why: str
    together: str
    set: dict[str, object] = {}  # noqa: RUF012 - never changed


class Ended(NamedTuple):
    """How a command ended: exit status (negative: the signal), and what it said."""

    status: int
    said: str


class Place:
    """A folder in which a command runs, once or several times."""

    def __init__(self, zygote: "Zygote", root: Path, inputs: Path, command: Command) -> None:
        self.zygote, self.root, self.command = zygote, root, command
        self.work, self.log = root / "work", root / "log.txt"
        self.work.mkdir(parents=True)
        for name in ("data", "run", "masks"):
            (self.work / name).symlink_to(inputs / name)
        self._units, self._counts = root / "units", root / "counts.json"

    def start(self, kill: Kill | None = None, meet: Path | None = None, count: bool = False) -> int:
        """Start it; its process.

        Args:
            kill: when it kills itself.
            meet: an empty folder; of two that are given it neither begins to work before the other does, or
                ends.
            count: have :attr:`counts` afterwards.
        """
        words = [*self.command.name.split(), *self.command.words.split()]
        return self.zygote.ask(
            start=words, folder=str(self.work), log=str(self.log), unit=self.command.unit,
            units=str(self._units), counts=count and str(self._counts), kill=kill, meet=meet and str(meet),
            set=self.command.set,
        )["pid"]  # fmt: skip

    def end(self, pid: int) -> Ended:
        """Wait for a process."""
        status = self.zygote.ask(wait=pid)["status"]
        return Ended(status, self.log.read_text(errors="replace") if self.log.exists() else "")

    def run(self, kill: Kill | None = None, count: bool = False) -> Ended:
        """Run it to its end, or until it is killed."""
        return self.end(self.start(kill, count=count))

    @property
    def begun(self) -> int:
        """Pieces of work that were begun, in all runs together."""
        return self._units.stat().st_size if self._units.exists() else 0

    @property
    def counts(self) -> dict[str, int]:
        """How often the run that counted did what, by kinds of kills."""
        return json.loads(self._counts.read_text())

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

    def __init__(self, warm_python: WarmPython) -> None:
        code = Path(__file__).with_name("zygote.py").read_text(encoding="utf-8")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = warm_python.start(["-c", code], text=True, **pipes)
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
def zygote(warm_python):
    """The process that starts commands."""
    made = Zygote(warm_python)
    yield made
    made.close()


@pytest.fixture(scope="session")
def inputs(zygote, tmp_path_factory):
    """A simulated competition, a run trained on it, and its label maps."""
    root = tmp_path_factory.mktemp("inputs")
    unit = "hpa_kit.training.trainer:Trainer.step"
    for words in ("simulate data --train 8 --test 4 --size 64", f"train data --out run {TRAIN} --epochs 1"):
        ended = zygote.ask(
            start=words.split(), folder=str(root), log=str(root / "log.txt"), unit=unit, kill=None, meet=None,
            units=str(root / "units"), counts=None, set={},
        )  # fmt: skip
        assert zygote.ask(wait=ended["pid"])["status"] == 0, (root / "log.txt").read_text()
    (root / "masks").symlink_to(root / "data" / "masks")
    return root


@pytest.fixture(scope="session")
def make_place(zygote, inputs, tmp_path_factory):
    """Makes a folder in which a command runs."""
    return lambda command: Place(zygote, tmp_path_factory.mktemp(command.name), inputs, command)


# With one thread, one field in a batch and one device little is under way, so that lost work shows.
WORKERS = BATCH = DEVICES = 1
UPDATES = 2  # per epoch: of eight fields one of two folds is held out, two fields are in a batch
ARCHIVE = 3  # label maps are packed by so many, of eight fields
PART = 1  # features are written by so many fields

TRAIN = (
    "--backbone test_resnet --stride 8 --stride-by both --size 32 --batch 2 --folds 2 --workers 0 "
    "--device cpu"
)
LOOK = f"data --members run --masks masks --map-size 32 --batch {BATCH} --workers {WORKERS} --device cpu"
LOOKED = "hpa_kit.inference.ensemble:Ensemble.predict[]"
BOTH, ONE = "both end", "one is refused"
TWO_BATCHES = (
    LOOKED, "field",
    2 * BATCH * DEVICES, "per device the batch that the members look at and the one that is scored", ONE,
)  # fmt: skip
COMMANDS = (
    Command(
        "simulate", f"out --train 6 --test 3 --size 64 --workers {WORKERS}",
        "hpa_kit.data.simulate.folder:draw", "field",
        WORKERS, "a field per worker", BOTH,
    ),
    Command(
        "segment", f"data --split train --out out --segmenter classical --workers {WORKERS} --device cpu",
        "hpa_kit.cells.classical:ClassicalSegmenter._segment", "field",
        3 * WORKERS, "three fields per worker: one is written while two are segmented ahead of it", BOTH,
    ),
    Command(
        "segment --pack",
        f"data --split train --out out --segmenter classical --workers {WORKERS} --device cpu",
        "hpa_kit.cells.classical:ClassicalSegmenter._segment", "field",
        3 * WORKERS, "three fields per worker, as without packing", BOTH,
        {"hpa_kit.cells.packing:PER_ARCHIVE": ARCHIVE},
    ),
    Command(
        "store", f"data --out out --size 32 --workers {WORKERS}",
        "hpa_kit.data.store:FieldStore._make", "field",
        WORKERS, "a field per worker", BOTH,
    ),
    Command(
        "features",
        f"data --member run --out out/features.npz --batch {BATCH} --workers {WORKERS} --device cpu",
        "hpa_kit.training.features:pooled_features", "field",
        PART - 1 + BATCH, "the fields since the last part of 512 was written", ONE,
        {"hpa_kit.training.features:_FIELDS_PER_PART": PART},
    ),
    Command(
        "train", f"data --out out {TRAIN} --epochs 3",
        "hpa_kit.training.trainer:Trainer.step", "update",
        UPDATES, "the updates of an epoch, or of --checkpoint-minutes", BOTH,
    ),
    Command("pseudo-labels", f"{LOOK} --out out", *TWO_BATCHES),
    Command("infer", f"{LOOK} --out out/submission.csv", *TWO_BATCHES),
    Command("predict", f"{LOOK} --out out/cells.csv", *TWO_BATCHES),
    Command(
        "tune", f"{LOOK} --split test --truth data/truth.csv --parts 2 --repeats 1 --out out/tuned.yaml",
        f"{LOOKED.removesuffix('[]')}_apart[]", "field",
        (1 + DEVICES) * BATCH, "the batch that is kept and one per device that its members look at", BOTH,
    ),
    Command(
        "report", "run --data data --fields 2 --masks masks --device cpu --out out/report.html",
        LOOKED, "field",
        2, "all its fields: it begins anew", BOTH,
    ),
    Command(
        "ablation",
        "data --out out --seeds 0 --variants round0 --epochs 1 --folds 2 --size 32 --backbone test_resnet "
        "--rules copied --device cpu",
        "hpa_kit.script:Script.__call__", "step",
        1, "a step, which itself goes on where it was", ONE,
    ),
)  # fmt: skip


@pytest.fixture(scope="session")
def commands():
    """Every long command by its name."""
    return {command.name: command for command in COMMANDS}
