import io
import os
import pickle
import sys
import types
import zipfile
import zlib
from collections import OrderedDict

import pytest
import torch
from torch import nn

from hpa_kit.cells.dpn_unet import DPNUnet
from hpa_kit.cells.weights import convert_weights, find_weights, load_published_network
from hpa_kit.errors import InputError


class Hostile:
    """A pickle of this makes a file when something runs it."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.fixture(scope="module")
def zoo():
    """The package of the published pickles, as far as pickling needs it."""
    package, module = types.ModuleType("pytorch_zoo"), types.ModuleType("pytorch_zoo.unet")

    class Layer(nn.Module):
        pass

    Layer.__module__, Layer.__qualname__ = "pytorch_zoo.unet", "Layer"
    module.Layer = Layer
    sys.modules |= {"pytorch_zoo": package, "pytorch_zoo.unet": module}
    yield module
    del sys.modules["pytorch_zoo"], sys.modules["pytorch_zoo.unet"]


@pytest.fixture(scope="module")
def published(zoo):
    """A module of the published kind; each tensor holds one number, stored once."""
    with torch.device("meta"):
        network = DPNUnet()

    def imitate(module, prefix):
        copy = zoo.Layer()
        for name, tensor in module.named_parameters(recurse=False):
            copy.register_parameter(name, nn.Parameter(constant(f"{prefix}{name}", tensor)))
        for name, tensor in module.named_buffers(recurse=False):
            copy.register_buffer(name, constant(f"{prefix}{name}", tensor))
        for name, child in module.named_children():
            copy.add_module(name, imitate(child, f"{prefix}{name}."))
        return copy

    return imitate(network, "")


def value(key):
    return (zlib.crc32(key.encode()) % 1000) / 1000


def constant(key, like):
    number = value(key) if like.is_floating_point() else 0
    return torch.full((), number, dtype=like.dtype).expand(like.shape)


def assert_published_values(network):
    assert not network.training
    for name, tensor in network.state_dict().items():
        expected = torch.tensor(value(name) if tensor.is_floating_point() else 0, dtype=tensor.dtype)
        assert tensor.is_contiguous()
        assert (tensor == expected).all(), name


@pytest.mark.parametrize(
    ("wrap", "legacy"),
    [
        (False, False),
        (True, True),
        pytest.param(True, False, marks=pytest.mark.whole_table),
        pytest.param(False, True, marks=pytest.mark.whole_table),
    ],
)
def test_pickled_modules_are_read_without_their_classes(tmp_path, published, legacy, wrap):
    path = tmp_path / "nuclei-model.pth"
    module = nn.DataParallel(published) if wrap else published
    torch.save(module, path, _use_new_zipfile_serialization=not legacy)
    assert_published_values(load_published_network(path))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_plain_state_dicts_are_read(tmp_path, published, prefix):
    state = OrderedDict((f"{prefix}{name}", tensor) for name, tensor in published.state_dict().items())
    torch.save({"epoch": 3, "state_dict": state} if prefix else state, tmp_path / "a.pth")
    assert_published_values(load_published_network(tmp_path / "a.pth"))


def test_converted_weights_load_with_no_pickle_at_all(tmp_path, published, monkeypatch):
    torch.save(published, tmp_path / "cell-model.pth")
    converted = convert_weights(tmp_path / "cell-model.pth", tmp_path / "cell-model.safetensors")
    monkeypatch.setattr("hpa_kit.cells.weights.read_pickled_tensors", None)
    assert_published_values(load_published_network(converted))


def wrappings(proof):
    """A hostile object in every place a weights file can have it."""
    hostile = Hostile(proof)
    module = nn.Sequential(nn.Linear(2, 2))
    module.hostile = hostile
    wrapped = nn.DataParallel(nn.Sequential(nn.Linear(2, 2)))
    wrapped.module.extra = [hostile]
    tensors = OrderedDict(weight=torch.zeros(3), hostile=hostile)
    for name, content in {
        "bare": hostile,
        "module": module,
        "DataParallel": wrapped,
        "state": tensors,
    }.items():
        for legacy in (False, True):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=not legacy)
            yield f"{name}, {'legacy' if legacy else 'zip'}", file.getvalue()
    yield "a pickle alone", pickle.dumps(hostile)
    file = io.BytesIO()
    torch.save(torch.zeros(1), file, _use_new_zipfile_serialization=False)
    yield "before the legacy header", pickle.dumps(hostile, protocol=2) + file.getvalue()


def test_a_hostile_pickle_runs_nothing_in_any_wrapping(tmp_path):
    proof = tmp_path / "proof"
    for name, data in wrappings(proof):
        for suffix in (".pth", ".safetensors"):
            path = tmp_path / f"weights{suffix}"
            path.write_bytes(data)
            with pytest.raises(
                InputError, match=r"weights: .*weights\.(pth|safetensors).*system|no whole"
            ) as caught:
                load_published_network(path)
            assert "\n" not in str(caught.value)
            assert not proof.exists(), name


GADGETS = {
    "a global of a builtin": b"cbuiltins\neval\n(S'1'\ntR.",
    "a class of ours": b"chpa_kit.cells.weights\nconvert_weights\n(tR.",
    "torch's own loader": b"ctorch\nload\n(S'x'\ntR.",
    # Protocol 4 looks dotted names up part by part.
    "a dotted way out of a layer": b"\x80\x04\x8c\x17torch.nn.modules.linear\x8c\x0ftorch.os.system\x93.",
    "a function that lives beside layers": b"ctorch.nn.modules.utils\n_ntuple\n(K\x02tR.",
    "getattr": b"cbuiltins\ngetattr\n.",
}


@pytest.mark.parametrize("pickled", GADGETS.values(), ids=GADGETS.keys())
def test_ways_around_the_list_of_names_lead_nowhere(tmp_path, pickled):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
    with pytest.raises(InputError, match=r"x\.pth"):
        load_published_network(path)


def test_a_file_that_claims_more_than_it_holds_takes_no_memory(tmp_path):
    huge = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"final.0.bias": huge}, tmp_path / "huge.pth")
    with pytest.raises(InputError, match="not the weights"):
        load_published_network(tmp_path / "huge.pth")


def test_compressed_members_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x00" * 10**6)
    with pytest.raises(InputError, match="compressed"):
        load_published_network(tmp_path / "bomb.pth")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_file_cut_short_is_damaged(tmp_path, published, legacy):
    file = io.BytesIO()
    torch.save(published, file, _use_new_zipfile_serialization=not legacy)
    for part in (0, 1, 100, len(file.getvalue()) // 2, len(file.getvalue()) - 9):
        (tmp_path / "cut.pth").write_bytes(file.getvalue()[:part])
        with pytest.raises(InputError, match=r"cut\.pth"):
            load_published_network(tmp_path / "cut.pth")


def test_weights_of_another_network_are_named(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(InputError, match=r"linear\.pth.*encoder_stages.*is missing.*more"):
        load_published_network(tmp_path / "linear.pth")


def test_missing_weights_say_where_they_are_to_be_had_and_open_no_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    with pytest.raises(InputError, match=r"nuclei-model\.pth is missing.*Zenodo record 4665863"):
        load_published_network(tmp_path / "nuclei-model.pth")
    with pytest.raises(InputError, match=r"dpn_unet_nuclei_v1\.pth, nuclei-model\.pth.*Zenodo"):
        find_weights(tmp_path)


def test_both_networks_are_found_by_either_name(tmp_path):
    for name in ("nuclei-model.pth", "dpn_unet_cell_3ch_v1.pth", "cell-model.safetensors"):
        (tmp_path / name).touch()
    found = find_weights(tmp_path)
    assert found == {"nuclei": tmp_path / "nuclei-model.pth", "cells": tmp_path / "cell-model.safetensors"}


@pytest.mark.parametrize("name", ["module_zip", "module_legacy", "module_dataparallel_zip"])
def test_the_published_kind_of_file_is_read_exactly(reference, name):
    network = load_published_network(reference / "dpnunet" / f"{name}.pth")
    parameters = dict(network.named_parameters())
    for key, tensor in network.state_dict().items():
        expected = value(key) + (0 if key in parameters else 0.5) if tensor.is_floating_point() else 0
        assert (tensor == torch.tensor(expected, dtype=tensor.dtype)).all(), key
