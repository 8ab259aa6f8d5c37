"""A notebook knows which of Kaggle's runs it is in, and which of its GPUs work."""

import pytest
import torch

from hpa_kit.kaggle import environment_report, run_kind, session_hours

RUN, RERUN = "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_IS_COMPETITION_RERUN"


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, "not on Kaggle"),
        ({RUN: ""}, "not on Kaggle"),
        ({RUN: "Interactive"}, "interactive session, public rows only"),
        ({RUN: "Batch"}, "saved run, public rows only"),
        ({RUN: "Batch", RERUN: "1"}, "scoring run, hidden test set"),
        ({RERUN: "True"}, "scoring run, hidden test set"),
    ],
)
def test_the_run_is_named_for_what_it_is(monkeypatch, variables, kind):
    for name in (RUN, RERUN):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_kind() == kind
    assert (session_hours(0) is not None) == bool(variables.get(RUN))


@pytest.mark.parametrize(
    ("broken", "several", "one"),
    [
        ((), "auto", "auto"),
        ((0,), "cuda:1,cuda:2", "cuda:1"),
        ((1, 2), "cuda:0", "cuda:0"),
        ((0, 1, 2), "cpu", "cpu"),
    ],
)
def test_gpus_that_work_are_used_and_the_others_named(monkeypatch, broken, several, one):
    def ones(count: int, device: str) -> torch.Tensor:
        if int(device.removeprefix("cuda:")) in broken:
            raise RuntimeError("no kernel image is available\nand more")
        return torch.zeros(count) + 1

    monkeypatch.setattr("torch.ones", ones)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: f"card {index}")
    found = environment_report()
    assert found.device("auto") == several
    assert found.device("auto", several=False) == one
    assert found.device("cuda:2") == "cuda:2"
    for index in range(3):
        state = "DOES NOT WORK: no kernel image is available" if index in broken else "works"
        assert f"card {index} ({state})" in str(found)
    used = {0: "", 3: "the CPU is used"}.get(len(broken), "the others are used")
    assert used in str(found)
