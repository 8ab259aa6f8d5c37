"""SubCell as it was published: the same numbers as its authors' code gives."""

import pytest
import torch
from subcell import GRID, PATCH, WIDTH, classifier, encoder, said

from hpa_kit.config.kinds import SUBCELL_VARIANTS
from hpa_kit.errors import InputError
from hpa_kit.models import SubCell, load_subcell
from hpa_kit.training.subcell_weights import convert_subcell

SIDES = [(64, 64), (32, 32), (112, 112), (80, 50), (66, 75), (16, 31)]


@pytest.fixture(scope="module", params=SUBCELL_VARIANTS)
def converted(request, tmp_path_factory):
    """A variant's published files, as they are read back, and what they hold."""
    folder = tmp_path_factory.mktemp("subcell")
    weights = encoder(request.param, dropout=request.param != "bg")
    classifiers = [classifier(0), classifier(1, (0, 2, 4))]
    paths = [folder / f"{name}.pth" for name in ("encoder", "one", "two")]
    for path, part in zip(paths, (weights, *classifiers), strict=True):
        torch.save(part, path)
    out = convert_subcell(paths[0], paths[1:], folder / "out", channels=request.param)
    return load_subcell(out), weights, classifiers


def crops_of(n: int, side: tuple[int, int]) -> torch.Tensor:
    """Grey levels, of other brightness in each crop and channel."""
    rng = torch.Generator().manual_seed(7)
    bright = torch.tensor([255.0, 40.0, 3.0, 90.0])[:n, None, None]
    return torch.rand((2, n, *side), generator=rng) * bright * torch.tensor([1.0, 0.1])[:, None, None, None]


@pytest.mark.parametrize("side", SIDES, ids=str)
@torch.inference_mode()
def test_features_and_probabilities_are_those_of_the_published_code(converted, side) -> None:
    model, weights, classifiers = converted
    crops = crops_of(len(model.channels), side)
    found, (features, probabilities) = model(crops), said(crops, weights, classifiers)
    assert found.features.shape == (2, 2 * WIDTH) and found.probabilities.shape == (2, 31)
    torch.testing.assert_close(found.features, features, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.probabilities, probabilities, atol=1e-5, rtol=0)
    assert probabilities.std(dim=0).max() > 1e-4  # crops differ, so the numbers say something


@torch.inference_mode()
def test_its_tokens_are_those_of_hugging_faces_vit(converted) -> None:
    transformers = pytest.importorskip("transformers")
    model, weights, _ = converted
    config = transformers.ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=192,
        layer_norm_eps=1e-12, image_size=GRID * PATCH, num_channels=len(model.channels),
    )  # fmt: skip
    theirs = transformers.ViTModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(
        {key.removeprefix("encoder."): value for key, value in weights.items() if key.startswith("encoder.")}
    )
    crops = model.scaled(crops_of(len(model.channels), (80, 50)))
    expected = theirs(crops, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(model.tokens(crops), expected, atol=1e-5, rtol=0)


def test_it_is_ready_to_be_evaluated_and_its_brightness_does_not_matter(converted) -> None:
    model, _, _ = converted
    assert not any(module.training for module in model.modules())
    crops = crops_of(len(model.channels), (64, 64))
    with torch.inference_mode():
        torch.testing.assert_close(model(crops).features, model(crops * 3 + 20).features, atol=1e-4, rtol=0)


def test_checkpointing_changes_no_gradient(converted) -> None:
    model, _, _ = converted
    crops, found = crops_of(len(model.channels), (32, 32)), []
    for on in (False, True):
        model.encoder.set_grad_checkpointing(on)
        model.zero_grad()
        model.features(crops).sum().backward()
        found.append(model.encoder.patch_embed.proj.weight.grad.clone())
    model.encoder.set_grad_checkpointing(False)
    model.zero_grad()
    torch.testing.assert_close(*found)


def test_crops_of_other_channels_and_below_a_token_are_refused(converted) -> None:
    model, _, _ = converted
    for shape in ((1, len(model.channels) + 1, 32, 32), (1, len(model.channels), 15, 32), (2, 32, 32)):
        with pytest.raises(InputError, match="expected crops"):
            model(torch.zeros(shape))


def test_the_published_sizes_are_those_of_a_network_made_without_any() -> None:
    with torch.device("meta"):
        model = SubCell()
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(87.8e6, rel=0.01)
    assert model.n_features == 1536 and model.encoder.pos_embed.shape == (1, 785, 768)
    assert [layer.out_features for layer in model.classifiers[0][::2]] == [512, 256, 31]


def test_what_is_no_subcell_is_refused_in_one_line(tmp_path, member) -> None:
    with pytest.raises(InputError, match="is missing"):
        load_subcell(tmp_path)
    with pytest.raises(InputError, match="it is no SubCell"):
        load_subcell(member)
    (tmp_path / "best.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(InputError, match="it is no SubCell"):
        load_subcell(tmp_path)
    (tmp_path / "best.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        load_subcell(tmp_path)
