"""The notebooks: pairs that agree, and find the kit in every form of mount."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from played import NOTEBOOKS

from hpa_kit.config import InferSettings, SimulateSettings, TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.kaggle.publish.bundle import build_bundle
from hpa_kit.kaggle.publish.notebooks import CELL, bootstrap_cell, write_bootstrap_cell

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
    own = {"inputs", "working", "settings", "recipe", "goes_on"}
    found = {"data", "out", "members", "ensemble", "weights", "resume_from"}  # None: looked for
    assert {"inputs", "working", "settings"} <= parameters.keys()
    assert {parameters[key] for key in found & parameters.keys()} == {None}
    for key in parameters.keys() - own - found:
        assert parameters[key] == kind.options()[key].default, key


@pytest.mark.parametrize(("name", "kind"), [("train", TrainSettings), ("infer", InferSettings)])
def test_no_later_cell_reuses_a_settings_name_so_cells_can_be_run_again(name, kind):
    for kind_of_cell, source, tags in content(jupytext.read(NOTEBOOKS / f"{name}.py")):
        if kind_of_cell == "code" and "parameters" not in tags:
            stored = {node.id for node in ast.walk(ast.parse(source))
                      if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}  # fmt: skip
            assert not stored & kind.options().keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_is_the_one_that_stands_in_the_kit(name):
    (cell,) = [cell for cell in content(jupytext.read(NOTEBOOKS / f"{name}.py")) if "def find_kit" in cell[1]]
    assert cell == ("code", bootstrap_cell(NOTEBOOKS.parent), []), "run `make sync`"


def test_syncing_puts_the_first_cell_into_both_scripts_and_changes_nothing_else(tmp_path):
    before = {name: (NOTEBOOKS / f"{name}.py").read_text() for name in NAMES}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "hpa_kit" / "kaggle").mkdir(parents=True)
    for name, text in before.items():
        (tmp_path / "notebooks" / f"{name}.py").write_text(text.replace("range(8)", "range(3)"))
    shutil.copy(NOTEBOOKS.parent / CELL, tmp_path / CELL)
    assert len(write_bootstrap_cell(tmp_path)) == 2
    assert {name: (tmp_path / "notebooks" / f"{name}.py").read_text() for name in NAMES} == before
    assert write_bootstrap_cell(tmp_path) == []
    (tmp_path / "notebooks" / "train.py").write_text("# %%\n1 + 1\n")
    with pytest.raises(InputError, match=r"train\.py has 0 cells .* expected one"):
        write_bootstrap_cell(tmp_path)


def make_bundle(root: Path, note: str = "") -> Path:
    """The zip made of a small checkout with one wheel; builds differ by the note."""
    checkout = root / "checkout"
    for room in ("kaggle", "errors.py", "files.py", "__init__.py"):
        source = NOTEBOOKS.parent / "hpa_kit" / room
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (checkout / "hpa_kit").mkdir(parents=True, exist_ok=True)
        copy(source, checkout / "hpa_kit" / room)
    for name in ("wheels", "constraints"):
        (checkout / name).mkdir()
    (checkout / "constraints" / "kaggle.txt").touch()
    (checkout / "LICENSE").write_text(note)
    wheel = checkout / "wheels" / "tiny_kit_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hpa_kit_tiny.py", "")
        archive.writestr("tiny_kit_wheel-1.0.dist-info/METADATA", "Name: tiny-kit-wheel\nVersion: 1.0\n\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pins = f"tiny-kit-wheel==1.0 --hash=sha256:{digest}\n"
    (checkout / "wheels" / "requirements.txt").write_text(pins)
    return build_bundle(root / "dist", source=checkout).path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("other"), "another build")


def attach(bundle: Path, folder: Path, form: str = "unpacked", name: str = "hpa-kit.zip") -> Path:
    """Mount a bundle as Kaggle may; what a message would call it by."""
    folder.mkdir(parents=True)
    if form == "zip":
        return Path(shutil.copy(bundle, folder / name))
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return folder


def build_in(bundle: Path) -> str:
    with zipfile.ZipFile(bundle) as archive:
        return str(json.loads(archive.read("manifest.json"))["build"])


def first_cell(inputs: Path, working: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the cell that finds the kit, away from any checkout; wheels are left to others to install."""
    code = (
        "import subprocess\n"
        "subprocess.run = lambda *_, **__: subprocess.CompletedProcess([], 1, '', 'no pip')\n"
        f"inputs = {str(inputs)!r}\n{find_kit_cell()}\nprint(sys.path[0])\nprint(kaggle.__file__)"
    )
    folder = working or inputs.parent / "elsewhere"
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(inputs.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("form", ["zip", "unpacked"])
@pytest.mark.parametrize(
    "mount", ["hpa-kit", "datasets/jane/hpa-kit", "hpa-kit/hpa-kit", "datasets/jane/hpa-kit/hpa_kit/hpa-kit"]
)
def test_the_kit_is_found_however_kaggle_mounts_its_dataset(bundle, tmp_path, form, mount):
    inputs = tmp_path / "inputs"
    (inputs / "competitions" / "c" / "test").mkdir(parents=True)
    (inputs / "hpa-kit-members").mkdir()
    with zipfile.ZipFile(inputs / "hpa-kit-members" / "hpa-kit-members.zip", "w") as other:
        other.writestr("run/best.safetensors", "")
    attach(bundle, inputs / mount, form)
    done = first_cell(inputs)
    assert done.returncode == 0, done.stderr
    assert f"build {build_in(bundle)}" in done.stdout
    assert "as it was built" in done.stdout
    if form == "unpacked":
        assert done.stdout.splitlines()[-1].startswith(f"{inputs / mount}/hpa_kit/kaggle/")


@pytest.mark.parametrize("name", ["archive.zip", "code.zip", "Code.ZIP", "hpa-kit.zip/hpa-kit.zip"])
@pytest.mark.parametrize("inside", ["", "hpa-kit-main/"])
def test_a_zip_of_any_name_is_looked_into(bundle, tmp_path, name, inside):
    path = tmp_path / "inputs" / "datasets" / "jane" / "code" / name
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(bundle) as archive, zipfile.ZipFile(path, "w") as other:
        for entry in archive.namelist():
            other.writestr(inside + entry, archive.read(entry))
    done = first_cell(tmp_path / "inputs")
    assert done.returncode == 0, done.stderr
    assert "as it was built" in done.stdout


def damaged(folder: Path, how: str) -> None:
    """Spoil a kit that is mounted."""
    if how == "a file changed":
        (folder / "hpa_kit" / "errors.py").write_text("raise SystemExit('a damaged kit was run')")
    elif how == "a file gone":
        (folder / "hpa_kit" / "__init__.py").unlink()
    elif how == "half a file":
        path = folder / "hpa_kit" / "kaggle" / "bootstrap.py"
        path.write_bytes(path.read_bytes()[:200])
    elif how == "a wheel gone":
        next((folder / "wheels").glob("*.whl")).unlink()
    elif how == "a wheel changed":
        next((folder / "wheels").glob("*.whl")).write_text("PK")
    elif how == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text(how)


DAMAGES = ("a file changed", "a file gone", "half a file", "a wheel gone", "a wheel changed", "no manifest",
           "{", "[]", '{"files": 3}')  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_of_two_kits_the_intact_one_is_taken_and_the_damaged_one_named(bundle, other_bundle, tmp_path, how):
    inputs = tmp_path / "inputs"
    first, second = attach(bundle, inputs / "a-kit"), attach(other_bundle, inputs / "b" / "kit", "zip")
    damaged(first, how)
    done = first_cell(inputs)
    assert done.returncode == 0, done.stderr
    assert f"{first} is damaged (" in done.stdout
    assert f"build {build_in(other_bundle)}" in done.stdout
    assert "as it was built" in done.stdout
    assert str(second) not in done.stdout


@pytest.mark.parametrize("cut", [0, 100, 0.5, 0.99])
def test_a_zip_that_broke_on_its_way_is_passed_over_for_an_intact_kit(bundle, tmp_path, cut):
    inputs = tmp_path / "inputs"
    broken = attach(bundle, inputs / "a-kit", "zip")
    content = broken.read_bytes()
    broken.write_bytes(content[: int(cut if cut in (0, 100) else cut * len(content))])
    whole = attach(bundle, inputs / "b-kit")
    done = first_cell(inputs)
    assert done.returncode == 0, done.stderr
    assert f"{broken} is damaged (" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(str(whole))


def test_a_wheel_that_kaggle_has_unpacked_damages_no_kit(bundle, tmp_path):
    folder = attach(bundle, tmp_path / "inputs" / "hpa-kit")
    wheel = next((folder / "wheels").glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheel.with_suffix(""))
    wheel.unlink()
    done = first_cell(tmp_path / "inputs")
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stdout
    assert "as it was built" in done.stdout


@pytest.mark.parametrize("forms", [("unpacked", "unpacked"), ("zip", "unpacked"), ("zip", "zip")])
def test_two_intact_kits_of_one_build_are_one(bundle, tmp_path, forms):
    for name, form in zip("ab", forms, strict=True):
        attach(bundle, tmp_path / "inputs" / name, form, "archive.zip")
    done = first_cell(tmp_path / "inputs")
    assert done.returncode == 0, done.stderr
    assert f"build {build_in(bundle)}" in done.stdout


@pytest.mark.parametrize("forms", [("unpacked", "unpacked"), ("zip", "unpacked")])
def test_two_intact_kits_of_different_builds_are_refused_by_place_and_build(
    bundle, other_bundle, tmp_path, forms
):
    places = [
        attach(one, tmp_path / "inputs" / name, form)
        for one, name, form in zip((bundle, other_bundle), "ab", forms, strict=True)
    ]
    done = first_cell(tmp_path / "inputs")
    assert done.returncode != 0
    last = done.stderr.splitlines()[-1]
    for one, place in zip((bundle, other_bundle), places, strict=True):
        assert f"build {build_in(one)} in {place}" in last
    assert "detach" in last
    assert done.stdout == ""


def test_an_intact_kit_of_before_builds_had_names_counts_as_another_build(bundle, other_bundle, tmp_path):
    for one, name in ((bundle, "a"), (other_bundle, "b")):
        folder = attach(one, tmp_path / "inputs" / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["build"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    last = first_cell(tmp_path / "inputs").stderr.splitlines()[-1]
    assert f"build {build_in(other_bundle)} in {folder}" in last


def test_the_one_kit_that_is_attached_is_run_though_damaged_and_what_is_damaged_is_said(bundle, tmp_path):
    folder = attach(bundle, tmp_path / "inputs" / "hpa-kit")
    (folder / "LICENSE").write_text("changed")
    done = first_cell(tmp_path / "inputs")
    assert done.returncode == 0, done.stderr
    assert f"{folder} is damaged (LICENSE is not as it was built)" in done.stdout
    assert "DAMAGED" in done.stdout


@pytest.mark.parametrize("damage", ["cut", "cut behind a wheel", "changed"])
def test_a_damaged_bundle_is_named_and_not_called_missing(bundle, tmp_path, damage):
    content = bytearray(bundle.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "cut behind a wheel":  # whose end is that of a whole zip
        del content[content.rindex(b"tiny_kit_wheel") :]
    else:
        content[content.index(b"Kaggle") + 1] ^= 1  # in the text of a file: its checksum does not hold
    path = tmp_path / "inputs" / "hpa-kit" / "hpa-kit.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    (path.parent / "hpa-kit-members.zip").mkdir()  # a zip that was unpacked into a folder of its name
    done = first_cell(tmp_path / "inputs")
    assert done.returncode != 0
    assert f"{path} is damaged" in done.stderr.splitlines()[-1]
    assert "upload the bundle again" in done.stderr.splitlines()[-1]


def test_without_a_mount_the_checkout_around_the_notebook_is_taken(tmp_path):
    done = first_cell(tmp_path / "none", NOTEBOOKS)
    assert done.returncode == 0, done.stderr
    assert "no manifest, a checkout" in done.stdout


def test_without_a_mount_or_a_checkout_the_notebook_says_what_to_attach(tmp_path):
    done = first_cell(tmp_path / "none")
    assert done.returncode != 0
    assert "attach its dataset" in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hpa_kit.data.simulate import simulate

    folder = tmp_path_factory.mktemp("competition") / "data"
    simulate(SimulateSettings(out=folder, train=12, test=2, size=64, classes=(0, 7, 16), seed=3, workers=1))
    return folder


def folds_cell_of(data: Path, out: Path, **settings: Any) -> dict[str, Any]:
    """The names that are there after the training notebook's cell of folds, with quick settings.

    The network learns from whole fields, as the cell after it would have to find the cells.
    """
    import hpa_kit.kaggle

    (source,) = [
        source for _, source, _ in content(jupytext.read(NOTEBOOKS / "train.py")) if "run_folds" in source
    ]
    environment = hpa_kit.kaggle.Environment("3", {}, (), {})
    names = parameters_of("train") | {
        "kaggle": hpa_kit.kaggle, "time": time, "started": time.time(), "environment": environment,
        "inputs": str(out.parent / "none"), "data": data, "out": out, "settings": settings,
        "backbone": "test_resnet", "size": 32, "stride": 8, "epochs": 1, "batch": 4, "workers": 0,
        "device": "cpu", "masks": False,
    }  # fmt: skip
    exec(source, names)
    return names


def test_the_folds_that_the_notebook_shows_are_those_it_trains_on_and_showing_writes_nothing(
    competition, tmp_path
):
    from hpa_kit.training import train

    # A stage 1 whose folds nobody would make again, and fields of elsewhere.
    labels = pd.read_csv(competition / "train.csv", dtype=str)
    one = tmp_path / "stage1" / "folds.csv"
    one.parent.mkdir()
    labels.assign(fold=[place % 3 for place in range(len(labels))]).to_csv(one, index=False)
    extra = tmp_path / "extra"
    extra.mkdir()
    for path in (competition / "test").iterdir():
        shutil.copy(path, extra)
    ids = sorted({path.name.rpartition("_")[0] for path in extra.iterdir()})
    rows = [f"{id},7,{line},True,Rare,png,extra" for id, line in zip(ids, ("MCF7", "HeLa"), strict=True)]
    header = "ID,Label_idx,Cellline,isin_dataset,is_non_rare,file_ext,dir"
    (tmp_path / "external.csv").write_text("\n".join([header, *rows]) + "\n")
    external = {"external": tmp_path / "external.csv", "external_images": extra}

    for number, settings in enumerate([{"folds_of": one.parent}, external, external | {"folds_of": one}]):
        out = tmp_path / f"run{number}"
        with warnings.catch_warnings(record=True):
            names = folds_cell_of(competition, out, folds=3, **settings)
        shown = names["divided"]
        assert not out.exists()
        with warnings.catch_warnings(record=True):
            run = train(names["chosen"])
        kept = pd.read_csv(run / "folds.csv", dtype={"ID": str, "Label": str})
        assert kept.equals(shown)
        assert len(kept) == (14 if "external" in settings else 12)
        if "folds_of" in settings:
            assert kept["fold"].tolist()[:12] == [place % 3 for place in range(12)]
            assert set(kept["fold"][12:]) <= {-1}


def test_the_notebook_says_what_it_goes_on_from_in_its_own_folder_too(competition, tmp_path, capsys):
    from hpa_kit.training import train

    out = tmp_path / "run"
    chosen = folds_cell_of(competition, out, folds=3)["chosen"]
    assert "goes on from: nothing; time limit: none" in capsys.readouterr().out
    train(chosen)
    folds_cell_of(competition, out, folds=3)
    assert f"goes on from: {out} (epochs done: 1, steps: 2);" in capsys.readouterr().out


def test_a_misspelt_setting_stops_the_notebook_and_names_the_nearest(tmp_path):
    from hpa_kit.kaggle import notebook_settings

    variables = {"epochs": 3, "unrelated": 1, "settings": {"epochz": 1}}
    with pytest.raises(InputError, match="did you mean 'epochs'"):
        notebook_settings(TrainSettings, variables, data="x", out="y")
    chosen = notebook_settings(
        TrainSettings, {"epochs": 3, "seed": 9, "settings": {"seed": 1}}, data="x", out="y"
    )
    assert (chosen.epochs, chosen.seed) == (3, 1)
