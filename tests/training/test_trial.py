"""A network that cannot learn as a run's settings say is refused before the run writes anything."""

import pytest
import torch

from hpa_kit.errors import InputError
from hpa_kit.models import CamClassifier
from hpa_kit.training import Trainer, train
from hpa_kit.training.member import build_network, learns_with_all_weights
from hpa_kit.training.processes import Processes

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"backbone": "dla46x_c", "size": 250},
            "size: .*dla46x_c cannot look at fields of 250 x 250; .* 224 and 256",
        ),
        ({"backbone": "test_vit", "stride": 16, "size": 100}, "cannot look at .*: 96 and 112"),
        pytest.param(
            {"backbone": "crossvit_tiny_240", "size": 240},
            # The second by newer versions of timm.
            "crossvit_tiny_240 (gives .1, 288. .*expected 8² maps for|has no stage of) stride 32",
            marks=pytest.mark.whole_table,  # test_vit's kind
        ),
        ({"backbone": "test_vit"}, "no stage of stride 32; it has .16."),
        ({"backbone": "resnet5O"}, "no model 'resnet5O'"),
        (
            {"batch": 1},
            "batch: one field a step .* size 32 .*test_resnet single values.*take batch 2 or more",
        ),
        (
            {"backbone": "resnest14d", "batch": 1, "size": 64},
            "take batch 2 or more",
        ),  # norms of single values
        ({"batch": 1, "network": "arcface"}, "take batch 2 or more"),
    ],
)
def test_it_is_refused_in_one_line_and_leaves_no_folder(settings, changes, words):
    made = settings(**{"stride": 32, **changes})
    with pytest.raises(InputError, match=words) as caught:
        train(made)
    assert "\n" not in str(caught.value) and not made.out.exists()


def test_one_field_a_step_is_enough_where_maps_have_several_pixels(settings):
    Trainer(settings(stride=16, size=32, batch=1)).try_network()


def test_trying_draws_no_random_numbers(settings):
    before = torch.get_rng_state()
    Trainer(settings()).try_network()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_of_one_side_is_trained_at_another_and_read_back(settings):
    run = train(settings(backbone="levit_128s", stride=32, size=96, epochs=1, batch=10))
    assert (run / "best.safetensors").exists()
    from hpa_kit.training import load_member

    assert load_member(run).model.sides.takes(96)


def test_a_process_with_a_single_value_normalises_it_by_what_is_known():
    processes = Processes(rank=1, world=2)
    model = processes.synchronised(CamClassifier("test_resnet"), CPU).train()
    first = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    last = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)][-1]
    model(torch.randint(0, 256, (1, 4, 32, 32))).sum().backward()
    assert last.training and not last.running_mean.any() and first.running_mean.any()
    assert all(weight.grad is not None for weight in model.parameters())
    model(torch.randint(0, 256, (2, 4, 32, 32)))
    assert last.running_mean.any()


def test_no_process_sees_two_fields_only_where_there_are_as_few_as_processes():
    alone, two = Processes(), Processes(world=2)
    assert alone.fields_alone(1, CPU) and two.fields_alone(2, CPU)
    assert not alone.fields_alone(2, CPU) and not two.fields_alone(3, CPU) and not two.fields_alone(None, CPU)
    assert not two.fields_alone(2, torch.device("cuda"))  # where batch norm sees the whole batch


@pytest.mark.parametrize("all_of_them", [True, False])
def test_weights_that_get_no_gradient_are_known(settings, all_of_them):
    made = settings(stride=8, size=64)

    def network():
        model = build_network(made)
        if not all_of_them:  # as some of timm's have, for what is not asked of them
            model.backbone.unused = torch.nn.Parameter(torch.zeros(3))
        return model

    assert learns_with_all_weights(made, network) == all_of_them
