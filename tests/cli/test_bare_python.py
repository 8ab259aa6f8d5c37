"""What comes before any set-up, metadata, status and bundle, and what drives Kaggle need only Python."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The checkout as it is cloned: without environments and without anything built."""
    root = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.whl")
    for name in ("hpa_kit", "notebooks", "wheels", "constraints"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("kernel-metadata.json", "LICENSE"):
        shutil.copy(ROOT / name, root)
    return root


def bare(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line without site-packages, and with no program in PATH."""
    command = [sys.executable, "-S", "-m", "hpa_kit.cli", *words]
    environment = {"PATH": str(checkout), "HOME": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_metadata_are_written_and_status_says_which_command_comes_first(checkout):
    done = bare(checkout, "kaggle", "metadata", "--owner", "jane-doe", "--add", "jane-doe/runs")
    assert (done.returncode, done.stderr) == (0, "")
    metadata = json.loads((checkout / "kernel-metadata.json").read_text())
    assert (metadata["id"], metadata["dataset_sources"][-1]) == ("jane-doe/hpa-kit-infer", "jane-doe/runs")

    done = bare(checkout, "kaggle", "status")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "ok    owner jane-doe"
    mends = [line.rpartition(" -> ")[2] for line in lines if line.startswith("to do")]
    assert "./build_dataset.sh" in mends
    assert "make client" in mends
    assert "make .venv && .venv/bin/hpa-kit kaggle status" in mends
    (hint,) = [line for line in lines if "hpa-kit is not in PATH" in line]
    assert "make .venv && source .venv/bin/activate" in hint
    assert "python3 -m hpa_kit.cli" in hint


def test_a_bundle_is_built_and_says_that_its_wheels_were_held_against_their_pins_only(checkout):
    wheel = checkout / "wheels" / "tiny-1.0-cp27-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny-1.0.dist-info/METADATA", "Name: tiny\n\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (checkout / "wheels" / "requirements.txt").write_text(f"tiny==1.0 --hash=sha256:{digest}\n")
    done = bare(checkout, "kaggle", "bundle", "--owner", "jane-doe")
    assert (done.returncode, done.stderr) == (0, "")
    assert (checkout / "dist" / "hpa-kit.zip").is_file()
    assert "not compared with Kaggle's image, as packaging is missing here: make .venv" in done.stdout


def test_what_would_be_asked_of_kaggle_is_printed_and_without_a_client_the_command_that_brings_it(checkout):
    assert bare(checkout, "kaggle", "metadata", "--owner", "jane-doe").returncode == 0
    for words in (("train", "--recipe", "quick"), ("submit",), ("data", "--images", "test")):
        done = bare(checkout, "kaggle", *words, "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("kaggle ")
    done = bare(checkout, "kaggle", "submit")
    assert (done.returncode, done.stderr) == (2, "hpa-kit: kaggle: no Kaggle client here -> make client\n")


def test_what_there_is_can_be_read_at_once(checkout):
    done = bare(checkout, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"train", "infer", "check", "kaggle"} <= set(done.stdout.split())


@pytest.mark.parametrize("words", [("train", "data"), ("train", "--help"),
                                   ("check", "x.csv", "--sample", "y.csv"),
                                   ("kaggle", "weights", "run", "out", "--owner", "me")])  # fmt: skip
def test_every_other_command_names_the_one_that_comes_first(checkout, words):
    done = bare(checkout, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "is missing; `make .venv`" in done.stderr
