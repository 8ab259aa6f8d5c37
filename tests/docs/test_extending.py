"""docs/extending.md: what stands there works, word for word, and is as short as it says."""

import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hpa_kit.cells import read_label_maps
from hpa_kit.cli import main
from hpa_kit.config import SimulateSettings
from hpa_kit.config.kinds import RULE_NAMES, SEGMENTER_NAMES
from hpa_kit.data import find_fields, read_field
from hpa_kit.data.simulate import simulate
from hpa_kit.scoring import SCORING_FUNCTIONS
from hpa_kit.submission import check_submission
from hpa_kit.training.augmentation import Augmentation

TEXT = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`([a-z0-9]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
QUICK = {
    "train": "--size 64 --epochs 1 --batch 4 --workers 0 --device cpu",
    "infer": "--map-size 64 --workers 1 --device cpu",
    "segment": "--workers 1 --device cpu",
}
SMALL = "--backbone test_resnet"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(
        SimulateSettings(out=tmp_path_factory.mktemp("competition") / "data", train=8, test=2, size=96)
    )


@pytest.fixture
def place(data, tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with the files of the text, where its commands run; rules that they add are forgotten."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "DATA").symlink_to(data)
    (tmp_path / "label_maps").symlink_to(data / "masks")
    monkeypatch.chdir(tmp_path)
    rules, names, segmenters = dict(SCORING_FUNCTIONS), list(RULE_NAMES), list(SEGMENTER_NAMES)
    yield tmp_path
    SCORING_FUNCTIONS.clear()
    SCORING_FUNCTIONS.update(rules)
    RULE_NAMES[:] = names
    SEGMENTER_NAMES[:] = segmenters


@pytest.fixture
def run(monkeypatch) -> Callable[..., int]:
    """Runs a command of the text as a shell would, but in this process, and quickly."""

    def run(command: str, *more: str) -> int:
        program, *words = shlex.split(command)
        script = words.pop(0) if program == "python" else None
        words += [word for text in (QUICK[words[0]], *more) for word in text.split()]
        if script is None:
            return main(words)
        monkeypatch.setattr(sys, "argv", [script, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        return int(ended.value.code or 0)

    return run


def commands(name: str) -> list[str]:
    found = [line for line in COMMANDS if name in line]
    assert found, f"docs/extending.md has no command with {name}"
    return found


def test_there_are_four_examples_of_twenty_lines_at_most():
    assert sorted(FILES) == ["blobs.py", "brightest.py", "plain16.py", "stain.yaml"]
    assert len(COMMANDS) == 5
    for content in FILES.values():
        assert len(content.splitlines()) <= 20
        assert max(map(len, content.splitlines())) <= 110


def test_a_backbone_of_ones_own_is_trained_and_looks_at_fields(place, run):
    train, infer = commands("plain16")
    assert run(train) == 0
    assert "backbone: plain16" in (place / "runs/plain16/settings.yaml").read_text()
    assert run(infer) == 0
    assert check_submission(place / "submission.csv", place / "DATA/sample_submission.csv") == []


def test_a_wrong_stride_of_it_is_one_line(place, run, capsys):
    assert run(commands("plain16")[0], "--stride 32") == 2
    assert re.search(
        r"backbone: plain16 .*gives \(1, 256, 8, 8\) .*4² maps for stride 32",
        capsys.readouterr().err,
    )


def test_a_policy_of_ones_own_changes_fields_and_is_trained_with(place, run):
    field = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    changed = Augmentation(Path("stain.yaml"))(field, (1, 2))
    assert changed.shape == field.shape
    assert (changed != field).any()
    assert run(commands("stain")[0], SMALL) == 0


def test_a_segmenter_of_ones_own_finds_cells(place, run):
    assert run(commands("blobs")[0]) == 0
    ids = find_fields(place / "DATA" / "test")
    maps = [read_label_maps(place / "blob_maps", id, read_field(place / "DATA" / "test", id)) for id in ids]
    assert any(one.cells.any() for one in maps)


def test_a_rule_of_ones_own_scores_cells_by_option_and_in_an_ensemble(place, run):
    (infer,) = commands("brightest")
    member = re.search(r"--members (\S+)", infer)[1]
    assert main(f"train DATA --out {member} {SMALL} {QUICK['train']}".split()) == 0
    assert run(infer) == 0
    assert check_submission("submission.csv", "DATA/sample_submission.csv") == []
    (place / "e.yaml").write_text(f"members: [{{checkpoint: {member}, views: flips}}]\nrule: brightest\n")
    assert run(infer.replace(f"--members {member}", "--ensemble e.yaml").replace("submission", "other")) == 0
    assert Path("other.csv").read_bytes() == Path("submission.csv").read_bytes()
    assert run(infer, "--rule copied --out copied.csv") == 0
    assert Path("copied.csv").read_bytes() != Path("submission.csv").read_bytes()


def test_where_it_was_not_added_its_name_is_one_line(place, capsys):
    command = "infer DATA --members runs/r50 --out s.csv --rule brightest"
    assert main(command.split()) == 2
    assert re.search(r"rule: there is no such rule;.*add_rule.*found 'brightest'\n$", capsys.readouterr().err)
