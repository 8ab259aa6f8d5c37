"""docs/architecture.md: who reads `train` or `infer` needs the files listed there, and no other."""

import json
import re
from pathlib import Path

import pytest
from warm_python import WarmPython

from hpa_kit.config import SimulateSettings
from hpa_kit.data.simulate import simulate

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MAX_FILES = {"train": 40, "infer": 55}
WORDS = {
    "train": "data --out run --backbone resnet10t --size 64 --epochs 1 --folds 2 --batch 5 --workers 0",
    "infer": "data --members run --out submission.csv",
}


def listed(name: str) -> list[str]:
    (paragraph,) = re.findall(rf"^\*\*`{name}`\*\*, \d+ files: (.*?)\n\n", TEXT, re.MULTILINE | re.DOTALL)
    return re.findall(r"`([\w/]+\.py)`", paragraph)


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> dict[str, list[str]]:
    """The files that each command goes through, in a process of its own, with two threads at most."""
    folder = tmp_path_factory.mktemp("walk")
    simulate(SimulateSettings(out=folder / "data", train=10, test=4, size=64, classes=(0, 2, 7), workers=1))
    commands = [[name, *words.split(), "--device", "cpu"] for name, words in WORDS.items()]
    code = Path(__file__).with_name("walk.py").read_text(encoding="utf-8")
    words = ["-c", code, json.dumps(commands)]
    done = warm_python.run(words, cwd=folder, capture_output=True, text=True, check=True)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [status for status, _ in told] == [0] * len(WORDS), done.stderr
    return {name: files for name, (_, files) in zip(WORDS, told, strict=True)}


@pytest.mark.parametrize("name", WORDS)
def test_a_command_walks_through_the_files_that_are_listed_and_no_more(walks, name):
    assert sorted(walks[name]) == sorted(listed(name))
    assert len(walks[name]) <= MAX_FILES[name]


@pytest.mark.parametrize("path", sorted((ROOT / "hpa_kit").rglob("*.py")), ids=lambda path: path.name)
def test_no_file_is_longer_than_four_hundred_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
