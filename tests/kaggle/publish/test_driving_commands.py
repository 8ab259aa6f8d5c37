"""The commands that drive Kaggle, as they are given; members of a recipe's output packed."""

import json
import re
import shutil
import stat
from pathlib import Path

import pytest
from site_client import NO_WAIT
from small_checkout import make_checkout

from hpa_kit.cli import main
from hpa_kit.config import make_settings, read_ensemble, write_ensemble
from hpa_kit.config.ensemble import EnsembleSettings
from hpa_kit.kaggle.publish import online_client, training
from hpa_kit.kaggle.publish.dataset import Fault, check_dataset
from hpa_kit.kaggle.publish.job import Job, open_job
from hpa_kit.kaggle.publish.notebooks import write_metadata
from hpa_kit.kaggle.publish.online_client import Client
from hpa_kit.kaggle.publish.sessions import follow
from hpa_kit.kaggle.publish.weights import weights_dataset

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_checkout(tmp_path / "checkout")
    monkeypatch.chdir(root)
    return root


def fake_client(folder: Path, script: str) -> Path:
    """A client's Python that does what a shell script says; the command's words are its arguments."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nshift 3\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("words", "begins", "number"),
    [
        (
            "data --images 3",
            "kaggle competitions download hpa-single-cell-image-classification -f train.csv",
            4,
        ),
        ("train --recipe quick", "kaggle datasets status jane-doe/hpa-kit --format", 19),
        ("submit -m first", "kaggle datasets status jane-doe/hpa-kit", 8),
    ],
)
def test_a_dry_run_prints_commands_and_runs_none(checkout, capsys, monkeypatch, words, begins, number):
    monkeypatch.setattr(online_client, "find_client", lambda _: pytest.fail("a client was looked for"))
    before = sorted(checkout.rglob("*"))
    assert main(["kaggle", *words.split(), "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(begins)
    assert len(printed) == number
    assert sorted(checkout.rglob("*")) == before


def test_a_fault_is_one_line_with_what_puts_it_right(checkout, tmp_path, capsys, monkeypatch):
    python = fake_client(tmp_path, 'echo "Authentication required to call the Kaggle API."')
    monkeypatch.setattr(online_client, "find_client", lambda _: python)
    assert main(["kaggle", "submit"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("hpa-kit: kaggle: nobody is logged in (Authentication required")
    assert said.endswith("-> kaggle auth login\n")


def test_without_a_client_the_command_that_brings_it_is_named(checkout, capsys, monkeypatch):
    monkeypatch.setattr(online_client, "find_client", lambda _: None)
    for words in (["data"], ["train", "--recipe", "quick"], ["submit"]):
        assert main(["kaggle", *words]) == 2
        assert capsys.readouterr().err == "hpa-kit: kaggle: no Kaggle client here -> make client\n"


def test_a_second_command_at_the_same_job_is_refused(checkout, tmp_path, capsys, monkeypatch):
    python = fake_client(tmp_path, "exit 1")
    monkeypatch.setattr(online_client, "find_client", lambda _: python)
    with open_job(checkout / "on-kaggle" / "submit", "hpa-kit kaggle submit"):
        assert main(["kaggle", "submit"]) == 2
    assert "another process" in capsys.readouterr().err


def test_what_the_client_says_on_both_streams_is_heard_and_its_progress_shown(tmp_path, capfd):
    python = fake_client(tmp_path, 'echo "$@"; printf "10%%\\r100%%\\n" >&2; exit 3')
    answer = Client(python, tmp_path, NO_WAIT).once("datasets", "status", "a b", shown=True)
    assert answer.command == "kaggle datasets status 'a b'"
    assert (answer.status, answer.printed, answer.errors) == (3, "datasets status a b\n", "10%\n100%\n")
    assert capfd.readouterr().err.endswith("100%\n")


def test_a_log_that_grows_is_printed_as_it_comes_each_line_once(tmp_path, capsys):
    """The client that follows a log is cut after two lines, begins again, and is cut again."""
    script = """
case "$1 $2" in
"kernels status")
  n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) > count
  [ $n -lt 3 ] && echo "x has status \\"KernelWorkerStatus.RUNNING\\"" \
    || echo "x has status \\"KernelWorkerStatus.COMPLETE\\"" ;;
"kernels logs")
  n=$(cat count); i=0
  while [ $i -lt $((2 * n)) ]; do echo "line $i"; i=$((i + 1)); done ;;
esac
"""

    class Job:
        def write(self) -> None:
            pass

    client = Client(fake_client(tmp_path, script), tmp_path, NO_WAIT)
    session = {"slug": "x-notebook", "mark": "m", "version": 1}
    ended = follow(client, Job(), session, "me/x-notebook", tmp_path / "logs")  # type: ignore[arg-type]
    lines = [line for line in capsys.readouterr().out.splitlines() if "line" in line]
    assert lines == [f"  | line {number}" for number in range(8)]
    assert (ended.status, ended.fault, session["lines"]) == ("COMPLETE", None, 8)
    assert (tmp_path / "logs" / "x-notebook-m.txt").read_text().count("\n") == 8


def test_the_members_of_a_recipe_are_packed_from_what_was_fetched(make_member, tmp_path):
    run = make_member()
    recipe = tmp_path / "results" / "recipe"
    weights_dataset([run], recipe / "members", "your-name")
    packed = read_ensemble(recipe / "members" / "ensemble.yaml")
    write_ensemble(packed.model_copy(update={"rule": "cam_share"}), recipe / "members" / "ensemble.yaml")
    # What the recipe tuned names folders that stay on Kaggle.
    stays = make_settings(
        EnsembleSettings, {"members": [Path("/kaggle/working/recipe/runs/a")]}, source="test"
    )
    write_ensemble(stays, recipe / "ensemble.yaml")
    training._pack(tmp_path / "results", tmp_path / "dist-members", "jane-doe")
    assert check_dataset(tmp_path / "dist-members") == []
    metadata = json.loads((tmp_path / "dist-members" / "dataset-metadata.json").read_text())
    assert metadata["id"] == "jane-doe/hpa-kit-members"
    assert read_ensemble(tmp_path / "dist-members" / "ensemble.yaml").rule == "cam_share"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks and recipes of this checkout, in another."""
    root = tmp_path_factory.mktemp("own")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / training.RECIPES, root / training.RECIPES)
    shutil.copy(ROOT / "kernel-metadata.json", root)
    write_metadata(root, "jane-doe")
    return root


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / training.RECIPES).glob("*.yaml")))
def test_the_training_notebook_takes_each_recipe_and_goes_on(own, tmp_path, name):
    plan = training.TrainingPlan(name, tmp_path, tmp_path)
    assert training._owner(own, plan) == "jane-doe"
    job = Job(tmp_path)
    job.add_session(plan.slugs[0], state={"finished": False}, ended="COMPLETE")
    session = training._next(own, plan, job, "jane-doe", None)
    assert session["slug"] == plan.slugs[1]
    whole = json.loads((tmp_path / plan.slugs[1] / "train.ipynb").read_text())
    (cell,) = [cell for cell in whole["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    values: dict[str, object] = {}
    exec(cell["source"], values)
    assert (values["recipe"], values["goes_on"], values["out"]) == (name, True, None)


def test_what_a_recipe_says_of_itself_is_what_is_looked_for(tmp_path):
    from hpa_kit.kaggle.recipes import FOLDER
    from hpa_kit.recipe.state import STATE, State, write_state

    assert (training.RECIPE, training.STATE) == (FOLDER, STATE)
    write_state(tmp_path / FOLDER, State("quick", False, ("a",), ("b",), None, 2.5, 1, "b failed"))
    found = training._read_state(tmp_path)
    assert found is not None
    assert re.search(training.STATE_PATTERN, f"{FOLDER}/{STATE}")
    assert (found["done"], found["left"], found["problem"]) == (["a"], ["b"], "b failed")
    assert (found["hours_left"], found["hours_spent"]) == (None, 2.5)


def test_a_finished_recipe_without_members_is_told(tmp_path):
    with pytest.raises(Fault, match=r"no ensemble.yaml in the output of a finished recipe"):
        training._pack(tmp_path, tmp_path / "dist-members", "jane-doe")
