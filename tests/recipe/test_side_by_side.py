"""Networks that train side by side, each in its own process, are those that train one after the other."""

import pytest
from safetensors.numpy import load_file

from hpa_kit.config import RecipeSettings, SimulateSettings, TrainSettings
from hpa_kit.data.simulate import simulate
from hpa_kit.recipe import carry_out
from hpa_kit.training import train

NETWORK = {"backbone": "test_resnet", "stride": 8, "size": 32, "epochs": 1, "batch": 4, "lr": 0.01}
RECIPE = f"""
about: two networks
folds: 2
stages:
  cam:
    train: {{{", ".join(f"{name}: {value}" for name, value in NETWORK.items())}}}
    folds: all
"""


@pytest.mark.whole_table  # with children that take no time: test_run.py
def test_two_networks_side_by_side_are_those_that_are_trained_one_after_the_other(
    tmp_path, monkeypatch, one_thread
):
    monkeypatch.setattr("hpa_kit.recipe.run.cpus", lambda: 2)  # one thread for each, as here
    data, recipe = tmp_path / "data", tmp_path / "two.yaml"
    simulate(SimulateSettings(out=data, train=12, test=1, size=64, classes=(0, 7), seed=1, workers=1))
    recipe.write_text(RECIPE)
    out = tmp_path / "out"
    state = carry_out(RecipeSettings(recipe=str(recipe), data=data, out=out, device="cpu", parallel=2))
    assert state.finished
    for fold in (0, 1):
        alone = train(
            TrainSettings(
                data=data,
                out=tmp_path / f"alone{fold}",
                fold=fold,
                folds=2,
                device="cpu",
                workers=0,
                **NETWORK,
            )
        )
        one, other = (load_file(run / "best.safetensors") for run in (alone, out / f"cam_fold{fold}"))
        assert one.keys() == other.keys()
        assert all((one[name] == other[name]).all() for name in one)
        assert (alone / "metrics.csv").read_bytes() == (out / f"cam_fold{fold}" / "metrics.csv").read_bytes()
