"""A recipe in the training notebook: sessions that end in time, each of which goes on from the one before."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from played import NOTEBOOKS, execute, with_parameters

from hpa_kit.config import InferSettings, SimulateSettings
from hpa_kit.data.simulate import simulate
from hpa_kit.inference import infer
from hpa_kit.recipe import read_state

RECIPE = """
about: one network of seconds
folds: 3
stages:
  label_maps:
    segment: {split: train}
  cam:
    train: {masks: $label_maps, backbone: test_resnet, stride: 8, size: 64, epochs: 1, lr: 0.01, batch: 4}
    folds: [0]
  ensemble:
    ensemble: {members: [{checkpoint: $cam}]}
  members:
    weights: {sources: $ensemble}
"""


@pytest.mark.whole_table  # what it calls is tried, with children that take no time, in tests/recipe
def test_two_sessions_of_the_notebook_make_members_that_the_inference_notebook_takes(tmp_path, patience):
    inputs, recipe = tmp_path / "input", tmp_path / "tiny.yaml"
    data = inputs / "competition"
    simulate(SimulateSettings(out=data, train=12, test=2, size=64, classes=(0, 7, 16), seed=3, workers=1))
    recipe.write_text(RECIPE)

    def play(number: int, name: str = "train", **parameters) -> tuple[Path, str]:
        working = tmp_path / f"working{number}"
        working.mkdir()
        given = {"inputs": str(inputs), "working": str(working), "device": "cpu", **parameters}
        notebook = with_parameters(NOTEBOOKS / f"{name}.ipynb", **given)
        return working, execute(notebook, NOTEBOOKS, patience)  # the checkout around it has the kit

    first, said = play(1, recipe=str(recipe), time_limit=1e-6)
    assert "this session is over; done: nothing" in said and "no network was trained yet" in said
    assert not read_state(first / "recipe").finished
    shutil.copytree(first, inputs / "notebooks" / "me" / "train-a")
    second, said = play(2, recipe=str(recipe), goes_on=True)
    assert "tiny is done" in said and "[cam fold 0] epoch 1/1" in said
    assert read_state(second / "recipe").finished and read_state(second / "recipe").sessions == 2
    assert (second / "recipe" / "cam_fold0" / "report.html").is_file()

    shutil.copytree(second / "recipe" / "members", inputs / "datasets" / "me" / "members")
    third, _ = play(3, "infer")
    members = inputs / "datasets" / "me" / "members"
    alone = infer(InferSettings(data=data, ensemble=members / "ensemble.yaml", out=tmp_path / "alone.csv"))
    assert pd.read_csv(third / "submission.csv").equals(pd.read_csv(alone)) and len(pd.read_csv(alone)) == 2
