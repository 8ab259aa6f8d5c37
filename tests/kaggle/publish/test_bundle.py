"""One command makes the Kaggle dataset, the same bytes each time."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from copied_kit import copy_kit

from hpa_kit import __version__
from hpa_kit.cli import main
from hpa_kit.errors import InputError
from hpa_kit.kaggle.manifest import check_manifest
from hpa_kit.kaggle.publish.bundle import Bundle, build_bundle
from hpa_kit.kaggle.publish.dataset import metadata_faults

KIT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A tiny checkout with one wheel, its pin, and things that do not belong into a bundle."""
    root = tmp_path / "checkout"
    for name in ("hpa_kit/data/__pycache__", "hpa_kit/.mypy_cache", "wheels", "constraints"):
        (root / name).mkdir(parents=True)
    for name in ("hpa_kit/__init__.py", "hpa_kit/py.typed", "hpa_kit/data/fields.py", "LICENSE"):
        (root / name).write_text(f"# {name}\n")
    for junk in ("data/__pycache__/fields.cpython-312.pyc", ".mypy_cache/x.json", "data/fields.py~"):
        (root / "hpa_kit" / junk).write_text("junk")
    (root / "constraints" / "kaggle.txt").write_text("numpy==2.0.2\n")
    wheel = root / "wheels" / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/__init__.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Name: tiny\n\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (root / "wheels" / "requirements.txt").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    return root


def test_the_zip_holds_the_package_the_wheels_and_a_manifest_of_both(checkout, tmp_path):
    bundle = build_bundle(tmp_path / "dist", source=checkout)
    with zipfile.ZipFile(bundle.path) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
        digests = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}
    expected = [
        "LICENSE",
        "hpa_kit/__init__.py",
        "hpa_kit/data/fields.py",
        "hpa_kit/py.typed",
        "manifest.json",
    ]
    assert names == [*expected, "wheels/requirements.txt", "wheels/tiny-1.0-py3-none-any.whl"]
    assert manifest["files"] == {name: digest for name, digest in digests.items() if name != "manifest.json"}
    assert (manifest["version"], manifest["target_python"]) == (__version__, "3.12")
    assert manifest["wheels"] == {"tiny": "1.0"}
    assert bundle.size == bundle.path.stat().st_size


def test_the_same_input_gives_the_same_bytes_whatever_the_file_times(checkout, tmp_path):
    first = build_bundle(tmp_path / "one", source=checkout).path.read_bytes()
    for path in checkout.rglob("*"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o755)
    assert build_bundle(tmp_path / "two", source=checkout).path.read_bytes() == first


def manifest_of(bundle: Bundle) -> dict:
    with zipfile.ZipFile(bundle.path) as archive:
        return json.loads(archive.read("manifest.json"))


def test_a_build_is_named_after_what_sha256sum_says_of_its_files(checkout, tmp_path):
    bundle = build_bundle(tmp_path / "dist", source=checkout)
    with zipfile.ZipFile(bundle.path) as archive:
        archive.extractall(tmp_path / "unpacked")
    names = [name for name in archive.namelist() if name != "manifest.json"]
    listed = subprocess.run(["sha256sum", *names], cwd=tmp_path / "unpacked", capture_output=True, check=True)
    assert hashlib.sha256(listed.stdout).hexdigest()[:12] == bundle.build == manifest_of(bundle)["build"]
    (checkout / "hpa_kit" / "py.typed").write_text("changed")
    assert build_bundle(tmp_path / "dist", source=checkout).build != bundle.build


@pytest.fixture
def committed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The commit that all of the checkout is in, while git believes itself to be in another repository."""
    (checkout / ".gitignore").write_text("__pycache__/\n.mypy_cache/\n*~\n*.whl\ndist/\n")
    git = ["git", "-C", str(checkout), "-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=no"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *words], check=True)
    said = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    monkeypatch.setenv("GIT_DIR", str(checkout.parent))
    return said.stdout.strip()


def test_the_manifest_tells_the_commit_and_whether_the_bundles_files_are_as_it_has_them(
    checkout, committed, tmp_path, capsys
):
    first = build_bundle(tmp_path / "one", source=checkout)
    assert (manifest_of(first)["commit"], manifest_of(first)["clean"]) == (committed, True)
    assert f"build {first.build}, commit {committed[:12]}, clean" in capsys.readouterr().out
    (checkout / "kernel-metadata.json").write_text('{"id": "jane-doe/hpa-kit-infer"}')  # not in the bundle
    again = build_bundle(tmp_path / "two", source=checkout)
    assert again.path.read_bytes() == first.path.read_bytes()
    (checkout / "hpa_kit" / "new.py").touch()
    home = checkout / "hpa_kit" / "kaggle" / "publish" / "status.py"
    home.parent.mkdir(parents=True)
    (checkout / "hpa_kit" / "new.py").rename(home)  # neither is this
    assert manifest_of(build_bundle(tmp_path / "two", source=checkout))["clean"] is True
    home.rename(checkout / "hpa_kit" / "new.py")
    changed = manifest_of(build_bundle(tmp_path / "three", source=checkout))
    assert (changed["commit"], changed["clean"]) == (committed, False)


@pytest.mark.parametrize("without", ["git", "a repository", "the kit in the repository", "a commit"])
def test_where_git_knows_nothing_neither_commit_nor_cleanness_is_told(
    checkout, tmp_path, monkeypatch, without
):
    if without == "git":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif without == "the kit in the repository":
        subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    elif without == "a commit":
        subprocess.run(["git", "init", "--quiet", str(checkout)], check=True)
        subprocess.run(["git", "-C", str(checkout), "add", "."], check=True)
    manifest = manifest_of(build_bundle(tmp_path / "dist", source=checkout))
    assert not {"commit", "clean"} & manifest.keys()


def test_the_datasets_page_says_what_it_is_which_build_how_it_is_used_and_its_licence(checkout, tmp_path):
    bundle = build_bundle(tmp_path / "dist", source=checkout)
    card = (tmp_path / "dist" / "README.md").read_text()
    assert json.loads((tmp_path / "dist" / "dataset-metadata.json").read_text())["description"] == card
    for said in (f"Build {bundle.build}", "tiny 1.0", "Attach this dataset", "Apache-2.0"):
        assert said in card
    with zipfile.ZipFile(bundle.path) as archive:  # which Kaggle unpacks beside the file
        assert "README.md" not in archive.namelist()


def test_the_metadata_takes_its_owner_from_the_notebooks_metadata(checkout, tmp_path, capsys):
    build_bundle(tmp_path / "dist", source=checkout)
    assert "owner is still 'your-name'" in capsys.readouterr().out
    (checkout / "kernel-metadata.json").write_text('{"id": "jane-doe/hpa-kit-infer"}')
    build_bundle(tmp_path / "dist", source=checkout)
    metadata = json.loads((tmp_path / "dist" / "dataset-metadata.json").read_text())
    assert metadata["id"] == "jane-doe/hpa-kit"
    assert metadata["licenses"] == [{"name": "apache-2.0"}]
    assert list(metadata_faults(metadata)) == []
    assert "owner is still" not in capsys.readouterr().out
    assert build_bundle(tmp_path / "dist", owner="other", source=checkout).dataset == "other/hpa-kit"


def test_the_printed_commands_zip_folders_and_quote_the_path(checkout, tmp_path, capsys):
    build = build_bundle(tmp_path / "my dist", source=checkout).build
    printed = capsys.readouterr().out
    assert f"kaggle datasets create -p '{tmp_path}/my dist' -r zip" in printed
    note = f"hpa-kit {__version__} build {build}"
    assert f"kaggle datasets version -p '{tmp_path}/my dist' -r zip -m '{note}'" in printed


def test_what_else_lies_in_the_folder_is_named_because_it_would_be_uploaded(checkout, tmp_path, capsys):
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "old.zip").touch()
    build_bundle(tmp_path / "dist", source=checkout)
    assert "also holds old.zip" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["data/a@b.py", "data/a&b.yaml", "a b.py", "é.py"])
def test_names_that_kaggle_refuses_are_refused_before_the_upload(checkout, tmp_path, name):
    (checkout / "hpa_kit" / name).touch()
    with pytest.raises(InputError, match="rename it"):
        build_bundle(tmp_path / "dist", source=checkout)
    assert not (tmp_path / "dist").exists()


def test_a_bad_owner_and_a_folder_that_is_no_checkout_are_refused(checkout, tmp_path):
    with pytest.raises(InputError, match="Jane@x"):
        build_bundle(tmp_path / "dist", owner="Jane@x", source=checkout)
    with pytest.raises(InputError, match="no checkout"):
        build_bundle(tmp_path / "dist", source=tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"title": "short"},
        {"title": "x" * 51},
        {"id": "no-owner"},
        {"id": "me/tiny"},
        {"id": "datasets/me/hpa-kit"},
        {"id": "me/hpa@kit"},
        {"licenses": []},
        {"licenses": [{"name": "apache-2.0"}, {"name": "other"}]},
        {"licenses": ["apache-2.0"]},
    ],
)
def test_dataset_metadata_that_the_client_refuses_is_a_fault(change):
    good = {"title": "hpa-kit", "id": "me/hpa-kit", "licenses": [{"name": "apache-2.0"}]}
    assert list(metadata_faults(good)) == []
    assert len(list(metadata_faults({**good, **change}))) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of this checkout, without wheels, unpacked."""
    root = tmp_path_factory.mktemp("whole")
    for name in ("hpa_kit", "constraints"):
        shutil.copytree(KIT / name, root / "kit" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "kit" / "wheels").mkdir()
    (root / "kit" / "wheels" / "requirements.txt").touch()
    shutil.copy(KIT / "LICENSE", root / "kit")
    with zipfile.ZipFile(build_bundle(root / "dist", source=root / "kit").path) as archive:
        archive.extractall(root / "unpacked")
    return root / "unpacked"


def modules_of(name: str, tree: ast.AST) -> set[str]:
    """The modules of the kit that a file's code names in its imports, wherever they stand."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            found.add(str(node.module))
    return {one for one in found if one.partition(".")[0] == "hpa_kit"}


def test_of_what_makes_and_sends_only_the_packing_of_members_goes_in_and_all_else_of_the_kit(whole):
    def files(root: Path) -> set[str]:
        found = (
            path.relative_to(root).as_posix() for path in (root / "hpa_kit").rglob("*") if path.is_file()
        )
        return {name for name in found if "__pycache__" not in name}

    left_out = files(KIT) - files(whole)
    assert {name.rpartition("/")[0] for name in left_out} == {
        "hpa_kit/kaggle/publish",
        "hpa_kit/kaggle/publish/rehearsal",
    }
    publish = whole / "hpa_kit" / "kaggle" / "publish"
    assert {path.name for path in publish.iterdir()} == {
        "__init__.py",
        "dataset.py",
        "weights.py",
        "cell_weights.py",
    }
    assert (whole / "hpa_kit" / "ablation" / "classifiers.py").is_file()


def test_nothing_in_the_bundle_imports_what_is_not_in_it_but_for_the_commands_that_say_so(whole):
    lacking = set()
    for path in (whole / "hpa_kit").rglob("*.py"):
        name = path.relative_to(whole).as_posix()
        for module in modules_of(name, ast.parse(path.read_text(encoding="utf-8"))):
            place = whole / module.replace(".", "/")
            if not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
                lacking.add((name, module.rpartition(".")[0]))
    assert lacking == {("hpa_kit/cli/kaggle.py", "hpa_kit.kaggle.publish")}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("weights --help", 0, "members, or published cell networks, as a Kaggle dataset"),
        ("status", 2, "runs in a checkout of hpa-kit; its dataset has only what Kaggle runs"),
        ("metadata x.json", 2, "runs in a checkout of hpa-kit; its dataset has only what Kaggle runs"),
    ],
)
def test_from_the_bundle_members_can_be_packed_and_what_needs_a_checkout_says_so(
    whole, tmp_path, words, status, said
):
    command = [sys.executable, "-P", "-m", "hpa_kit.cli", "kaggle", *words.split()]
    environment = {**os.environ, "PYTHONPATH": str(whole), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert done.stderr.count("\n") == (status == 2)


def test_a_changed_or_lost_file_of_a_mounted_bundle_is_noticed(checkout, tmp_path):
    mount = tmp_path / "mount"
    assert check_manifest(checkout) is None
    with zipfile.ZipFile(build_bundle(tmp_path / "dist", source=checkout).path) as archive:
        archive.extractall(mount)
    assert check_manifest(mount) == []
    (mount / "hpa_kit" / "py.typed").write_text("changed")
    (mount / "LICENSE").unlink()
    assert check_manifest(mount) == ["LICENSE: missing", "hpa_kit/py.typed: not as it was built"]
    manifest = json.loads((mount / "manifest.json").read_text())
    (mount / "manifest.json").write_text(json.dumps({**manifest, "build": "0" * 12}))
    said = f"manifest.json: says build {'0' * 12}, its files make {manifest['build']}"
    assert check_manifest(mount)[0] == said
    for broken in ("{", "[]", "{}", '{"files": ["LICENSE"]}', '{"files": {}, "commit": 3}', "[" * 100_000):
        (mount / "manifest.json").write_text(broken)
        assert len(check_manifest(mount)) == 1, broken


def test_a_wheel_that_kaggle_has_unpacked_still_counts_as_there(checkout, tmp_path):
    mount = tmp_path / "mount"
    with zipfile.ZipFile(build_bundle(tmp_path / "dist", source=checkout).path) as archive:
        archive.extractall(mount)
    wheel = mount / "wheels" / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(mount / "wheels" / "tiny-1.0-py3-none-any")
    wheel.unlink()
    assert check_manifest(mount) == []


def test_the_script_builds_from_any_folder_and_says_when_its_python_is_too_old(checkout, tmp_path):
    shutil.copy(KIT / "build_dataset.sh", checkout)
    copy_kit(checkout / "hpa_kit")
    (checkout / "notebooks").mkdir()
    old = tmp_path / "bin" / "python3"
    old.parent.mkdir()
    environment = {**os.environ, "PATH": f"{old.parent}{os.pathsep}{os.environ['PATH']}"}

    def run() -> subprocess.CompletedProcess[str]:
        command = [str(checkout / "build_dataset.sh")]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "older than Python 3.10" in done.stderr
    old.unlink()
    old.symlink_to(sys.executable)
    assert run().returncode == 0
    assert (checkout / "dist" / "hpa-kit.zip").is_file()


def test_the_command_prints_one_line_for_bad_input(tmp_path, capsys):
    assert main(["kaggle", "bundle", str(tmp_path / "dist"), "--owner", "Jane@x"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
