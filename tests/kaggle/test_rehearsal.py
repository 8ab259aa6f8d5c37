"""The rehearsal's stage is Kaggle's: no network, read-only inputs, its packages, every form of mount."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from hpa_kit.errors import InputError
from hpa_kit.kaggle.rehearsal.environment import environment_key, image_packages, shared_files
from hpa_kit.kaggle.rehearsal.network import NAMESPACES, Offline, offline, play
from hpa_kit.kaggle.rehearsal.tree import Tree, damage, simulated

ROOT = Path(__file__).resolve().parents[2]
BLOCKED = """
import socket
from no_network import block  # as it lies in the rehearsal's environment, beside nothing of the kit
block()
outside = ("192.0.2.1", 80)
post = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for reach in (
    lambda: socket.create_connection(outside, 1),
    lambda: socket.getaddrinfo("example.org", 80),
    lambda: socket.gethostbyname("example.org"),
    lambda: post.sendto(b"x", outside),
    lambda: post.sendto(b"x", 0, outside),
):
    try:
        reach()
        raise SystemExit("it was reached")
    except OSError as error:
        assert "as on Kaggle" in str(error), error
assert socket.socket().connect_ex(("127.0.0.1", 9)) != 101
assert post.sendto(b"x", ("127.0.0.1", 9)) == 1
assert socket.gethostbyname("127.0.0.1") == "127.0.0.1"
"""

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "kaggle")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny-1.0.dist-info/METADATA", "Name: tiny\n")
    with zipfile.ZipFile(tmp_path / "hpa-kit.zip", "w") as archive:
        archive.writestr("hpa_kit/__init__.py", "")
        archive.write(wheel, f"wheels/{wheel.name}")
    return tmp_path / "hpa-kit.zip"


def played(tree: Tree, tmp_path: Path, source: str, how: Offline | None = None):
    """A notebook of one cell after its parameters, played."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell("answer = 1"), nbformat.v4.new_code_cell(source)]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "n.ipynb")
    tree.new_session()
    task = {
        "notebook": str(tmp_path / "n.ipynb"),
        "executed": str(tmp_path / "executed.ipynb"),
        "folder": str(tree.working),
        "inputs": str(tree.inputs),
        "parameters": {"answer": 42},
    }
    return play(Path(sys.executable), how or offline(), task, {"KAGGLE_IS_COMPETITION_RERUN": "1"})


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces and permissions as on Linux")
def test_a_notebook_has_its_parameters_its_folder_and_neither_network_nor_writable_inputs(tree, tmp_path):
    source = """
import os, socket
print(answer, os.getcwd(), os.environ["KAGGLE_IS_COMPETITION_RERUN"], os.environ.get("USER_SECRET"))
open("result.txt", "w").write("written")
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except OSError as error:
    print("no network")
"""
    with tree.read_only():
        found = played(tree, tmp_path, source)
    assert found.fault is None
    assert found.printed.splitlines() == [f"42 {tree.working} 1 None", "no network"]
    assert (tree.working / "result.txt").read_text() == "written"


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces and permissions as on Linux")
def test_a_notebook_that_raises_is_told_by_its_last_line_and_each_cell_is_shown(tree, tmp_path, capsys):
    with tree.read_only():
        found = played(tree, tmp_path, "print('before')\nraise ValueError('no such thing')")
    assert found.fault == "ValueError: no such thing"
    assert found.printed == "before\n"
    assert "rehearsal: n: 2 of 3 cells in " in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces and permissions as on Linux")
def test_inputs_that_can_be_written_to_are_noticed(tree, tmp_path):
    with pytest.raises(InputError, match="can be written to"):
        played(tree, tmp_path, "pass")
    assert not (tree.inputs / "written").exists()


def test_sockets_are_blocked_where_there_is_no_namespace(monkeypatch):
    folder = ROOT / "hpa_kit" / "kaggle" / "rehearsal"
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{BLOCKED}"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr("shutil.which", lambda _: None)
    how = offline()
    assert how.words == []
    assert "blocked sockets" in how.name


def test_what_is_used_to_switch_the_network_off_is_said():
    how = offline()
    assert how.words in ([], *NAMESPACES)
    assert ("namespace" in how.name) or ("blocked" in how.name)


@pytest.mark.parametrize(
    ("form", "place"),
    [("unpacked", "datasets/rehearsal/hpa-kit"), ("deeper", "hpa-kit/hpa-kit"), ("zip", "hpa-kit")],
)
def test_the_kit_is_mounted_in_each_form_and_in_one_at_a_time(tree, bundle, form, place):
    tree.attach_kit(bundle, "unpacked")
    folder = tree.attach_kit(bundle, form)
    assert folder == tree.inputs / place
    kits = [*tree.inputs.rglob("hpa_kit/__init__.py"), *tree.inputs.rglob("hpa-kit.zip")]
    assert len(kits) == 1
    if form == "deeper":
        assert (folder / "wheels" / "tiny-1.0-py3-none-any" / "tiny-1.0.dist-info" / "METADATA").is_file()
        assert not list(folder.rglob("*.whl"))


def test_read_only_inputs_are_writable_again_after_the_session_and_can_go(tree, tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.txt").write_text("a")
    folder = tree.attach(tmp_path / "data", "datasets/me/data")
    with tree.read_only():
        assert oct((folder / "deep").stat().st_mode)[-3:] == "555"
        assert oct((folder / "deep" / "a.txt").stat().st_mode)[-3:] == "444"
    (folder / "deep" / "a.txt").write_text("b")
    with tree.read_only():
        pass
    assert not Tree(tree.inputs.parent).inputs.joinpath("datasets").exists()


def test_the_hidden_test_set_has_other_fields_more_of_them_and_other_sizes(tree, tmp_path):
    from hpa_kit.data import read_sample

    public, hidden = simulated(tmp_path / "s", train=3, test=2, size=64)
    tree.attach_competition(public)
    before = read_sample(tree.competition / "sample_submission.csv")
    tree.attach_competition(hidden, splits=("test",))
    after = read_sample(tree.competition / "sample_submission.csv")
    assert (len(before), len(after)) == (2, 4)
    assert not set(before["ID"]) & set(after["ID"])
    assert (after["ImageWidth"] != after["ImageHeight"]).any()
    assert (tree.competition / "train.csv").is_file()
    id = damage(tree.competition / "test")
    assert id in set(after["ID"])


def test_the_environment_has_what_the_image_has_and_not_what_the_wheels_bring(tmp_path):
    packages = image_packages(ROOT)
    assert {"numpy", "timm", "ipykernel", "nbclient"} <= set(packages)
    assert not {"torch", "torchvision", "iterative-stratification", "segmentation-models-pytorch"} & set(
        packages
    )


def test_an_environment_is_made_anew_where_what_it_is_made_from_or_links_to_is_another(tmp_path, monkeypatch):
    for name in ("constraints", "wheels"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    key = environment_key(tmp_path)
    assert environment_key(tmp_path) == key
    with monkeypatch.context() as patch:
        patch.setattr(sys, "base_prefix", "/another/python")
        assert environment_key(tmp_path) != key
    with monkeypatch.context() as patch:
        patch.setattr(sysconfig, "get_path", lambda name: f"/another/{name}")
        assert environment_key(tmp_path) != key
    with (tmp_path / "constraints" / "kaggle.txt").open("a") as file:
        file.write("# another image\n")
    assert environment_key(tmp_path) != key


def test_a_need_that_nothing_on_kaggle_meets_is_named(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["numpy>=2", "unheard-of>1"]\noptional-dependencies = {notebooks = []}\n'
    )
    for name in ("constraints", "wheels"):
        (tmp_path / name).mkdir()
    (tmp_path / "constraints" / "kaggle.txt").write_text("numpy==2.0.2\n")
    (tmp_path / "wheels" / "requirements.txt").touch()
    with pytest.raises(InputError, match="needs unheard-of"):
        image_packages(tmp_path)


def test_torch_is_shared_with_what_it_needs_but_for_what_the_image_pins():
    names = shared_files(["torch"])
    assert {"torch", "sympy"} <= names
    assert not {"numpy", "pandas", "timm", "iterstrat"} & names
