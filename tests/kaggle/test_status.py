"""What stands between a folder and a submission is said line by line, each with what mends it."""

import json
import shutil
from pathlib import Path

import pytest

from hpa_kit.kaggle.bundle import build_bundle
from hpa_kit.kaggle.dataset import write_dataset
from hpa_kit.kaggle.notebooks import write_metadata
from hpa_kit.kaggle.status import Step, status, unseen

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkout with everything in its place."""
    root = tmp_path_factory.mktemp("ready") / "checkout"
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns("train", ".*"))
    for name in ("hpa_kit", "wheels", "constraints", "dist-members"):
        (root / name).mkdir()
    (root / "hpa_kit" / "__init__.py").write_text("# kit\n")
    (root / "wheels" / "requirements.txt").touch()
    (root / "constraints" / "kaggle.txt").touch()
    (root / "LICENSE").touch()
    write_metadata(root, "jane-doe")
    build_bundle(root / "dist", source=root)
    (root / "dist-members" / "ensemble.yaml").write_text("members: [run.safetensors]\n")
    write_dataset(root / "dist-members", "jane-doe", "hpa-kit-members", "my members", "apache-2.0")
    return root


@pytest.fixture
def checkout(ready: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ready, tmp_path / "checkout"))


def to_do(checkout: Path) -> list[Step]:
    steps = status(checkout, checkout / "dist", checkout / "dist-members", client=False)
    return [step for step in steps if step.mend is not None]


def test_a_folder_with_everything_in_its_place_has_nothing_to_do(checkout):
    pytest.importorskip("jupytext")
    assert to_do(checkout) == []


def test_an_owner_still_to_be_set_is_flagged(checkout):
    for path in (checkout, checkout / "notebooks" / "train"):
        file = path / "kernel-metadata.json"
        file.write_text(file.read_text().replace("jane-doe", "your-name"))
    assert to_do(checkout)[0].mend == "hpa-kit kaggle metadata --owner NAME"


def test_code_changed_after_the_bundle_was_built_asks_for_another(checkout):
    (checkout / "hpa_kit" / "__init__.py").write_text("# newer\n")
    (step,) = to_do(checkout)
    assert "hpa_kit/__init__.py" in step.what
    assert step.mend == "./build_dataset.sh"


@pytest.mark.parametrize("damage", ["missing", "half"])
def test_a_bundle_that_is_not_there_or_damaged_asks_for_another(checkout, damage):
    path = checkout / "dist" / "hpa-kit.zip"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    assert [step.mend for step in to_do(checkout)] == ["./build_dataset.sh"]


def test_without_members_the_training_notebook_and_the_packing_are_named(checkout):
    shutil.rmtree(checkout / "dist-members")
    (step,) = to_do(checkout)
    assert "kaggle kernels push -p notebooks/train" in step.what
    assert step.mend.startswith("hpa-kit kaggle weights RUN")


def test_a_dataset_that_the_notebook_does_not_attach_is_named(checkout):
    path = checkout / "kernel-metadata.json"
    metadata = json.loads(path.read_text())
    metadata["dataset_sources"].remove("jane-doe/hpa-kit-members")
    path.write_text(json.dumps(metadata))
    (step,) = to_do(checkout)
    assert step.mend == "hpa-kit kaggle metadata --add jane-doe/hpa-kit-members"


def test_a_dataset_of_another_owner_is_named(checkout):
    write_dataset(checkout / "dist-members", "someone", "hpa-kit-members", "my members", "apache-2.0")
    (step,) = to_do(checkout)
    assert "someone/hpa-kit-members is not jane-doe's" in step.what


def test_a_notebook_with_outputs_and_one_out_of_step_each_have_their_command(checkout):
    pytest.importorskip("jupytext")
    path = checkout / "notebooks" / "infer.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"][0]["source"] = "# other"
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["execution_count"] = 1
    path.write_text(json.dumps(notebook))
    assert [step.mend for step in to_do(checkout)] == ["jupytext --to ipynb notebooks/infer.py", "make sync"]


def test_a_missing_wheel_is_a_line_and_not_a_crash(checkout):
    pins = checkout / "wheels" / "requirements.txt"
    pins.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    steps = to_do(checkout)
    assert [step.mend for step in steps] == ["./build_dataset.sh"]
    assert "tiny" in steps[0].what


def test_every_line_is_one_line_with_its_command(checkout):
    shutil.rmtree(checkout / "dist")
    for step in status(checkout, checkout / "dist", checkout / "nothing", client=False):
        assert "\n" not in str(step)
        assert str(step).startswith("ok" if step.mend is None else "to do")
    assert all("kaggle" in line for line in unseen(checkout))
