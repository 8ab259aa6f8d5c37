"""A cluster of real processes, and fields at which they die where a test wants it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from warm_python import WarmPython
from written_fields import write_field

sys.path.insert(0, str(Path(__file__).parent))

from deadly import STEP, find

from hpa_kit.cells import add_segmenter

SIDE, FIELDS = 64, 9


class Forks:
    """Starts processes, by their names in ``processes.py``; they end with it."""

    def __init__(self, warm_python: WarmPython) -> None:
        code = Path(__file__).with_name("processes.py").read_text(encoding="utf-8")
        own = {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        self._server = warm_python.start(
            ["-c", code], "networks", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | own,
        )  # fmt: skip

    def start(self, what: str, file: Path) -> int:
        self._server.stdin.write(f"{what} {file}\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def end(self) -> None:
        self._server.stdin.close()
        self._server.wait()


class Processes:
    """A scheduler and its workers, each a process.

    Attributes:
        file: the scheduler's file, as ``--cluster`` takes it.
        scheduler: number of its process.
    """

    def __init__(self, forks: Forks, folder: Path) -> None:
        self.file, self._forks = folder / "scheduler.json", forks
        self.scheduler = forks.start("scheduler", self.file)

    def has(self, n: int, patience: float) -> str:
        """Have so many workers there now; gives ``--cluster``'s text."""
        from distributed import Client

        ends = time.monotonic() + patience
        while not self.file.exists():
            assert time.monotonic() < ends
            time.sleep(0.01)
        address = json.loads(self.file.read_text())["address"]
        with Client(address, set_as_default=False, timeout=patience) as client:
            for _ in range(n - len(client.nthreads())):
                self._forks.start("worker", self.file)
            client.wait_for_workers(n, timeout=patience)
        return str(self.file)


@pytest.fixture(scope="session")
def start_cluster(warm_python, tmp_path_factory) -> Iterator[Callable[[], Processes]]:
    """Starts a scheduler without workers."""
    forks = Forks(warm_python)
    yield lambda: Processes(forks, tmp_path_factory.mktemp("cluster"))
    forks.end()


@pytest.fixture(scope="module")
def cluster(start_cluster) -> Processes:
    """A scheduler that the tests of a module share."""
    return start_cluster()


class Fields:
    """A competition whose test fields have numbers, and the segmenter that obeys ``rules``."""

    def __init__(self, root: Path) -> None:
        self.root, self.rules, self.ids = root, root / "rules", [f"f{k}" for k in range(FIELDS)]
        self.rules.mkdir(parents=True)
        y, x = np.mgrid[:SIDE, :SIDE]
        cells = (y // STEP * (SIDE // STEP) + x // STEP + 1).astype(np.int32)
        for split in ("test", "train"):
            (root / split).mkdir()
            for number, id in enumerate(self.ids):
                write_field(root / split, id, cells, number)
                path = root / split / f"{id}_blue.png"
                blue = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                blue[0, 0] = number
                cv2.imwrite(str(path), blue)
        rows = [f"{id},{number % 3}" for number, id in enumerate(self.ids)]
        (root / "train.csv").write_text("\n".join(["ID,Label", *rows]) + "\n")
        add_segmenter("deadly", partial(find, self.rules))

    def rule(self, name: str, text: str = "") -> None:
        (self.rules / name).write_text(text)

    def seen(self) -> list[int]:
        """Numbers of the fields that were segmented since this was asked before."""
        path = self.rules / "seen"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [int(line.split()[1]) for line in lines]


@pytest.fixture
def fields(tmp_path) -> Fields:
    return Fields(tmp_path / "data")
