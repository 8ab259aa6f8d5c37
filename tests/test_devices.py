"""Which devices share the work."""

import pytest
import torch

from hpa_kit.devices import pick_device, pick_devices
from hpa_kit.errors import InputError


def test_every_gpu_that_works_is_taken_by_itself(monkeypatch) -> None:
    def pick(name: str) -> str:
        if name == "cuda:1":
            raise InputError("no kernel image is available")
        return name

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr("hpa_kit.devices.pick_device", pick)
    assert pick_devices("auto") == ["cuda:0", "cuda:2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_devices("auto") == ["cpu"]


def test_devices_are_named_with_commas() -> None:
    assert pick_devices("cpu") == ["cpu"]
    assert pick_devices("cpu, cpu") == ["cpu", "cpu"]
    assert pick_device("cpu") == "cpu"


@pytest.mark.parametrize("names", ["", ",", "gpu", "cpu,gpu", "auto,cuda:99"])
def test_devices_that_are_none_are_refused(names) -> None:
    with pytest.raises(InputError, match="device"):
        pick_devices(names)
