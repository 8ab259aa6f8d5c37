"""The optimiser and the learning rate."""

import numpy as np
import pytest
import torch

from hpa_kit.errors import InputError
from hpa_kit.training.optimisation import Schedule, make_optimiser


def test_sgd_is_plain_momentum_on_all_weights_in_one_group(settings):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimiser = make_optimiser(model, settings(optimiser="sgd", lr=0.5, weight_decay=4e-5))
    (group,) = optimiser.param_groups
    assert (group["nesterov"], group["momentum"], group["weight_decay"]) == (False, 0.9, 4e-5)
    assert len(group["params"]) == 4


@pytest.mark.parametrize("name", ["adamw", "adam", "lamb", "nesterov", "lookahead_adam"])
def test_timms_optimisers_are_had_by_name(settings, name):
    assert make_optimiser(torch.nn.Linear(2, 2), settings(optimiser=name)).param_groups[0]["lr"] == 1e-3


def test_an_unknown_optimiser_names_the_nearest(settings):
    with pytest.raises(InputError, match=r"adamv.*did you mean"):
        make_optimiser(torch.nn.Linear(2, 2), settings(optimiser="adamv"))


def test_the_rate_rises_linearly_then_falls_as_a_cosine(settings):
    made = settings(lr=1.0, warmup=0.2)
    optimiser = make_optimiser(torch.nn.Linear(2, 2), made)
    scheduler = Schedule(optimiser, made, total_steps=50)
    rates = []
    for step in range(50):
        scheduler.step_update(step)
        rates.append(optimiser.param_groups[0]["lr"])
    assert np.allclose(np.diff(rates[:11]), rates[1] - rates[0])
    assert rates[0] > 0 and rates[10] == 1 == max(rates)
    assert rates[30] == pytest.approx(0.5) and 0 < rates[-1] < 0.01


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_of_a_single_step_learns(settings, steps):
    optimiser = make_optimiser(torch.nn.Linear(2, 2), settings())
    Schedule(optimiser, settings(), steps).step_update(0)
    assert optimiser.param_groups[0]["lr"] > 0
