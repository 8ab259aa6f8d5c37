"""Transformers as backbones: tokens become maps, positions follow the side, layers learn apart."""

from functools import partial

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from tiny_transformers import DINOV2, DINOV3, PLAIN

from hpa_kit.config import TrainSettings, make_settings
from hpa_kit.errors import InputError
from hpa_kit.models import CamClassifier
from hpa_kit.models.layers import freeze, layers_of

WHOLE = partial(pytest.param, marks=pytest.mark.whole_table)  # of a kind that another row stands for
STRIDES = {DINOV2: 14, DINOV3: 16, PLAIN: 16}


def classifier(name, seed=0, **options):
    torch.manual_seed(seed)
    return CamClassifier(name, STRIDES.get(name, 32), **options).eval()


def timms(model, name, side):
    """The same network as timm has it, made for fields of a side, with the same weights."""
    network = timm.create_model(name, num_classes=0, in_chans=4, img_size=side).eval()
    weights = {
        key.removeprefix("backbone.maps.network."): value
        for key, value in model.state_dict().items()
        if key.startswith("backbone.")
    }
    if "pos_embed" in weights:  # timm's own interpolation to another side
        weights = checkpoint_filter_fn(weights, network)
    network.load_state_dict(weights, strict=False)
    return network


@pytest.mark.parametrize(("name", "sides"), [(DINOV2, (70, 98)), (DINOV3, (64, 96)), (PLAIN, (64, 48))])
def test_class_maps_are_timms_tokens_of_the_field_times_the_head_at_any_side(name, sides):
    model = classifier(name)
    for side in sides:
        fields = torch.randint(0, 255, (2, 4, side, side), dtype=torch.uint8)
        network = timms(model, name, side)
        with torch.inference_mode():
            tokens = network.forward_features(model.input(fields))[:, network.num_prefix_tokens :]
            n = side // STRIDES[name]
            expected = (tokens @ model.head.weight[:, :, 0, 0].T).transpose(1, 2).reshape(2, 19, n, n)
            assert torch.allclose(model.forward_maps(fields), expected, atol=1e-5)
            assert torch.allclose(model(fields), expected.mean((2, 3)), atol=1e-5)


def test_a_flipped_field_gives_maps_of_the_same_form_whose_patches_are_those_of_its_mirror_image():
    model = classifier(DINOV2)
    stem = model.backbone.maps.network.patch_embed.proj
    stem.weight.data.copy_((stem.weight + stem.weight.flip(-1)) / 2)
    fields = torch.rand(1, 4, 70, 70) * 255
    with torch.inference_mode():
        torch.nn.init.zeros_(model.backbone.maps.network.pos_embed)
        flipped = model.forward_maps(fields.flip(-1)).flip(-1)
        assert torch.allclose(model.forward_maps(fields), flipped, atol=1e-5)


def test_pretrained_stems_of_three_channels_get_a_fourth_and_positions_of_their_own_side(tmp_path):
    weights = timm.create_model(DINOV2, num_classes=7, img_size=98).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    network = classifier(DINOV2, pretrained=tmp_path / "w.pth").backbone.maps.network
    stem = network.patch_embed.proj.weight
    assert torch.equal(stem[:, :3], weights["patch_embed.proj.weight"])
    assert torch.equal(stem[:, 3], stem[:, 2])
    assert torch.equal(network.norm.weight, weights["norm.weight"])
    assert network.pos_embed.shape == (1, 25, 32)  # of 70 px, fitted by timm


@pytest.mark.parametrize(
    ("given", "stride", "size", "lr"),
    [
        ({}, 32, 512, 2e-3),
        ({"pretrained": "w.pth"}, 32, 512, 5e-4),
        ({"backbone": "vit_small_patch14_dinov2"}, 14, 504, 2e-3),
        ({"backbone": "vit_small_patch14_reg4_dinov2.lvd142m", "pretrained": "download"}, 14, 504, 1e-4),
        ({"backbone": "vit_base_patch16_dinov3", "pretrained": "w.pth"}, 16, 512, 1e-4),
        ({"backbone": "vit_base_patch16_dinov3", "pretrained": "w.pth", "lr": "3e-4"}, 16, 512, 3e-4),
        ({"backbone": "vit_base_patch16_224", "pretrained": "w.pth", "trainable": "frozen"}, 16, 512, 2e-3),
        ({"backbone": "vit_base_patch14_dinov2", "size": "518"}, 14, 518, 2e-3),
        ({"backbone": "swin_tiny_patch4_window7_224", "pretrained": "w.pth"}, 32, 512, 1e-4),
        ({"backbone": "convnext_tiny.dinov3_lvd1689m", "pretrained": "w.pth"}, 32, 512, 5e-4),
    ],
)
def test_stride_side_and_learning_rate_are_by_default_what_the_backbone_wants(given, stride, size, lr):
    made = make_settings(TrainSettings, {"data": "data", "out": "run", **given})
    assert (made.stride, made.size, made.lr) == (stride, size, lr)
    assert make_settings(TrainSettings, made.model_dump()) == made


def test_a_side_that_patches_do_not_fill_is_refused_with_those_that_they_do():
    with pytest.raises(InputError, match=r"cannot look at fields of 512 x 512; .*takes: 504 and 518 \("):
        classifier(DINOV2, size=512)
    assert classifier(DINOV2).sides.nearest(614) == 616


def test_layers_are_counted_from_the_stem_with_all_its_tokens_to_the_norm_behind_the_last_block():
    layers = layers_of(classifier(DINOV2).backbone)
    own = {name.removeprefix("maps.network."): layer for name, layer in layers.items()}
    assert {own[name] for name in ("cls_token", "reg_token", "pos_embed", "patch_embed.proj.weight")} == {0}
    assert [own[f"blocks.{k}.norm1.weight"] for k in range(3)] == [1, 2, 3] and own["norm.weight"] == 3


@pytest.mark.parametrize("name", [DINOV3, "resnet10t", WHOLE("test_convnext")])
def test_only_the_last_blocks_learn_where_that_is_asked_for(name):
    model = classifier(name)
    freeze(model.backbone, "last:1")
    model.train()(torch.rand(2, 4, 64, 64) * 255).sum().backward()
    layers = layers_of(model.backbone)
    last = max(layers.values())
    for key, weight in model.backbone.named_parameters():
        assert (weight.grad is not None) == (layers[key] == last)
    with pytest.raises(InputError, match=rf"last:99 of backbone {name}, which has {last} blocks"):
        freeze(model.backbone, "last:99")


def test_a_frozen_backbone_stays_as_it_came_its_batch_norm_too():
    model = classifier("resnet10t")
    freeze(model.backbone, "frozen")
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model.train()(torch.rand(2, 4, 64, 64) * 255).sum().backward()
    assert all(weight.grad is None for weight in model.backbone.parameters())
    assert model.head.weight.grad is not None
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())


@pytest.mark.parametrize("name", [DINOV2, WHOLE(DINOV3), WHOLE("resnet10t")])
def test_blocks_that_are_computed_again_give_the_same_gradients(name):
    fields = torch.rand(2, 4, 70 if name == DINOV2 else 64, 70 if name == DINOV2 else 64) * 255
    gradients = []
    for again in (False, True):
        model = classifier(name).train()
        if again:
            model.backbone.compute_again()
        model(fields).square().sum().backward()
        gradients.append([weight.grad for weight in model.parameters()])
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(*gradients, strict=True))


def test_a_network_that_cannot_compute_blocks_again_says_so():
    with pytest.raises(InputError, match="gradient_checkpointing: timm's dla46x_c has none"):
        classifier("dla46x_c").backbone.compute_again()
