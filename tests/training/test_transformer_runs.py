"""Runs of transformers: everything that learns maps learns those of tokens."""

import numpy as np
import pytest
import torch
from tiny_transformers import DINOV2

from hpa_kit.cells import LabelMaps, write_label_maps
from hpa_kit.classes import multi_hot, parse_label
from hpa_kit.config import MemberSettings
from hpa_kit.data import read_labels
from hpa_kit.inference.views import load
from hpa_kit.training import load_member, train
from hpa_kit.training.optimisation import Averages, make_optimiser
from hpa_kit.training.subcategories import write_subcategories


@pytest.fixture
def masks(competition, tmp_path):
    """Label maps of a cell each."""
    cells = torch.zeros((40, 48), dtype=torch.int32).numpy()
    cells[4:30, 6:40] = 1
    folder = tmp_path / "masks"
    for id in read_labels(competition / "train.csv")["ID"]:
        write_label_maps(folder / f"{id}.npz", LabelMaps(cells, cells))
    return folder


def test_puzzles_subcategories_and_pooling_over_cells_are_learnt_and_other_sides_looked_at(
    settings, masks, competition, tmp_path
):
    labels = read_labels(competition / "train.csv")
    shown = multi_hot(parse_label(label) for label in labels["Label"])
    table = tmp_path / "sub.csv"
    numbers = np.where(shown > 0, np.arange(len(shown))[:, None] % 2, -1)
    write_subcategories(table, labels["ID"].tolist(), numbers)
    made = settings(
        backbone=DINOV2, stride=14, size=56, epochs=1, batch=10, masks=masks, puzzle="cam", consistency=1,
        round=1, subcategories=table, trainable="last:2", layer_decay=0.5, gradient_checkpointing=True,
    )  # fmt: skip
    run = train(made)
    model = load_member(run).model
    with torch.inference_mode():
        assert model.forward_maps(torch.zeros(1, 4, 84, 84)).shape == (1, 19, 6, 6)
    member = load(MemberSettings(checkpoint=run, views="auto"), torch.device("cpu"))
    assert [member.side(scale) for scale in member.plan()[0]] == [56, 70, 84]


def test_layers_learn_the_slower_the_nearer_to_the_field(settings):
    made = settings(backbone=DINOV2, stride=14, size=56, layer_decay=0.5, swa=0.5, swa_lr=0.1)
    from hpa_kit.training.member import build_network
    from hpa_kit.training.optimisation import Schedule

    optimiser = make_optimiser(build_network(made), made)
    assert [group["lr_scale"] for group in optimiser.param_groups] == [1, 0.5, 0.25, 0.125, 0.0625]
    schedule = Schedule(optimiser, made, 10)
    for step, lr in ((1, 1e-3), (9, 0.1)):
        schedule.step_update(step)
        rates = [group["lr"] for group in optimiser.param_groups]
        assert rates == pytest.approx([lr * 0.5**k for k in range(5)])


def test_evenly_averaged_networks_keep_the_statistics_of_what_is_frozen(settings):
    from hpa_kit.training.member import build_network

    made = settings(backbone="test_resnet", trainable="last:1", swa=0.1, ema=0)
    model = build_network(made)
    averages = Averages(model, made, 10)
    averages.update(model, 5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    averages.measure_statistics([torch.rand(3, 4, 32, 32) * 255], lambda network, fields: network(fields))
    after = averages.best_of(model).state_dict()
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed and all("layer2" in key for key in changed)
