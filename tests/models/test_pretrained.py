"""Weights that a backbone starts with: fitted to four channels, named where they do not fit, run nowhere."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from hpa_kit.errors import InputError
from hpa_kit.models import CamClassifier

TINY = "resnet10t"


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_the_fourth_filter_of_a_pretrained_stem_is_the_third(tmp_path, kind):
    weights = timm.create_model(TINY, num_classes=7).state_dict()
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    save_file(weights, path) if kind == "safetensors" else torch.save({"state_dict": weights}, path)
    for stride in (32, 8):
        stem = CamClassifier(TINY, stride=stride, pretrained=path).state_dict()
        stem = next(value for key, value in stem.items() if key.endswith("conv1.0.weight"))
        assert torch.equal(stem[:, :3], weights["conv1.0.weight"])
        assert torch.equal(stem[:, 3], weights["conv1.0.weight"][:, 2])
    three = CamClassifier(TINY, in_channels=3, pretrained=path).state_dict()
    stem = next(value for key, value in three.items() if key.endswith("conv1.0.weight"))
    assert torch.equal(stem, weights["conv1.0.weight"])


def test_weights_that_do_not_fit_are_listed_by_key(tmp_path):
    weights = timm.create_model(TINY).state_dict()
    weights["layer9.0.weight"] = weights.pop("layer1.0.conv1.weight")
    weights["bn1.weight"] = torch.ones(5)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(InputError) as caught:
        CamClassifier(TINY, pretrained=tmp_path / "w.safetensors")
    for key in ("layer1.0.conv1.weight", "layer9.0.weight", "bn1.weight"):
        assert key in str(caught.value)


def test_missing_and_damaged_weights_are_named(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    for name in ("bad.safetensors", "bad.pth", "gone.pth"):
        with pytest.raises(InputError, match=name):
            CamClassifier(TINY, pretrained=tmp_path / name)


class Harmful:
    """Pickles to something that would run code when it is read."""

    def __reduce__(self):
        return (print, ("code ran",))


def test_weights_that_would_run_code_are_refused(tmp_path, capsys):
    torch.save({"state_dict": Harmful()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="named tensors"):
        CamClassifier(TINY, pretrained=tmp_path / "w.pth")
    assert capsys.readouterr().out == ""
