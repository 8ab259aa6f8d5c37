"""The five steps by hand, walked as they stand in docs/kaggle.md; what the inference notebook uses."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from played import NOTEBOOKS, execute, reports_in, with_parameters

from hpa_kit import kaggle
from hpa_kit.cli import main
from hpa_kit.config import EnsembleSettings, SimulateSettings
from hpa_kit.data.simulate import simulate
from hpa_kit.inference import summary_line
from hpa_kit.kaggle.mounts import COMPETITION
from hpa_kit.kaggle.publish.bundle import build_bundle
from hpa_kit.kaggle.publish.dataset import check_dataset

ROOT = NOTEBOOKS.parent
PAGE = (ROOT / "docs" / "kaggle.md").read_text(encoding="utf-8")
STEPS = re.search(r"^## By hand, in five steps\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)[1]
OWNER = "jane-doe"
COMMANDS = [line.replace("NAME", OWNER) for line in re.findall(r"^ {7}(\S.*)$", STEPS, re.MULTILINE)]

# Which training is worth a notebook's while is not what is tried here; inference runs as it is pushed.
QUICK = {
    "hpa-kit-train": {"backbone": "test_resnet", "size": 64, "epochs": 1, "lr": 0.01, "batch": 4,
                      "workers": 0, "settings": {"folds": 3}},
    "hpa-kit-infer": {},
}  # fmt: skip


class Kaggle:
    """What a user does in a checkout, and Kaggle's part: datasets, and notebooks that see what they attach.

    Args:
        checkout: where the commands run.
        competition: the folder that is mounted as the competition.
        root: of all that Kaggle keeps.
        patience: seconds until what has not begun is taken to hang.

    Attributes:
        datasets: {owner/slug: folder}.
        printed: {slug: all that the notebook printed}.
        notebooks: {slug: the executed notebook}.
    """

    def __init__(self, checkout: Path, competition: Path, root: Path, patience: float) -> None:
        self.checkout, self.competition, self.root = checkout, competition, root
        self.patience = patience
        self.datasets: dict[str, Path] = {}
        self.printed: dict[str, str] = {}
        self.notebooks: dict[str, Any] = {}

    def __call__(self, command: str) -> None:
        """Run a command of the page; one that nobody here knows is a fault of it."""
        words = shlex.split(command)
        if words[:2] == ["hpa-kit", "kaggle"]:
            code = main(words[1:])
            assert code == 0 or words[2] == "status", command
            return
        known: dict[str, Callable[[list[str]], None]] = {
            "./build_dataset.sh": self.build,
            "kaggle datasets create": self.create,
            "kaggle datasets status": lambda rest: self.expect(rest[0] in self.datasets, rest),
            "kaggle kernels push": self.push,
            "kaggle kernels status": lambda rest: self.expect(self.slug(rest[0]) in self.printed, rest),
            "kaggle kernels output": self.output,
            "kaggle competitions submit": self.submit,
            "kaggle competitions submissions": lambda rest: self.expect(rest == [COMPETITION], rest),
        }
        name = next((name for name in known if command.startswith(name)), None)
        assert name is not None, f"the page has a command that this test does not know: {command}"
        known[name](words[len(name.split()) :])

    @staticmethod
    def expect(holds: bool, found: object) -> None:
        assert holds, found

    @staticmethod
    def slug(id: str) -> str:
        owner, slug = id.split("/")
        assert owner == OWNER, id
        return slug

    def build(self, rest: list[str]) -> None:
        build_bundle(source=self.checkout)

    def create(self, rest: list[str]) -> None:
        """Upload a folder; ``-r zip`` is what keeps its folders."""
        folder = self.checkout / rest[rest.index("-p") + 1]
        assert check_dataset(folder) == []
        self.datasets[json.loads((folder / "dataset-metadata.json").read_text())["id"]] = folder

    def push(self, rest: list[str]) -> None:
        """Execute a notebook with what its metadata attach, and nothing else, mounted."""
        folder = self.checkout / rest[rest.index("-p") + 1]
        metadata = json.loads((folder / "kernel-metadata.json").read_text())
        slug = self.slug(metadata["id"])
        inputs, working = self.inputs(slug), self.root / slug / "working"
        working.mkdir(parents=True)
        mounts = {f"competitions/{name}": self.competition for name in metadata["competition_sources"]}
        # The kit is found in the checkout that the notebook lies in: its mounts have tests of their own.
        members = [id for id in metadata["dataset_sources"] if not id.endswith("/hpa-kit")]
        mounts |= {f"datasets/{id}": self.datasets[id] for id in members}
        for mount, source in mounts.items():
            (inputs / mount).parent.mkdir(parents=True, exist_ok=True)
            (inputs / mount).symlink_to(source)
        places = {"inputs": str(inputs), "working": str(working), "device": "cpu"}
        notebook = with_parameters((folder / metadata["code_file"]).resolve(), **places, **QUICK[slug])
        self.printed[slug] = execute(notebook, self.checkout / "notebooks", self.patience)
        self.notebooks[slug] = notebook

    def inputs(self, slug: str) -> Path:
        """What a notebook sees mounted."""
        return self.root / slug / "input"

    def working(self, slug: str) -> Path:
        """Where a notebook leaves its results."""
        return self.root / slug / "working"

    def output(self, rest: list[str]) -> None:
        shutil.copytree(self.working(self.slug(rest[0])), self.checkout / rest[rest.index("-p") + 1])

    def submit(self, rest: list[str]) -> None:
        slug = self.slug(rest[rest.index("-k") + 1])
        assert (self.working(slug) / rest[rest.index("-f") + 1]).is_file()


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, patience: float) -> Kaggle:
    """All five steps on a simulated competition, whose sample has other rows than there are images."""
    root = tmp_path_factory.mktemp("kaggle")
    checkout, competition = root / "checkout", root / COMPETITION
    shutil.copytree(ROOT / "notebooks", checkout / "notebooks")
    for name in ("kernel-metadata.json", "LICENSE"):
        shutil.copy(ROOT / name, checkout / name)
    shutil.copytree(ROOT / "constraints", checkout / "constraints")
    (checkout / "hpa_kit").symlink_to(ROOT / "hpa_kit")  # with what numba has compiled
    (checkout / "wheels").mkdir()
    (checkout / "wheels" / "requirements.txt").touch()  # what they bring is here
    sizes = {"train": 12, "test": 4, "size": 64, "classes": (0, 7, 16)}
    simulate(SimulateSettings(out=competition, **sizes, seed=3, workers=1))
    sample = competition / "sample_submission.csv"
    rows = pd.read_csv(sample, dtype=str, keep_default_na=False)
    rows.iloc[[2, 0, 1]].to_csv(sample, index=False)
    walker = Kaggle(checkout, competition, root, patience)
    with pytest.MonkeyPatch.context() as here:
        here.chdir(checkout)
        for command in COMMANDS:
            walker(command)
    return walker


def test_the_csv_of_the_five_steps_is_that_of_infer_with_the_run_as_its_member(walked, tmp_path):
    words = ["infer", walked.competition, "--members", walked.checkout / "runs" / "run", "--device", "cpu"]
    assert main([str(word) for word in (*words, "--out", tmp_path / "s.csv")]) == 0
    submitted = walked.working("hpa-kit-infer") / "submission.csv"
    assert submitted.read_bytes() == (tmp_path / "s.csv").read_bytes()
    sample = pd.read_csv(walked.competition / "sample_submission.csv", dtype=str, keep_default_na=False)
    written = pd.read_csv(submitted, dtype=str, keep_default_na=False)
    assert written["ID"].tolist() == sample["ID"].tolist()
    assert written["PredictionString"].str.len().min() > 0


def test_both_notebooks_show_what_they_did(walked):
    training, run = walked.notebooks["hpa-kit-train"], walked.working("hpa-kit-train") / "run"
    assert json.dumps(training.cells).count("image/png") == 4  # a batch, CAMs, the curve
    assert reports_in(training) == 1
    files = {"best.safetensors", "last.safetensors", "metrics.csv", "folds.csv"}
    assert files <= {path.name for path in run.iterdir()}
    assert reports_in(walked.notebooks["hpa-kit-infer"]) == 1
    assert (walked.working("hpa-kit-infer") / "report.html").is_file()
    assert "submission.csv: 0 faults" in walked.printed["hpa-kit-infer"]


def test_the_notebook_says_in_one_line_what_it_uses(walked):
    (line,) = [one for one in walked.printed["hpa-kit-infer"].splitlines() if one.startswith("uses ")]
    member = walked.inputs("hpa-kit-infer") / "datasets" / OWNER / "hpa-kit-members" / "run.safetensors"
    assert re.fullmatch(
        f"uses member: {member}; rule best; steps negative, floor; views flips; maps of 512 px; cells by "
        r"segmenter classical, without weights; budget 8\.5 hours, 0\.\d\d gone",
        line,
    )


@pytest.fixture
def chosen(walked, tmp_path) -> Callable[..., tuple[EnsembleSettings, str]]:
    """What the notebook's own cells choose, with an ensemble's YAML attached or a run, and what they say."""
    notebook = with_parameters(NOTEBOOKS / "infer.ipynb")
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    (parameters,) = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    (settings,) = [source for source in cells if "notebook_settings" in source]
    inputs = tmp_path / "input"
    (inputs / COMPETITION).parent.mkdir()
    (inputs / COMPETITION).symlink_to(walked.competition)
    device = SimpleNamespace(device=lambda wanted: wanted)

    def choose(said: dict[str, Any] | None, **given: Any) -> tuple[EnsembleSettings, str]:
        if said is None:
            (inputs / "my-run").symlink_to(walked.checkout / "runs" / "run")
        else:
            (inputs / "ensemble.yaml").write_text(yaml.safe_dump({"members": ["a", "b"]} | said))
        values: dict[str, Any] = {}
        exec(parameters, values)
        values |= {"inputs": str(inputs), "working": str(tmp_path), "kaggle": kaggle, "environment": device}
        values |= {"time": SimpleNamespace(time=lambda: 1800.0), "started": 0.0, **given}
        exec(settings, values)
        return values["chosen"].of_ensemble(), summary_line(values["chosen"])

    return choose


def test_without_a_yaml_the_run_folders_that_are_attached_are_the_members(chosen):
    found, line = chosen(None)
    assert [member.checkpoint.name for member in found.members] == ["my-run"]
    assert (found.rule, found.map_size, found.members[0].views) == ("best", 512, "flips")
    assert "0.50 gone" in line


SAID = {"rule": "cam_share", "steps": ["fill"], "segmenter": "classical", "map_size": 256}


def test_an_attached_yaml_is_used_as_it_stands_where_nothing_is_given(chosen, tmp_path):
    members = [{"checkpoint": "a", "views": "auto", "weight": 0.4}, {"checkpoint": "b", "mode": "cam"}]
    found, line = chosen(SAID | {"members": members, "masks": "maps"})
    assert (found.rule, found.segmenter, found.map_size) == ("cam_share", "classical", 256)
    inputs = tmp_path / "input"
    first = f"{inputs / 'a'} (mode both, weight 0.4, views auto)"
    second = f"{inputs / 'b'} (mode cam, weight 1, views flips)"
    assert line == (
        f"2 members: {first}, {second}; rule cam_share mean_share; steps fill; views of each; "
        "maps of 256 px; "
        f"cells of {inputs / 'maps'}, what it lacks by segmenter classical, without weights; "
        "budget 8.5 hours, 0.50 gone"
    )


def test_what_a_variable_says_wins_over_the_attached_yaml_also_where_it_is_the_default(chosen):
    found, line = chosen(SAID, rule="best", segmenter="auto", views="flips", settings={"map_size": 512})
    assert (found.rule, found.segmenter, found.map_size) == ("best", "auto", 512)
    assert "rule best; steps negative, floor, fill; views flips; maps of 512 px" in line
    found, line = chosen(SAID | {"members": [{"checkpoint": "a", "views": "auto"}, "b"]}, views="none")
    assert {member.views for member in found.members} == {"none"}
    assert "views none;" in line


def test_cell_networks_of_the_yaml_come_before_those_that_are_attached(chosen, tmp_path):
    (tmp_path / "input" / "cells").mkdir()
    for name in ("nuclei-model.pth", "cell-model.pth"):
        (tmp_path / "input" / "cells" / name).touch()
    attached, own = tmp_path / "input" / "cells", tmp_path / "input" / "own"
    for said, given, expected in (({}, {}, attached), ({"weights": "own"}, {}, own),
                                  ({"weights": "own"}, {"weights": str(attached)}, attached)):  # fmt: skip
        found, line = chosen(said, **given)
        assert found.weights == expected
        assert f"cells by segmenter published, weights in {expected}" in line
