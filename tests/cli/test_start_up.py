"""A command starts at once: it imports what it uses, and torch only where a network runs."""

from pathlib import Path

import numpy as np
import pytest

from hpa_kit.config import SimulateSettings, TrainSettings
from hpa_kit.data.simulate import simulate
from hpa_kit.submission import encode_mask, write_submission

# What takes long to import, or much memory in every child.
HEAVY = {
    "PIL", "albumentations", "cv2", "iterstrat", "matplotlib", "numba", "numpy", "pandas", "pydantic",
    "scipy", "segmentation_models_pytorch", "skimage", "sklearn", "tensorboard", "timm", "torch",
    "torchvision",
}  # fmt: skip
CODE = f"""
import contextlib, sys
from hpa_kit.cli import main
with contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print("imported", *({{name.partition(".")[0] for name in sys.modules}} & {HEAVY!r}))
"""
TABLES = {"numpy", "pandas", "numba", "scipy"}
IMAGES = TABLES | {"cv2", "PIL", "pydantic"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a competition ``data``, a submission ``s.csv``, and a run in ``runs``."""
    import torch

    from hpa_kit.training.checkpoint import write_checkpoint

    root = tmp_path_factory.mktemp("start")
    simulate(SimulateSettings(out=root / "data", train=0, test=1, size=64, classes=(0, 7), workers=1))
    id = (root / "data" / "sample_submission.csv").read_text().splitlines()[1].partition(",")[0]
    mask = encode_mask(np.eye(64, dtype=bool))
    write_submission(root / "s.csv", [(id, 64, 64, f"0 0.5 {mask}")])
    (root / "runs" / "one").mkdir(parents=True)
    settings = TrainSettings(data=root / "data", out=root / "runs" / "one")
    state = {"model": {"weight": torch.ones(2)}, "epoch": 1, "metrics": {"epoch": 1.0, "macro_f1": 0.5}}
    write_checkpoint(root / "runs" / "one" / "best.safetensors", settings, state)
    return root


@pytest.mark.parametrize(
    ("command", "said", "allowed"),
    [
        ("--help", "pseudo-labels", set()),
        ("kaggle metadata --help", "--remove", set()),
        ("kaggle weights --help", "--licence", set()),
        ("train --help", "--backbone", {"numpy", "pydantic"}),
        ("check s.csv --sample data/sample_submission.csv", "Kaggle should accept it", TABLES),
        ("evaluate data/truth.csv s.csv", "mean", TABLES),
        ("runs runs", "0.5000", TABLES | {"pydantic"}),
        ("runs runs/one --yaml", "backbone: resnet50", TABLES | {"pydantic"}),
        ("picture s.csv data --out p.png", "picture: p.png", IMAGES),
        ("report s.csv --data data --out r.html", "1 of 1 fields shown", IMAGES),
        ("simulate new --train 0 --test 1 --size 64 --workers 1", "competition: new", IMAGES | {"skimage"}),
        ("infer data --members runs/nothing --out o.csv", "", IMAGES | {"torch"}),
        ("segment nothing --out maps", "", IMAGES),
        ("store nothing --out store", "", IMAGES),
    ],
)
def test_a_command_imports_what_it_uses_and_no_more(place, warm_python, command, said, allowed):
    # In a process that has imported some of what it may, and nothing of the kit.
    level = "images" if allowed >= IMAGES else "tables" if allowed >= TABLES else "bare"
    words = ["-c", CODE, *command.split()]
    done = warm_python.run(words, level, cwd=place, capture_output=True, text=True, check=True)
    *printed, last = done.stdout.splitlines()
    assert said in "\n".join(printed), done.stderr
    assert set(last.split()[1:]) <= allowed
