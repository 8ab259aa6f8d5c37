"""The real Kaggle client takes what we write, as far as it goes without a server: no account, no upload."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from hpa_kit.errors import InputError
from hpa_kit.kaggle.publish.bundle import build_bundle
from hpa_kit.kaggle.publish.client import dry_run, find_client
from hpa_kit.kaggle.publish.dataset import METADATA, Dataset, check_dataset, write_dataset
from hpa_kit.kaggle.publish.metadata import NOTEBOOKS, check_metadata
from hpa_kit.kaggle.publish.notebooks import write_metadata

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns("train", ".*"))
    for name in ("hpa_kit", "wheels", "constraints"):
        (root / name).mkdir()
    for name in ("hpa_kit/__init__.py", "wheels/requirements.txt", "constraints/kaggle.txt", "LICENSE"):
        (root / name).touch()
    write_metadata(root, "jane-doe")
    return root


def test_both_notebooks_are_pushed_as_their_metadata_say(client_python, checkout):
    outcomes = dry_run(client_python, [notebook.push() for notebook in NOTEBOOKS.values()], checkout)
    assert [outcome.fault for outcome in outcomes] == [None, None]
    for name, outcome in zip(NOTEBOOKS, outcomes, strict=True):
        (request,) = outcome.requests
        assert request["slug"] == f"jane-doe/hpa-kit-{name}"
        assert (request["enableInternet"], request["enableGpu"], request["isPrivate"]) == (False, True, True)
        assert "jane-doe/hpa-kit" in request["datasetDataSources"]
        assert request["competitionDataSources"] == ["hpa-single-cell-image-classification"]


def test_the_printed_commands_upload_the_bundle_whole(client_python, checkout):
    bundle = build_bundle(checkout / "dist", source=checkout)
    create, update = dry_run(client_python, [bundle.create, bundle.update], checkout)
    assert (create.fault, update.fault) == (None, None)
    assert (
        sorted(create.files) == ["README.md", "hpa-kit-manifest.json", "hpa-kit.zip"] == sorted(update.files)
    )
    card = (checkout / "dist" / "README.md").read_text()
    assert create.requests[0]["description"] == card == update.requests[0]["body"]["description"]
    assert bundle.build in update.requests[0]["body"]["versionNotes"]
    assert create.requests[0]["licenseName"] == "apache-2.0"
    assert create.requests[0]["isPrivate"] is True
    assert update.requests[0]["datasetSlug"] == "hpa-kit"


def test_no_folder_of_a_dataset_is_left_out(client_python, tmp_path):
    (tmp_path / "d" / "run").mkdir(parents=True)
    (tmp_path / "d" / "run" / "best.safetensors").write_text("x")
    dataset = write_dataset(tmp_path / "d", "jane-doe", "hpa-kit-members", "my members", "apache-2.0")
    with_folders, without = dry_run(
        client_python, [dataset.create(), dataset.create().removesuffix(" -r zip")], tmp_path
    )
    assert (with_folders.fault, with_folders.files) == (None, ["run.zip"])
    assert "Skipping folder: run" in without.fault


def commands_by_hand() -> list[str]:
    lines = (ROOT / "docs" / "kaggle.md").read_text(encoding="utf-8").splitlines()
    found = [line.strip() for line in lines if line.startswith("    ") and line.strip().startswith("kaggle ")]
    return [command.replace("NAME", "jane-doe").replace(" N ", " 3 ") for command in found]


def test_every_command_by_hand_is_one_that_the_client_can_read(client_python, tmp_path):
    commands = commands_by_hand()
    assert len(commands) >= 8
    outcomes = dry_run(client_python, commands, tmp_path)
    unread = [one.command for one in outcomes if one.fault and "kaggle: error:" in one.fault]
    assert unread == []
    assert dry_run(client_python, ["kaggle kernels push --nonsense"], tmp_path)[0].fault.startswith(
        "kaggle: error:"
    )


def test_the_submission_command_names_notebook_version_and_file(client_python, tmp_path):
    (command,) = [one for one in commands_by_hand() if one.startswith("kaggle competitions submit ")]
    (outcome,) = dry_run(client_python, [command], tmp_path)
    assert outcome.fault is None
    request = outcome.requests[0]
    assert (request["kernelOwner"], request["kernelSlug"]) == ("jane-doe", "hpa-kit-infer")
    assert (request["kernelVersion"], request["fileName"]) == (3, "submission.csv")


def test_what_the_client_refuses_or_doubts_our_check_refuses_too(client_python, checkout, tmp_path):
    good = json.loads(NOTEBOOKS["infer"].path(checkout).read_text())
    changes = [
        {"title": "x"},
        {"code_file": "gone.ipynb"},
        {"language": "cobol"},
        {"kernel_type": "film"},
        {"id": "jane-doe/hpa"},
        {"id": "jane-doe/other-slug"},
        {"dataset_sources": ["hpa-kit"]},
        {"model_sources": ["timm/resnet"]},
        {"kernel_sources": ["a/b/c/d"]},
        {"docker_image_pinning_type": "newest"},
    ]
    folders = [Path(shutil.copytree(checkout, tmp_path / f"case-{place}")) for place in range(len(changes))]
    for folder, change in zip(folders, changes, strict=True):
        NOTEBOOKS["infer"].path(folder).write_text(json.dumps({**good, **change}))
    outcomes = dry_run(client_python, [f"kaggle kernels push -p {folder}" for folder in folders], tmp_path)
    assert [change for change, outcome in zip(changes, outcomes, strict=True) if not outcome.fault] == []
    assert [
        change for change, folder in zip(changes, folders, strict=True) if not check_metadata(folder)
    ] == []


def test_a_dataset_that_the_client_refuses_our_check_refuses_too(client_python, tmp_path):
    changes = [
        {"title": "short"},
        {"id": "me/tiny"},
        {"licenses": []},
        {"title": "x" * 51},
        {"licenses": [{}]},
    ]
    folders = [tmp_path / f"case-{place}" for place in range(len(changes))]
    for folder, change in zip(folders, changes, strict=True):
        folder.mkdir()
        (folder / "a.txt").write_text("a")
        write_dataset(folder, "jane-doe", "hpa-kit-members", "my members", "apache-2.0")
        assert check_dataset(folder) == []
        metadata = {**json.loads((folder / METADATA).read_text()), **change}
        (folder / METADATA).write_text(json.dumps(metadata))
    commands = [Dataset(folder, "").create() for folder in folders]
    outcomes = dry_run(client_python, commands, tmp_path)
    assert [change for change, outcome in zip(changes, outcomes, strict=True) if not outcome.fault] == []
    assert [
        change for change, folder in zip(changes, folders, strict=True) if not check_dataset(folder)
    ] == []


def test_a_python_without_the_client_is_one_line(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'no module named kaggle' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(InputError, match="no module named kaggle.*pip install"):
        dry_run(fake, ["kaggle kernels push -p ."], tmp_path)


def test_the_python_of_an_installed_client_is_read_from_its_script(tmp_path, monkeypatch):
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.touch(mode=0o755)
    script = tmp_path / "bin" / "kaggle"
    script.write_text(f"#!{python}\n")
    script.chmod(0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    monkeypatch.setenv("PATH", str(python.parent))
    assert find_client(tmp_path) == python
    script.unlink()
    assert find_client(tmp_path) is None


SAID = (
    "Dataset creation error: ",
    "Dataset version is being created. Please check progress at ",
    "Dataset version creation error: ",
    "successfully ",
    "Kernel push error: ",
    "The following are not valid dataset sources ",
    ' has status "',
    'Failure message: "',
    "Cannot access kernel ",
    "Output file downloaded to ",
)


def test_what_the_documents_say_that_the_client_says_stands_in_its_source(client_python):
    code = "import importlib.util; print(importlib.util.find_spec('kaggle').submodule_search_locations[0])"
    done = subprocess.run([str(client_python), "-P", "-c", code], capture_output=True, text=True, check=True)
    source = (Path(done.stdout.strip()) / "api" / "kaggle_api_extended.py").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "kaggle.md").read_text(encoding="utf-8")
    assert [words for words in SAID if words not in page or words not in source] == []
