"""A rehearsal with the user's own members, cells and data, which stay as they are."""

import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hpa_kit.cli import main
from hpa_kit.config import SimulateSettings
from hpa_kit.data import DataFolder, read_labels
from hpa_kit.data.simulate import simulate
from hpa_kit.errors import InputError
from hpa_kit.kaggle.mounts import find_competition
from hpa_kit.kaggle.publish.dataset import write_dataset
from hpa_kit.kaggle.publish.rehearsal import environment, play
from hpa_kit.kaggle.publish.rehearsal.network import Played
from hpa_kit.kaggle.publish.rehearsal.own import own_competition
from hpa_kit.submission import read_submission, write_submission
from hpa_kit.submission.table import parse_truth

ROOT = Path(__file__).resolve().parents[3]
PUBLIC, SCORED = "Batch", "1"


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A competition of 8 training and 6 test fields; tests leave it as it is."""
    sizes = {"train": 8, "test": 6, "size": 64, "classes": (0, 7)}
    return simulate(SimulateSettings(out=tmp_path_factory.mktemp("own") / "data", **sizes, workers=1))


@pytest.fixture
def packed(tmp_path) -> dict[str, Path]:
    """Datasets as `hpa-kit kaggle weights` leaves them, but for what their files hold."""
    files = {"members": ("ensemble.yaml", "run.safetensors"), "cells": ("nuclei-model.pth", "cell-model.pth")}
    for name, own in files.items():
        (tmp_path / name).mkdir()
        for file in own:
            (tmp_path / name / file).touch()
        write_dataset(tmp_path / name, "jane-doe", f"hpa-kit-{name}", f"hpa-kit {name}", "other")
    return {name: tmp_path / name for name in files}


class Seen(NamedTuple):
    """A notebook as it was played, and what lay among its inputs then."""

    name: str
    parameters: dict[str, Any]
    scored: bool
    ids: list[str]
    files: set[str]


@pytest.fixture
def played(tmp_path, monkeypatch) -> list[Seen]:
    """Notebooks are not executed, and the image's packages not installed: an empty submission is written."""
    seen: list[Seen] = []

    def execute(python, how, task, variables) -> Played:
        inputs, working = Path(task["inputs"]), Path(task["parameters"]["working"])
        table = read_submission(find_competition(None, [inputs]) / "sample_submission.csv")
        write_submission(working / "submission.csv", table.assign(PredictionString=""))
        name, own = Path(task["notebook"]).stem, task["parameters"].keys() - {"inputs", "working"}
        parameters = {key: task["parameters"][key] for key in own}
        files = {path.relative_to(inputs).as_posix() for path in inputs.rglob("*") if path.is_file()}
        scored = variables.get("KAGGLE_IS_COMPETITION_RERUN") == "1"
        seen.append(Seen(name, parameters, scored, table["ID"].tolist(), files))
        kit = [path.parents[1] for path in inputs.rglob("hpa_kit/__init__.py")] or ["/tmp/hpa-kit-x"]
        kit_line = f"hpa_kit 0 from {kit[0]}: as it was built"
        return Played(f"{kit_line}\nuses member: run; rule best\nsubmission.csv: 0 faults\n", None)

    (tmp_path / "kit" / "hpa_kit").mkdir(parents=True)
    (tmp_path / "kit" / "hpa_kit" / "__init__.py").touch()
    bundle = Path(shutil.make_archive(str(tmp_path / "hpa-kit"), "zip", tmp_path / "kit"))
    built = type("Built", (), {"path": bundle})
    monkeypatch.setattr(play, "play", execute)
    monkeypatch.setattr(play, "build_bundle", lambda *_: built)
    monkeypatch.setattr(play, "make_environment", lambda *_: Path(sys.executable))
    monkeypatch.setattr(play, "take_out_wheels", lambda *_: None)
    return seen


@pytest.fixture
def rehearse(tmp_path, packed, competition) -> Callable[..., int]:
    def run(*words: object) -> int:
        return main(["kaggle", "rehearse", "--out", str(tmp_path / "out"), *map(str, words)])

    return run


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mode) for path in files}


def test_own_members_cells_and_data_are_mounted_and_the_notebook_runs_as_it_will_be_submitted(
    rehearse, played, packed, competition, capsys
):
    before = contents(competition) | contents(packed["members"]) | contents(packed["cells"])
    datasets = ("--members-dataset", packed["members"], "--cells-dataset", packed["cells"])
    assert rehearse(*datasets, "--data", competition, "--test", 2) == 0
    ids = DataFolder(competition).fields("test").ids
    assert [(one.name, one.parameters, one.scored, one.ids) for one in played] == [
        ("infer", {}, False, ids[:2]),
        ("infer", {}, True, ids[2:]),
    ]
    mounts = {"hpa-kit-members/ensemble.yaml", "hpa-kit-cells/cell-model.pth"}
    assert all({f"datasets/jane-doe/{file}" for file in mounts} <= one.files for one in played)
    after = contents(competition) | contents(packed["members"]) | contents(packed["cells"])
    assert after == before
    printed = capsys.readouterr().out
    assert f"{competition}: 2 public and 4 hidden test fields\n" in printed
    assert "uses member: run; rule best" in printed
    assert "hidden test set: 4 rows, 0 faults, mAP 0.000" in printed


def test_without_a_truth_there_is_no_score(rehearse, played, packed, competition, tmp_path, capsys):
    shutil.copytree(competition, tmp_path / "data")
    (tmp_path / "data" / "truth.csv").unlink()
    shutil.rmtree(tmp_path / "data" / "train")  # nothing is trained
    assert rehearse("--members-dataset", packed["members"], "--data", tmp_path / "data") == 0
    printed = capsys.readouterr().out
    assert "4 public and 6 hidden test fields, 4 of them in both" in printed
    assert "public test set: 4 rows, 0 faults\n" in printed


def test_own_members_are_rehearsed_on_simulated_fields_where_no_data_are_given(rehearse, played, packed):
    assert rehearse("--members-dataset", packed["members"], "--test", 1, "--train", 2, "--size", 64) == 0
    assert [(one.name, len(one.ids)) for one in played] == [("infer", 1), ("infer", 3)]


def test_some_fields_of_a_competition_are_one_of_links_to_their_images(competition, tmp_path):
    (tmp_path / "own" / "public").mkdir(parents=True)
    (tmp_path / "own" / "public" / "stale.csv").touch()
    public, hidden = own_competition(competition, tmp_path / "own", train=4, test=2)
    labels = read_labels(competition / "train.csv")
    some = read_labels(public / "train.csv")
    assert some["ID"].tolist() == labels["ID"].iloc[[0, 2, 4, 6]].tolist()
    assert set(some["Label"]) <= set(labels["Label"])
    assert DataFolder(public).fields("train").ids == sorted(some["ID"])
    for folder in (public, hidden):
        fields = DataFolder(folder).fields("test")
        assert (fields.missing, fields.extra) == ([], [])
        assert read_submission(folder / "truth.csv")["ID"].tolist() == fields.ids
        truth = read_submission(folder / "truth.csv")["PredictionString"]
        assert all(parse_truth(text).masks for text in truth)
    assert all(path.is_symlink() for path in (hidden / "test").iterdir())
    assert not (public / "stale.csv").exists()


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (
            "members/dataset-metadata.json",
            "--members-dataset {members}",
            r"metadata\.json: missing; pack it with",
        ),
        ("members/ensemble.yaml", "--members-dataset {members}", "holds ensemble.yaml or best.safetensors"),
        ("cells/cell-model.pth", "--cells-dataset {cells}", "does not hold both published cell networks"),
        ("", "--members-dataset {members} --cells-dataset {members}", "does not hold both"),
        ("", "--data {members}", "sample_submission.csv is missing"),
        ("data/train.csv", "--data {data}", "train.csv is missing"),
        ("data/train", "--data {data}", "train is missing"),
        ("", "--data {out}/kaggle/input", "lies in .*kaggle, which is emptied; give another --out"),
        ("", "--hpacellseg {members}", "no checkout: expected setup.py"),
    ],
)
def test_what_cannot_be_rehearsed_is_one_line_before_anything_is_made(
    rehearse, packed, competition, tmp_path, monkeypatch, capsys, change, words, message
):
    def too_late(*_: object) -> Path:
        raise AssertionError("the environment is made before the user's own is looked at")

    monkeypatch.setattr(play, "make_environment", too_late)
    shutil.copytree(competition, tmp_path / "data")
    if (tmp_path / change).is_dir() and change:
        shutil.rmtree(tmp_path / change)
    elif change:
        (tmp_path / change).unlink()
    places = {"data": tmp_path / "data", "out": tmp_path / "out", **packed}
    assert rehearse(*words.format(**places).split()) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hpa-kit: ")]
    assert len(error) == 1
    assert re.search(message, error[0]), error


def test_datasets_of_one_id_are_refused(packed, tmp_path, rehearse, capsys):
    write_dataset(packed["cells"], "jane-doe", "hpa-kit-members", "hpa-kit members", "other")
    assert rehearse("--members-dataset", packed["members"], "--cells-dataset", packed["cells"]) == 2
    assert "have one id" in capsys.readouterr().err


def test_fewer_labelled_fields_than_a_run_needs_are_refused(competition, tmp_path):
    shutil.copytree(competition, tmp_path / "data")
    table = (tmp_path / "data" / "train.csv").read_text().splitlines()
    (tmp_path / "data" / "train.csv").write_text("\n".join(table[:3]) + "\n")
    with pytest.raises(InputError, match="labels 2 fields .*expected 8 or more, or --members-dataset"):
        own_competition(tmp_path / "data", tmp_path / "own", train=3, test=2)
    own_competition(tmp_path / "data", tmp_path / "own", train=0, test=2)


@pytest.fixture
def commands(tmp_path, monkeypatch) -> list[list[str]]:
    """Commands that make an environment, which are not run; in place of pip's its lines are printed."""
    lines = "Collecting numpy\\nDownloading numpy\\nCollecting timm\\nInstalling collected packages: numpy"
    found: list[list[str]] = []
    run = environment._run

    def stand_in(command: list[str], folder: Path, **how: Any) -> None:
        found.append(command)
        if command[1:3] == ["-m", "venv"]:
            (folder / "shared").parent.mkdir(parents=True)
        elif "install" in command:
            run([sys.executable, "-c", f"print('{lines}')"], folder, **how)

    monkeypatch.setattr(environment, "_run", stand_in)
    monkeypatch.setattr(environment, "_purelib", lambda _: tmp_path)
    return found


def test_making_the_environment_says_so_first_and_shows_what_pip_is_at(tmp_path, commands, capsys):
    said = []
    environment.make_environment(tmp_path / "venv", ROOT, lambda line: said.append((line, len(commands))))
    ((line, before),) = said
    assert before == 0, "nothing is said before the long work"
    assert "of the image's packages, with what they need, once" in line
    shown = capsys.readouterr().err
    assert "rehearsal: fetch: 2 packages" in shown
    assert "all here, installing" in shown
    environment.make_environment(tmp_path / "venv", ROOT, said.append)
    assert len(said) == 1, "it is made once"


def test_the_environment_has_what_the_users_hpacellseg_needs_of_the_image(tmp_path, commands):
    wheel = tmp_path / "given" / "hpacellseg-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    asked = "".join(f"Requires-Dist: {name}\n" for name in ("torch", "click", "scikit_image", "unheard-of"))
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hpacellseg-1.0.dist-info/METADATA", f"Name: hpacellseg\n{asked}")
    copy = environment.own_wheel(wheel, tmp_path / "wheel", ROOT)
    assert copy.read_bytes() == wheel.read_bytes()
    environment.make_environment(tmp_path / "venv", ROOT, str, copy)
    (install,) = [command for command in commands if "install" in command]
    assert {"click", "scikit-image"} <= set(install)
    assert not {"torch", "unheard-of"} & set(install)
    assert environment.own_wheel(None, tmp_path / "wheel", ROOT) is None
    environment.make_environment(tmp_path / "venv", ROOT, str)
    assert "click" not in [command for command in commands if "install" in command][1]
