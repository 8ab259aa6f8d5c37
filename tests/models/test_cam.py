"""The classifier's maps, its stem, and which backbones it takes."""

import pytest
import torch

from hpa_kit.errors import InputError
from hpa_kit.models import CamClassifier

TINY = "test_resnet"


def fields(n=2, side=64, channels=4):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=draw)


def whole(*values):
    """A row of which the others have another of its kind."""
    return pytest.param(*values, marks=pytest.mark.whole_table)


@pytest.mark.parametrize("stride_by", ["cut", "dilate"])
@pytest.mark.parametrize("stride", [whole(32), whole(16), 8])
@pytest.mark.parametrize(
    "backbone", [TINY, whole("efficientnet_lite0"), whole("regnetx_002"), "convnext_atto"]
)
def test_logits_are_the_mean_of_the_maps_at_every_stride(backbone, stride, stride_by):
    model = CamClassifier(backbone, stride=stride, stride_by=stride_by).eval()
    with torch.inference_mode():
        maps, logits = model.forward_maps(fields()), model(fields())
    assert maps.shape == (2, 19, 64 // stride, 64 // stride)
    torch.testing.assert_close(logits, maps.mean((2, 3)))


@pytest.mark.parametrize("backbone", [TINY, "convnext_atto"])
@pytest.mark.parametrize("stride", [32, 8])
def test_every_weight_gets_a_gradient(backbone, stride):
    model = CamClassifier(backbone, stride=stride)
    model(fields()).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_resnest_and_a_transformer_give_maps():
    for backbone in ("resnest14d", "swin_tiny_patch4_window7_224"):
        model = CamClassifier(backbone, stride=16, n_classes=3).eval()
        with torch.inference_mode():
            assert model.forward_maps(fields(1)).shape == (1, 3, 4, 4)


def test_cutting_stages_leaves_out_their_weights():
    cut, whole = CamClassifier(TINY, stride=8), CamClassifier(TINY, stride=8, stride_by="dilate")
    count = [sum(weight.numel() for weight in model.parameters()) for model in (cut, whole)]
    assert count[0] < count[1] / 4


@pytest.mark.parametrize("stride", [whole(16), 8])
@pytest.mark.parametrize(
    "backbone", [TINY, whole("efficientnet_lite0"), whole("regnetx_002"), "convnext_atto"]
)
def test_leaving_out_the_last_stage_and_dilating_the_others_sees_more_than_cutting(backbone, stride):
    model = CamClassifier(backbone, stride=stride, stride_by="both").eval()
    with torch.inference_mode():
        assert model.forward_maps(fields()).shape == (2, 19, 64 // stride, 64 // stride)
    count = {
        by: sum(weight.numel() for weight in CamClassifier(backbone, stride=8, stride_by=by).parameters())
        for by in ("cut", "both", "dilate")
    }
    assert count["cut"] < count["both"] < count["dilate"]


def test_the_last_stage_cannot_be_left_out_at_its_own_stride():
    with pytest.raises(InputError, match="test_resnet gives .* for stride 32"):
        CamClassifier("test_resnet", stride=32, stride_by="both")


def test_bytes_and_floats_to_255_mean_the_same_field():
    model = CamClassifier(TINY).eval()
    with torch.inference_mode():
        assert torch.equal(model(fields()), model(fields().float()))


def inputs_of_backbone(model):
    """A list that receives what the backbone of a model is given."""
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    return seen


def test_a_dim_protein_looks_like_a_bright_one():
    model = CamClassifier(TINY).eval()
    seen = inputs_of_backbone(model)
    bright = torch.randn(2, 4, 64, 64) * 60
    model(bright - bright.min())
    model(bright / 2 + 90)
    assert seen[0].mean((-2, -1)).abs().max() < 1e-4
    assert (seen[0].std((-2, -1)) - 60 / 64).abs().max() < 0.02
    assert (seen[0] - seen[1]).abs().max() < 0.3


def test_a_channel_that_shows_nothing_stays_nothing():
    model = CamClassifier(TINY).eval()
    seen = inputs_of_backbone(model)
    model(torch.full((1, 4, 64, 64), 17, dtype=torch.uint8))
    model(torch.full((1, 4, 64, 64), 17.0) + torch.rand(1, 4, 64, 64))
    assert seen[0].abs().max() == 0
    assert seen[1].abs().max() < 0.2


def test_fixed_normalisation_is_imagenets_with_yellow_as_blue():
    model = CamClassifier(TINY, normalisation="fixed").eval()
    seen = inputs_of_backbone(model)
    mean = torch.tensor([0.485, 0.456, 0.406, 0.406]) * 255
    model(mean.reshape(1, 4, 1, 1).expand(1, 4, 64, 64))
    model(torch.zeros(1, 4, 64, 64))
    torch.testing.assert_close(seen[0], torch.zeros(1, 4, 64, 64), atol=1e-5, rtol=0)
    expected = -torch.tensor([0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225, 0.406 / 0.225])
    torch.testing.assert_close(seen[1][0, :, 0, 0], expected)


def test_three_channels_leave_yellow_out():
    model = CamClassifier(TINY, in_channels=3).eval()
    other = fields()
    other[:, 3] = 255 - other[:, 3]
    with torch.inference_mode():
        assert torch.equal(model(fields()), model(other))
        assert torch.equal(model(fields()), model(fields()[:, :3]))
    with pytest.raises(InputError, match="in_channels"):
        CamClassifier(TINY, in_channels=5)


@pytest.mark.filterwarnings("ignore:Mapping deprecated model name")
def test_a_deprecated_name_is_built():
    assert CamClassifier("tf_efficientnet_b0_ns", stride=8).n_features == 40


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(InputError, match=r"no model 'resnet5O'; did you mean 'resnet50'"):
        CamClassifier("resnet5O")
    with pytest.raises(InputError, match="is a place"):
        CamClassifier("hf-hub:someone/something")


def test_a_stride_that_a_backbone_lacks_is_refused():
    with pytest.raises(InputError, match="cannot be dilated"):
        CamClassifier("mobilenetv3_small_050", stride=8, stride_by="dilate")
    with pytest.raises(InputError, match="no stage of stride 32"):
        CamClassifier("vit_tiny_patch16_224", stride=32)


def test_channel_dropout_drops_whole_channels_while_training():
    model = CamClassifier(TINY, drop_rate=0.5)
    seen = []
    model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    model.train()(fields())
    dropped = (seen[0] == 0).all(dim=(2, 3)).float().mean()
    assert 0.4 < dropped < 0.6
    model.eval()
    assert torch.equal(model(fields()), model(fields()))


def test_a_sub_category_head_leaves_maps_and_logits_to_the_parents():
    model = CamClassifier(TINY, stride=16, n_subcategories=190).eval()
    plain = CamClassifier(TINY, stride=16).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "subcategory_head.weight"})
    with torch.inference_mode():
        heads = model.forward_heads(model.input(fields()))
        assert torch.equal(model.forward_maps(fields()), plain.forward_maps(fields()))
        assert torch.equal(heads.maps, plain.forward_maps(fields()))
    assert heads.subcategory_maps.shape == (2, 190, 4, 4)
    assert torch.equal(heads.features, plain.forward_features(fields()))
    assert plain.forward_heads(plain.input(fields())).subcategory_maps is None


def test_both_heads_lose_the_same_channels():
    model = CamClassifier(TINY, drop_rate=0.5, n_subcategories=19).train()
    model.subcategory_head.weight = model.head.weight
    heads = model.forward_heads(model.input(fields()))
    assert torch.equal(heads.maps, heads.subcategory_maps)


def test_fields_with_too_few_channels_are_refused_by_name():
    with pytest.raises(InputError, match="red, green, blue, yellow"):
        CamClassifier(TINY)(fields()[:, :3])


FAMILIES = [
    whole("resnest14d", 32),
    whole("efficientnet_lite0", 32),
    ("regnety_002", 32),
    whole("convnext_atto", 32),
    whole("swin_tiny_patch4_window7_224", 32),
    ("vit_tiny_patch16_224", 16),
]


@pytest.mark.parametrize(("backbone", "stride"), FAMILIES)
def test_every_family_learns_from_maps_of_its_stride(backbone, stride):
    model = CamClassifier(backbone, stride=stride, n_subcategories=38).train()
    # Tiles of a puzzle are smaller than the field.
    for side in (96, 64):
        heads = model.forward_heads(model.input(fields(2, side)))
        assert heads.maps.shape == (2, 19, side // stride, side // stride)
        assert heads.features.shape[1] == model.n_features
    (heads.maps.mean() + heads.subcategory_maps.mean()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.whole_table  # levit's kind in test_backbones.py
def test_a_transformer_of_another_size_says_that_fields_do_not_fit():
    model = CamClassifier("maxvit_rmlp_pico_rw_256")
    assert model.forward_maps(torch.zeros(1, 4, 256, 256)).shape == (1, 19, 8, 8)
    with pytest.raises(InputError, match="maxvit_rmlp_pico_rw_256 cannot look at fields of 320 x 320"):
        model(torch.zeros(1, 4, 320, 320))
