"""A folder of known cells, and a command line that writes what each command would."""

from pathlib import Path

import numpy as np
import pytest

from hpa_kit.config import AblationSettings
from hpa_kit.submission import encode_mask, write_submission

SHAPE = (6, 8)


def column_mask(column):
    """The mask string of a cell that is one column of pixels."""
    cell = np.zeros(SHAPE, dtype=bool)
    cell[:, column] = True
    return encode_mask(cell)


@pytest.fixture
def mask():
    return column_mask


@pytest.fixture
def data(tmp_path, mask):
    """Two test fields: a shows 0 in one cell and nothing in the other, b shows 7."""
    folder = tmp_path / "data"
    for name in ("train", "test", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "train.csv").write_text("ID,Label\nx,0\n")
    rows = [("a", 8, 6, f"0 {mask(0)} 18 {mask(1)}"), ("b", 8, 6, f"7 {mask(0)}")]
    write_submission(folder / "truth.csv", rows)
    return folder


class FakeCommands:
    """Takes commands down and writes their outputs; a submission that finds every cell in every class."""

    def __init__(self):
        self.commands, self.failing = [], None

    def __call__(self, words):
        self.commands.append(list(words))
        if words[0] == self.failing:
            return 2
        out = Path(words[words.index("--out") + 1])
        out.parent.mkdir(parents=True, exist_ok=True)
        if words[0] == "infer":
            text = " ".join(
                f"{index} 0.{9 - column} {column_mask(column)}" for column in (0, 1) for index in (0, 7)
            )
            write_submission(out, [("a", 8, 6, text), ("b", 8, 6, text)])
        elif words[0] == "segment":
            out.mkdir(exist_ok=True)
        else:
            out.touch()
        return 0

    def named(self, name):
        return [words for words in self.commands if words[0] == name]


@pytest.fixture
def commands():
    return FakeCommands()


@pytest.fixture
def settings(data, tmp_path):
    def make(**changes):
        return AblationSettings(**{"data": data, "out": tmp_path / "ablation", "seeds": "0", **changes})

    return make
