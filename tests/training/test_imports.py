"""What is light stays light: settings are read without torch, members loaded without what trains them."""

import pytest
import torch

from hpa_kit.config import TrainSettings
from hpa_kit.submission import write_submission
from hpa_kit.training.checkpoint import write_checkpoint

HEAVY = {"torch", "timm"}
OF_TRAINING = {"hpa_kit.training.trainer", "hpa_kit.training.augmentation", "hpa_kit.training.objectives"}
OF_TRAINING |= {"albumentations", "tensorboard", "hpa_kit.models.unet", "segmentation_models_pytorch"}


@pytest.fixture
def imported(warm_python):
    """Tells the modules that are there after some code has run in a Python of its own."""

    def names(code: str, *words: object, level: str = "images") -> set[str]:
        code = f"import sys\n{code}\nprint('\\n', *sys.modules, sep='\\n')"
        done = warm_python.run(["-c", code, *words], level, check=True, capture_output=True, text=True)
        return set(done.stdout.splitlines())

    return names


@pytest.fixture
def run(tmp_path):
    """A folder with a checkpoint that has tensors, dtypes and numbers."""
    made = TrainSettings(data="d", out=tmp_path / "run", puzzle="cam")
    state = {"model": {"w": torch.ones(2)}, "kind": torch.float16, "epoch": 3, "metrics": {"val_loss": 0.5}}
    write_checkpoint(tmp_path / "run" / "best.safetensors", made, state)
    return tmp_path / "run"


def test_settings_and_metrics_of_a_checkpoint_are_read_without_torch(run, imported):
    code = """
from hpa_kit.training import read_checkpoint, settings_of
saved = read_checkpoint(f"{sys.argv[1]}/best.safetensors", only=("epoch", "metrics"))
assert saved.state == {"epoch": 3, "metrics": {"val_loss": 0.5}}
assert settings_of(sys.argv[1]).puzzle_cam.source == "cam"
"""
    assert not imported(code, run) & (HEAVY | OF_TRAINING)


def test_a_member_is_loaded_without_what_trains_it(imported):
    found = imported("from hpa_kit.training import load_member", level="networks")
    assert "hpa_kit.training.member" in found
    assert not found & OF_TRAINING


def test_runs_are_listed_and_a_submission_reported_without_torch(run, imported, tmp_path):
    code = "from hpa_kit.cli import main; assert main(sys.argv[1:]) == 0"
    assert not imported(code, "runs", run.parent) & HEAVY
    write_submission(tmp_path / "s.csv", [("a", 8, 6, "")])
    assert not imported(code, "report", tmp_path / "s.csv", "--out", tmp_path / "r.html") & HEAVY
