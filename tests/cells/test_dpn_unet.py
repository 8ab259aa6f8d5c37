import json
import zlib

import numpy as np
import pytest
import torch

from hpa_kit.cells.dpn_unet import DPNUnet
from hpa_kit.errors import InputError


def filled(key, shape):
    """The numbers with which the original was run, drawn from the key."""
    a = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) == 4:
        a *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        return a * np.float32(0.01) if key == "final.0.weight" else a
    if key.endswith("running_var"):
        return 1 + np.float32(0.1) * np.abs(a)
    return 1 + np.float32(0.05) * a if key.endswith("weight") else np.float32(0.05) * a


def test_logits_are_the_originals(reference):
    folder = reference / "dpnunet"
    keys = json.loads((folder / "state_dict_keys.json").read_text())
    state = {
        key: torch.from_numpy(np.asarray(filled(key, shape)))
        if "float" in dtype
        else torch.zeros(shape, dtype=torch.int64)
        for key, (shape, dtype) in keys.items()
    }
    network = DPNUnet.from_published_state(state)
    with np.load(folder / "forward.npz") as original, torch.inference_mode():
        x = torch.from_numpy(original["x"])
        scale = np.abs(original["logits"]).max()
        logits = network(x)
        # Other processors sum in another order; against float64 the original itself is off by .8e-5 of it.
        assert np.abs(logits.numpy() - original["logits"]).max() <= 1e-5 * scale
        # A softmax moves by half of what its logits do at most.
        assert np.abs(logits.softmax(1).numpy() - original["softmax"]).max() <= 0.5e-5 * scale

        network = network.to(memory_format=torch.channels_last)
        batch = torch.cat([x, x.flip(-1)]).to(memory_format=torch.channels_last)
        both = network(batch).numpy()
        assert np.abs(both[:1] - original["logits"]).max() <= 1e-4 * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(x).float().numpy()
        assert np.corrcoef(half.ravel(), original["logits"].ravel())[0, 1] > 0.99


@pytest.fixture(scope="module")
def network():
    with torch.device("meta"):
        return DPNUnet()


def test_maps_have_the_size_of_the_input(network):
    assert network(torch.empty(2, 3, 64, 96, device="meta")).shape == (2, 3, 64, 96)


@pytest.mark.parametrize("shape", [(1, 3, 33, 64), (1, 4, 64, 64), (3, 64, 64)])
def test_an_input_that_does_not_fit_is_refused(network, shape):
    with pytest.raises(InputError, match="multiples of 32"):
        network(torch.empty(shape, device="meta"))
