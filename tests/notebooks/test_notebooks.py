"""The notebooks: pairs that agree, and find the kit in every form of mount."""

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from played import NOTEBOOKS

from hpa_kit.config import InferSettings, TrainSettings
from hpa_kit.kaggle.bundle import build_bundle

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")

NAMES = ("train", "infer")


def content(notebook: Any) -> list[tuple[str, str, list[str]]]:
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def parameters_of(name: str) -> dict[str, Any]:
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    values: dict[str, Any] = {}
    exec(cell.source, values)
    values.pop("__builtins__")
    return values


def find_kit_cell() -> str:
    cells = content(jupytext.read(NOTEBOOKS / "infer.py"))
    (source,) = [source for _, source, _ in cells if "def find_kit" in source]
    return source


@pytest.mark.parametrize("name", NAMES)
def test_both_files_of_a_pair_hold_the_same_cells_and_no_outputs(name):
    script = jupytext.read(NOTEBOOKS / f"{name}.py")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert content(script) == content(notebook), "run `make sync`"
    assert script.metadata.kernelspec == notebook.metadata.kernelspec
    assert notebook.metadata.kernelspec.language == "python"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    nbformat.validate(notebook)


@pytest.mark.parametrize(("name", "kind"), [("train", TrainSettings), ("infer", InferSettings)])
def test_the_parameters_cell_holds_the_commands_own_defaults(name, kind):
    parameters = parameters_of(name)
    own = {"inputs", "working", "settings"}
    found = {"data", "out", "members", "ensemble", "weights", "resume_from"}  # None: looked for
    assert own <= parameters.keys()
    assert {parameters[key] for key in found & parameters.keys()} == {None}
    for key in parameters.keys() - own - found:
        assert parameters[key] == kind.model_fields[key].default, key


@pytest.mark.parametrize(("name", "kind"), [("train", TrainSettings), ("infer", InferSettings)])
def test_no_later_cell_reuses_a_settings_name_so_cells_can_be_run_again(name, kind):
    for kind_of_cell, source, tags in content(jupytext.read(NOTEBOOKS / f"{name}.py")):
        if kind_of_cell == "code" and "parameters" not in tags:
            stored = {node.id for node in ast.walk(ast.parse(source))
                      if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}  # fmt: skip
            assert not stored & kind.model_fields.keys()


def test_both_notebooks_find_the_kit_with_the_same_cell():
    cells = [{source for _, source, _ in content(jupytext.read(NOTEBOOKS / f"{name}.py"))} for name in NAMES]
    assert [source for source in cells[0] & cells[1] if "def find_kit" in source]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip made of a small checkout whose kit only says where it was imported from."""
    root = tmp_path_factory.mktemp("bundle")
    checkout = root / "checkout"
    for room in ("kaggle", "errors.py", "files.py", "__init__.py"):
        source = NOTEBOOKS.parent / "hpa_kit" / room
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (checkout / "hpa_kit").mkdir(parents=True, exist_ok=True)
        copy(source, checkout / "hpa_kit" / room)
    for name in ("wheels", "constraints"):
        (checkout / name).mkdir()
        (checkout / name / ("kaggle.txt" if name == "constraints" else "requirements.txt")).touch()
    (checkout / "LICENSE").touch()
    return build_bundle(root / "dist", source=checkout).path


@pytest.mark.parametrize("form", ["zip", "unpacked"])
@pytest.mark.parametrize(
    "mount", ["hpa-kit", "datasets/jane/hpa-kit", "hpa-kit/hpa-kit", "datasets/jane/hpa-kit/hpa_kit/hpa-kit"]
)
def test_the_kit_is_found_however_kaggle_mounts_its_dataset(bundle, tmp_path, form, mount):
    (tmp_path / "inputs" / "competitions" / "c" / "test").mkdir(parents=True)
    folder = tmp_path / "inputs" / mount
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder.parent / "hpa-kit-members.zip", "w") as other:
        other.writestr("run/best.safetensors", "")
    if form == "zip":
        shutil.copy(bundle, folder)
    else:
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(folder)
    source = find_kit_cell()
    code = f"inputs = {str(tmp_path / 'inputs')!r}\n{source}\nprint(sys.path[0])"
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-P", "-c", code]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "as it was built" in done.stdout
    if form == "unpacked":
        assert done.stdout.splitlines()[-1] == str(folder)


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_bundle_is_named_and_not_called_missing(bundle, tmp_path, damage):
    content = bytearray(bundle.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[content.index(b"Kaggle") + 1] ^= 1  # in the text of a file: its checksum does not hold
    path = tmp_path / "inputs" / "hpa-kit" / "hpa-kit.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    (path.parent / "hpa-kit-members.zip").mkdir()  # a zip that was unpacked into a folder of its name
    source = find_kit_cell()
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"inputs = {str(tmp_path / 'inputs')!r}\n{source}"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert f"{path} is damaged" in done.stderr.splitlines()[-1]
    assert "upload the bundle again" in done.stderr.splitlines()[-1]


def test_without_a_mount_or_a_checkout_the_notebook_says_what_to_attach(tmp_path):
    source = find_kit_cell()
    code = f"inputs = {str(tmp_path / 'none')!r}\n{source}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "attach its dataset" in done.stderr.splitlines()[-1]


def test_a_misspelt_setting_stops_the_notebook_and_names_the_nearest(tmp_path):
    from hpa_kit.errors import InputError
    from hpa_kit.kaggle import notebook_settings

    variables = {"epochs": 3, "unrelated": 1, "settings": {"epochz": 1}}
    with pytest.raises(InputError, match="did you mean 'epochs'"):
        notebook_settings(TrainSettings, variables, data="x", out="y")
    chosen = notebook_settings(
        TrainSettings, {"epochs": 3, "seed": 9, "settings": {"seed": 1}}, data="x", out="y"
    )
    assert (chosen.epochs, chosen.seed) == (3, 1)
