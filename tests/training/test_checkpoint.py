"""Checkpoints hold everything, run no code, and damaged ones say so."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.training.checkpoint import read_checkpoint, write_checkpoint
from hpa_kit.training.member import build_network, load_member
from hpa_kit.training.run_state import random_state, restore_random_state


def settings(tmp_path, **changes):
    return TrainSettings(data=tmp_path, out=tmp_path / "run", backbone="test_resnet", size=64, **changes)


def test_any_nested_state_comes_back_as_it_was(tmp_path):
    shared = torch.arange(6.0)
    state = {
        "optimiser": {
            "state": {0: {"step": torch.tensor(3.0), "none": None}},
            "param_groups": [{"betas": (0.9, 0.1)}],
        },
        "tied": [shared, shared, shared.reshape(2, 3).t()],
        "half": torch.ones(2, dtype=torch.bfloat16),
        "best": np.float64(0.1),
        "empty": {},
    }
    write_checkpoint(tmp_path / "a.safetensors", settings(tmp_path), state)
    back = read_checkpoint(tmp_path / "a.safetensors").state
    assert back["optimiser"]["param_groups"] == [{"betas": (0.9, 0.1)}]
    assert back["optimiser"]["state"][0]["step"] == 3 and back["optimiser"]["state"][0]["none"] is None
    assert torch.equal(back["tied"][2], shared.reshape(2, 3).t()) and torch.equal(back["tied"][0], shared)
    assert back["half"].dtype == torch.bfloat16
    assert (back["best"], back["empty"]) == (0.1, {})


def test_hyper_parameters_are_plain_json_inside_the_file(tmp_path):
    made = settings(tmp_path, lr=0.25, drop_rate=0.1)
    write_checkpoint(tmp_path / "a.safetensors", made, {"model": {"head.weight": torch.ones(1)}})
    with safe_open(tmp_path / "a.safetensors", framework="np") as file:
        assert TrainSettings(**json.loads(file.metadata()["settings"])) == made
        assert list(file.keys()) == ["model.head.weight"]


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors"])
def test_a_member_gives_the_logits_of_the_model_that_was_saved(tmp_path, name):
    made = settings(tmp_path, stride=16, in_channels=3)
    model = build_network(made).eval()
    state = {"model": model.state_dict(), "epoch": 2, "metrics": {"val_loss": 0.5}}
    write_checkpoint(tmp_path / name, made, state)
    write_checkpoint(tmp_path / "best.safetensors", made, state)
    fields = torch.randint(
        0, 256, (2, 4, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    for path in (tmp_path / name, tmp_path):
        member, read, info = load_member(path)
        assert not member.training and read == made
        assert (info["epoch"], info["metrics"], info["averaged"]) == (2, {"val_loss": 0.5}, False)
        assert torch.equal(member(fields), model(fields))


def test_averaged_weights_are_used_where_the_run_kept_them(tmp_path):
    made = settings(tmp_path)
    model, averaged = build_network(made), build_network(made)
    write_checkpoint(
        tmp_path / "last.safetensors", made, {"model": model.state_dict(), "ema": averaged.state_dict()}
    )
    member, _, info = load_member(tmp_path / "last.safetensors")
    assert info["averaged"]
    assert torch.equal(member.head.weight, averaged.head.weight)


def test_a_missing_damaged_or_foreign_checkpoint_is_named(tmp_path):
    made = settings(tmp_path)
    whole = tmp_path / "whole.safetensors"
    write_checkpoint(whole, made, {"model": {"head.weight": torch.ones(1)}})
    damaged = {
        "cut.safetensors": whole.read_bytes()[:-2],
        "header.safetensors": whole.read_bytes()[:40],
        "empty.safetensors": b"",
        "text.safetensors": b"a text that is no checkpoint at all",
        "pickle.safetensors": b"\x80\x04}.",
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            load_member(tmp_path / name)
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=r"foreign.* not written by hpa-kit"):
        load_member(tmp_path / "foreign.safetensors")
    with pytest.raises(InputError, match=r"gone.* is missing"):
        load_member(tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match=r"holds no best.safetensors"):
        load_member(tmp_path)


def test_weights_that_do_not_fit_are_listed_by_key(tmp_path):
    made = settings(tmp_path)
    weights = build_network(made).state_dict()
    weights["sub.weight"] = weights.pop("head.weight")
    write_checkpoint(tmp_path / "a.safetensors", made, {"model": weights})
    with pytest.raises(InputError, match=r"head\.weight.*sub\.weight"):
        load_member(tmp_path / "a.safetensors")


def test_random_numbers_go_on_where_they_were(tmp_path):
    def draw():
        return torch.rand(3).tolist()

    write_checkpoint(tmp_path / "a.safetensors", settings(tmp_path), {"random": random_state()})
    expected = draw()
    restore_random_state(read_checkpoint(tmp_path / "a.safetensors").state["random"])
    assert draw() == expected


def test_the_settings_of_a_run_or_a_checkpoint_can_be_used_again(tmp_path):
    from hpa_kit.config import make_settings, to_yaml, write_yaml
    from hpa_kit.training import settings_of

    made = settings(tmp_path, stride=16, swa=0.25)
    write_yaml(settings(tmp_path, stride=8), tmp_path / "settings.yaml")
    assert settings_of(tmp_path).stride == 8  # no checkpoint yet
    write_checkpoint(tmp_path / "last.safetensors", made, {"model": {"head.weight": torch.ones(1)}})
    for path in (tmp_path, tmp_path / "last.safetensors"):
        assert settings_of(path) == made
        assert make_settings(TrainSettings, yaml.safe_load(to_yaml(settings_of(path)))) == made
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no best\.safetensors, last\.safetensors or settings\.yaml"):
        settings_of(tmp_path / "empty")


def test_kinds_of_numbers_are_kept_by_name(tmp_path):
    state = {"kinds": [torch.float16, torch.int64, None], "one": {"name": 3}, "empty": {}}
    write_checkpoint(tmp_path / "a.safetensors", settings(tmp_path), state)
    assert read_checkpoint(tmp_path / "a.safetensors").state == state
