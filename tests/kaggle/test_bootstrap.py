"""A notebook's first cell: offline, only what is not importable, one line per package."""

import importlib
import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hpa_kit.kaggle import bootstrap, install_wheels

PROJECT = "hpa_kit_demo_wheel"  # exists nowhere else


def make_wheel(folder: Path, tags: str = "py3-none-any", version: str = "1.0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PROJECT}-{version}-{tags}.whl"
    info = f"{PROJECT}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{PROJECT}/__init__.py", f"version = {version!r}\n")
        archive.writestr("tests/__init__.py", "raise ImportError('a package called tests was imported')\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    """Whatever a test puts on the path or imports is gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop(PROJECT, None)
    importlib.invalidate_caches()


def test_a_wheel_file_is_installed_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9")
    make_wheel(tmp_path / "wheels")
    assert install_wheels(tmp_path / "wheels", target=tmp_path / "site") == [
        "hpa-kit-demo-wheel 1.0 installed"
    ]
    assert importlib.import_module(PROJECT).version == "1.0"


def test_what_can_be_imported_already_is_left_alone(tmp_path, monkeypatch):
    make_wheel(tmp_path / "wheels")
    install_wheels(tmp_path / "wheels", target=tmp_path / "site")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("pip was called"))
    assert install_wheels(tmp_path / "wheels") == ["hpa-kit-demo-wheel 1.0 not needed: 1.0 is there"]


def test_a_vendored_package_without_metadata_counts_as_importable(tmp_path, monkeypatch):
    package = tmp_path / "vendored" / PROJECT
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    sys.path.insert(0, str(package.parent))
    importlib.invalidate_caches()
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("pip was called"))
    make_wheel(tmp_path / "wheels")
    assert install_wheels(tmp_path / "wheels") == ["hpa-kit-demo-wheel 1.0 not needed: it can be imported"]


@pytest.mark.parametrize("where", ["wheels", f"wheels/{PROJECT}-1.0-py3-none-any", f"wheels/{PROJECT}.whl/x"])
def test_an_unpacked_wheel_is_used_as_it_lies(tmp_path, where):
    wheel = make_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / where)
    assert install_wheels(tmp_path / "wheels") == ["hpa-kit-demo-wheel 1.0 used as it lies"]
    assert importlib.import_module(PROJECT).version == "1.0"


def test_without_pip_a_pure_wheel_is_unpacked_instead(tmp_path, monkeypatch):
    make_wheel(tmp_path / "wheels")
    failed = subprocess.CompletedProcess([], 1, "", "No module named pip\n")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: failed)
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path / "unpacked"))
    (line,) = install_wheels(tmp_path / "wheels")
    assert line.startswith("hpa-kit-demo-wheel 1.0 unpacked to")
    assert "No module named pip" in line
    assert importlib.import_module(PROJECT).version == "1.0"


def test_a_wheel_of_another_python_and_a_damaged_one_are_left_out_with_a_line_each(tmp_path):
    make_wheel(tmp_path / "wheels", "cp27-cp27m-manylinux1_x86_64")
    (tmp_path / "wheels" / "damaged-1.0-py3-none-any.whl").write_bytes(b"PK but no more")
    (tmp_path / "wheels" / "misnamed.whl").touch()
    lines = install_wheels(tmp_path / "wheels")
    assert len(lines) == 3
    assert all("left out" in line for line in lines)
    assert any("is for Python cp27" in line for line in lines)


def test_no_wheels_at_all_is_fine(tmp_path):
    assert install_wheels(tmp_path / "none") == []


def test_a_checkout_says_that_it_has_no_manifest_and_a_damaged_bundle_what_is_damaged(tmp_path, capsys):
    bootstrap(tmp_path)
    assert "no manifest" in capsys.readouterr().out
    (tmp_path / "manifest.json").write_text('{"files": {"hpa_kit/cli.py": "00"}}')
    bootstrap(tmp_path)
    printed = capsys.readouterr().out
    assert "DAMAGED" in printed
    assert "hpa_kit/cli.py: missing" in printed


@pytest.mark.parametrize("name", ["../escaped.py", "/tmp/escaped.py", "a/../../escaped.py", "..\\escaped.py"])
def test_a_wheel_that_would_write_outside_of_its_folder_is_left_out(tmp_path, monkeypatch, name):
    with zipfile.ZipFile(make_wheel(tmp_path / "wheels"), "a") as archive:
        archive.writestr(name, "escaped = True\n")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("pip was called"))
    (line,) = install_wheels(tmp_path / "wheels", target=tmp_path / "site")
    assert "left out" in line
    assert f"would write outside of its folder: {name!r}" in line
    assert not list(tmp_path.rglob("escaped.py"))


def test_a_wheel_that_unpacks_to_more_than_any_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["hpa_kit.kaggle.bootstrap"], "MOST_UNPACKED", 10_000)
    with zipfile.ZipFile(make_wheel(tmp_path / "wheels"), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{PROJECT}/zeros.bin", bytes(20_000))
    (line,) = install_wheels(tmp_path / "wheels", target=tmp_path / "site")
    assert "expected 10000 at most" in line
    assert not (tmp_path / "site").exists()


def test_from_then_on_a_notebook_shows_messages_though_its_logging_was_configured(capsys, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [logging.NullHandler()])
    monkeypatch.setattr(root, "level", logging.WARNING)
    bootstrap()
    capsys.readouterr()
    logging.getLogger("hpa_kit.training.loop").info("train: expect 3 min")
    assert capsys.readouterr().out == "train: expect 3 min\n"
