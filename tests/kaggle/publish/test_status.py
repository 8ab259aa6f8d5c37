"""What stands between a folder and a submission is said line by line, each with what puts it right."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpa_kit.cli import main
from hpa_kit.kaggle.publish.bundle import build_bundle
from hpa_kit.kaggle.publish.client import Outcome
from hpa_kit.kaggle.publish.dataset import Fault, write_dataset
from hpa_kit.kaggle.publish.notebooks import write_metadata
from hpa_kit.kaggle.publish.status import status, unseen

ROOT = Path(__file__).resolve().parents[3]


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


def to_do(checkout: Path) -> list[Fault]:
    lines = status(checkout, checkout / "dist", checkout / "dist-members", client=False)
    return [line for line in lines if isinstance(line, Fault)]


def test_a_folder_with_everything_in_its_place_has_nothing_to_do(checkout):
    pytest.importorskip("jupytext")
    assert to_do(checkout) == []


def test_an_owner_still_to_be_set_is_flagged(checkout):
    for path in (checkout, checkout / "notebooks" / "train"):
        file = path / "kernel-metadata.json"
        file.write_text(file.read_text().replace("jane-doe", "your-name"))
    assert to_do(checkout)[0].fix == "hpa-kit kaggle metadata --owner NAME"


def test_code_changed_after_the_bundle_was_built_asks_for_another(checkout):
    (checkout / "hpa_kit" / "__init__.py").write_text("# newer\n")
    (fault,) = to_do(checkout)
    assert "hpa_kit/__init__.py" in str(fault)
    assert fault.fix == "./build_dataset.sh"


@pytest.mark.parametrize("damage", ["missing", "half"])
def test_a_bundle_that_is_not_there_or_damaged_asks_for_another(checkout, damage):
    path = checkout / "dist" / "hpa-kit.zip"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    assert [fault.fix for fault in to_do(checkout)] == ["./build_dataset.sh"]


def test_without_members_the_training_notebook_and_the_packing_are_named(checkout):
    shutil.rmtree(checkout / "dist-members")
    (fault,) = to_do(checkout)
    assert "kaggle kernels push -p notebooks/train" in str(fault)
    assert fault.fix.startswith("hpa-kit kaggle weights RUN")


def test_what_was_begun_on_kaggle_and_not_ended_is_named_with_what_goes_on(checkout):
    for name, kept in {"train-quick": {"command": "hpa-kit kaggle train --recipe quick"},
                       "submit": {"command": "hpa-kit kaggle submit", "done": True}}.items():  # fmt: skip
        (checkout / "on-kaggle" / name).mkdir(parents=True)
        (checkout / "on-kaggle" / name / "job.json").write_text(json.dumps(kept))
    assert [fault.fix for fault in to_do(checkout)] == ["hpa-kit kaggle train --recipe quick"]
    (checkout / "on-kaggle" / "submit" / "job.json").write_text("{")
    assert "no JSON" in str(to_do(checkout)[0])


def test_a_dataset_that_the_notebook_does_not_attach_is_named(checkout):
    path = checkout / "kernel-metadata.json"
    metadata = json.loads(path.read_text())
    metadata["dataset_sources"].remove("jane-doe/hpa-kit-members")
    path.write_text(json.dumps(metadata))
    (fault,) = to_do(checkout)
    assert fault.fix == "hpa-kit kaggle metadata --add jane-doe/hpa-kit-members"


def test_a_dataset_of_another_owner_is_named(checkout):
    write_dataset(checkout / "dist-members", "someone", "hpa-kit-members", "my members", "apache-2.0")
    (fault,) = to_do(checkout)
    assert "someone/hpa-kit-members is not jane-doe's" in str(fault)


def test_a_notebook_with_outputs_and_one_out_of_step_each_have_their_command(checkout):
    pytest.importorskip("jupytext")
    path = checkout / "notebooks" / "infer.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"][0]["source"] = "# other"
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["execution_count"] = 1
    path.write_text(json.dumps(notebook))
    assert [fault.fix for fault in to_do(checkout)] == ["jupytext --to ipynb notebooks/infer.py", "make sync"]


def test_a_missing_wheel_is_a_line_and_not_a_crash(checkout):
    pins = checkout / "wheels" / "requirements.txt"
    pins.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    faults = to_do(checkout)
    assert [fault.fix for fault in faults] == ["./build_dataset.sh"]
    assert "tiny" in str(faults[0])


def metadata(folder: str, **changed: Any) -> Callable[[Path], object]:
    """A fault: other values in a notebook's metadata."""

    def change(checkout: Path) -> None:
        path = checkout / folder / "kernel-metadata.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    return change


def written(name: str, text: str = "") -> Callable[[Path], object]:
    def write(checkout: Path) -> None:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)

    return write


def gone(name: str) -> Callable[[Path], object]:
    return lambda checkout: (checkout / name).unlink()


OURS = ["jane-doe/hpa-kit", "jane-doe/hpa-kit-members"]
FAULTS = {
    "misspelt key": metadata(".", enable_intrnet=True),
    "slug too short": metadata(".", id="jane-doe/abc"),
    "slug of capitals": metadata(".", id="jane-doe/HPA Kit", title="HPA Kit"),
    "no title": metadata(".", title=None),
    "title of another slug": metadata(".", title="Something else"),
    "own slug, own title too short": metadata(".", id="jane-doe/my-cells", title="abc"),
    "source of an odd form": metadata(".", dataset_sources=[*OURS, "me/foo/newest"]),
    "source by its address": metadata(".", dataset_sources=["datasets/jane-doe/hpa-kit", OURS[1]]),
    "source twice": metadata(".", dataset_sources=[*OURS, OURS[0]]),
    "model of an odd form": metadata("notebooks/train", model_sources=["a/it's"]),
    "flag as text": metadata(".", is_private="true"),
    "retired machine": metadata(".", machine_shape="NvidiaTeslaP100"),
    "keywords no list": metadata(".", keywords="cells"),
    "kit not attached to training": metadata("notebooks/train", dataset_sources=[]),
    "training of another owner": metadata("notebooks/train", id="bob/hpa-kit-train"),
    "other notebook": metadata("notebooks/train", code_file="../infer.ipynb"),
    "training's file no metadata": written("notebooks/train/kernel-metadata.json", "[]"),
    "training's file gone": gone("notebooks/train/kernel-metadata.json"),
    "notebook gone": gone("notebooks/infer.ipynb"),
    "notebook broken": written("notebooks/train.ipynb", "<<<<<<< ours"),
    "script gone": gone("notebooks/train.py"),
    "wheel unpinned": written("wheels/other-1.0-py3-none-any.whl"),
    "wheel misnamed": written("wheels/other wheel.whl"),
    "dot file in the dataset": written("dist/.DS_Store"),
    "odd name in the kit": written("hpa_kit/a@b.py"),
    "odd name in the members": written("dist-members/a&b.yaml"),
    "odd name of a folder in the members": written("dist-members/a b/c/d.yaml"),
    "dot folder in the members": written("dist-members/.cache/d.yaml"),
}


def carry_out(command: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user would do, ``make sync`` and the build without setting environments up first."""
    monkeypatch.chdir(checkout)
    for part in command.split(" && "):
        words = shlex.split(part)
        if part == "./build_dataset.sh":
            build_bundle("dist", source=checkout)
        elif words[0] == "hpa-kit":
            assert main(words[1:]) == 0, part
        else:
            shell = part.replace("make sync", "jupytext --sync notebooks/*.py")
            name, *words = shlex.split(shell)
            if name == "jupytext":
                from jupytext.cli import jupytext

                jupytext([file for word in words for file in sorted(map(str, Path().glob(word))) or [word]])
            else:
                subprocess.run(shell, shell=True, check=True, capture_output=True)


@pytest.mark.parametrize("case", FAULTS)
def test_the_command_beside_a_line_puts_it_right(checkout, monkeypatch, case):
    pytest.importorskip("jupytext")
    FAULTS[case](checkout)
    faults = to_do(checkout)
    assert faults
    for fault in faults:
        carry_out(fault.fix, checkout, monkeypatch)
    assert to_do(checkout) == []


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"title": "x"}', '{"id": "jane-doe"}', '{"id": "Jane D/kernel"}']
)
def test_metadata_without_an_owner_are_a_line_whose_command_sets_it(checkout, monkeypatch, text):
    (checkout / "kernel-metadata.json").write_text(text)
    faults = to_do(checkout)
    assert faults[0].fix.endswith("--owner NAME")
    carry_out(faults[0].fix.replace("NAME", "jane-doe"), checkout, monkeypatch)
    for fault in to_do(checkout):  # the sources are gone with the rest
        carry_out(fault.fix, checkout, monkeypatch)
    assert to_do(checkout) == []
    assert unseen(checkout)[-1].endswith("kaggle datasets status jane-doe/hpa-kit-members")


@pytest.mark.parametrize("name", ["LICENSE", "constraints/kaggle.txt", "wheels/requirements.txt"])
def test_a_file_of_the_checkout_that_is_gone_is_fetched_again(checkout, name):
    (checkout / name).unlink()
    assert [fault.fix for fault in to_do(checkout)] == [f"git checkout -- {name}"]


def test_a_changed_wheel_is_fetched_again_and_one_that_does_not_fit_needs_another_pin(checkout):
    wheel = checkout / "wheels" / "tiny-1.0-cp313-cp313-any.whl"
    wheel.write_bytes(b"wheel")
    pins = checkout / "wheels" / "requirements.txt"
    pins.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    assert [fault.fix for fault in to_do(checkout)] == [f"rm {wheel} && ./build_dataset.sh"]
    pins.write_text(f"tiny==1.0 --hash=sha256:{hashlib.sha256(b'wheel').hexdigest()}\n")
    (fault,) = to_do(checkout)
    assert fault.fix == f"pin another in wheels/requirements.txt, rm {wheel} && ./build_dataset.sh"


def test_a_bundle_with_the_users_own_wheel_is_built_again_with_it(checkout):
    with zipfile.ZipFile(checkout / "hpacellseg-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("hpacellseg-1.0.dist-info/METADATA", "Name: hpacellseg\n\n")
    build_bundle(checkout / "dist", source=checkout, hpacellseg=wheel.filename)
    assert to_do(checkout) == []
    (checkout / "hpa_kit" / "__init__.py").write_text("# newer\n")
    (fault,) = to_do(checkout)
    assert fault.fix == "./build_dataset.sh"
    build_bundle(checkout / "dist", source=checkout)
    with zipfile.ZipFile(checkout / "dist" / "hpa-kit.zip") as bundle:
        assert "wheels/hpacellseg-1.0-py3-none-any.whl" in bundle.namelist()


def test_what_the_client_refuses_has_the_command_that_makes_it_anew(checkout, monkeypatch):
    def refuse(python, commands, folder):
        return [Outcome(command, "2.2.5", "no", [], []) for command in commands]

    monkeypatch.setattr("hpa_kit.kaggle.publish.status.find_client", lambda _: Path(sys.executable))
    monkeypatch.setattr("hpa_kit.kaggle.publish.status.dry_run", refuse)
    dist, members = checkout / "dist", checkout / "dist-members"
    faults = [line for line in status(checkout, dist, members) if isinstance(line, Fault)]
    pack = f"hpa-kit kaggle weights RUN… {members}"
    assert [fault.fix for fault in faults] == ["hpa-kit kaggle metadata"] * 2 + ["./build_dataset.sh", pack]


def test_every_line_is_one_line_and_one_that_is_to_do_has_its_command(checkout, monkeypatch, capsys):
    shutil.rmtree(checkout / "dist")
    monkeypatch.chdir(checkout)
    monkeypatch.setattr("hpa_kit.kaggle.publish.status.find_client", lambda _: None)
    assert main(["kaggle", "status", "--members", "nothing"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "3 things to do"  # the bundle, the members, the client
    assert all(re.match("ok    [^>]+$|to do .* -> .|      ", line) for line in lines)
    assert sum(line.startswith("to do") for line in lines) == 3
    assert all("kaggle" in line for line in unseen(checkout))
