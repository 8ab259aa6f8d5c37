"""The segmentation network: any encoder, any size, fields of three or four channels, no connection."""

import sys

import pytest
import timm
import torch

from hpa_kit.errors import InputError
from hpa_kit.models import SegmentationNet
from hpa_kit.models.backbones import Backbone


def fields(height, width, channels=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, channels, height, width), dtype=torch.uint8, generator=generator)


def whole(*values):
    """A row of which the others have another of its kind."""
    return pytest.param(*values, marks=pytest.mark.whole_table)


# One of each kind: residual, split attention, grouped, with names that timm joins by _, transformer whose
# first maps have stride 4, and an encoder that only segmentation_models_pytorch has.
ENCODERS = (
    "tu-resnet10t",
    *(whole(name) for name in ("resnet10t", "resnest14d", "resnext26ts", "efficientnet_lite0")),
    "convnext_atto",
    "mit_b0",
)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_encoder_gives_twenty_channels_of_the_fields_size(encoder):
    network = SegmentationNet(encoder).eval()
    with torch.no_grad():
        assert network(fields(64, 64)).shape == (2, 20, 64, 64)


@pytest.mark.parametrize("size", [(33, 47), (64, 100), (1, 40), (96, 31)])
def test_a_field_whose_sides_are_no_multiple_of_32_gets_maps_of_its_size(size):
    network = SegmentationNet("resnet10t").eval()
    with torch.no_grad():
        assert network(fields(*size)).shape == (2, 20, *size)


def test_padding_leaves_the_pixels_where_they_are():
    network = SegmentationNet("resnet10t", normalisation="fixed").eval()
    inner = fields(40, 64)
    padded = torch.nn.functional.pad(inner.float(), (0, 0, 12, 12), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(network(inner), network(padded)[:, :, 12:52], rtol=1e-4, atol=1e-5)


def test_a_network_of_three_channels_does_not_look_at_yellow():
    network = SegmentationNet("resnet10t", in_channels=3).eval()
    one = fields(32, 32)
    other = one.clone()
    other[:, 3] = 0
    with torch.no_grad():
        assert torch.equal(network(one), network(other))
        assert torch.equal(network(one), network(one[:, :3]))


def test_a_dimmer_field_shows_the_same_by_its_own_normalisation_and_less_by_the_fixed():
    dim = fields(32, 32).float()
    with torch.no_grad():
        for normalisation, same in (("field", True), ("fixed", False)):
            torch.manual_seed(0)
            network = SegmentationNet("resnet10t", normalisation=normalisation).eval()
            change = (network(dim) - network(dim / 2)).abs().max()
            assert (change < 0.1) == same


def test_the_maps_of_the_classes_are_the_first_nineteen_channels():
    network = SegmentationNet("resnet10t").eval()
    with torch.no_grad():
        assert torch.equal(network.forward_maps(fields(32, 32)), network(fields(32, 32))[:, :19])


@pytest.mark.parametrize("encoder", ["resnet10t", whole("efficientnet_lite0"), "convnext_atto"])
def test_local_weights_of_the_encoder_are_taken_and_blue_stands_in_for_yellow(encoder, tmp_path):
    torch.manual_seed(1)
    published = timm.create_model(encoder, pretrained=False)
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    state = SegmentationNet(encoder, pretrained=tmp_path / "weights.pth").network.encoder.state_dict()
    stem = published.pretrained_cfg["first_conv"]
    filters = published.state_dict()[f"{stem}.weight"]
    found = state[f"model.{stem.replace('stem.0', 'stem_0')}.weight"]
    assert torch.equal(found[:, :3], filters)
    assert torch.equal(found[:, 3], filters[:, 2])


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match="does not fit the backbone"):
        SegmentationNet("resnet10t", pretrained=tmp_path / "weights.pth")
    with pytest.raises(InputError, match="is missing"):
        SegmentationNet("resnet10t", pretrained=tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("encoder", "said"),
    [("resnet81", "did you mean"), ("vit_tiny_patch16_224", "U-Net"), ("a/b", "is a place")],
)
def test_an_encoder_that_cannot_be_had_is_named(encoder, said):
    with pytest.raises(InputError, match=said):
        SegmentationNet(encoder)


def test_without_the_library_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(InputError, match="install segmentation-models-pytorch"):
        SegmentationNet("resnet10t")


@pytest.mark.parametrize(
    ("stride", "stride_by"),
    [
        (8, "cut"),
        whole(16, "cut"),
        (8, "dilate"),
        whole(16, "dilate"),
        whole(8, "both"),
        (16, "both"),
        whole(32, "dilate"),
    ],
)
def test_the_encoder_of_any_stride_is_the_backbone_of_a_classifier(stride, stride_by):
    network = SegmentationNet("resnet10t", stride=stride, stride_by=stride_by).eval()
    backbone = Backbone("resnet10t", stride=stride, stride_by=stride_by).eval()
    weights = {key.removeprefix("maps.network."): value for key, value in backbone.state_dict().items()}
    encoder = network.network.encoder
    wanted = {key.removeprefix("model."): key for key in encoder.state_dict()}
    found = {wanted[key.replace(".", "_") if key not in wanted else key]: weights[key] for key in weights}
    encoder.load_state_dict(found)
    x = torch.rand(1, 4, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(x)[-1], backbone(x))
        assert network(fields(64, 96)).shape == (2, 20, 64, 96)


def test_a_stride_that_an_encoder_cannot_have_is_told():
    with pytest.raises(InputError, match="resnet10t has stride 16 without its last stage"):
        SegmentationNet("resnet10t", stride=32, stride_by="both")
    with pytest.raises(InputError, match="ghostnet_050 cannot be the encoder of a U-Net: only output_stride"):
        SegmentationNet("ghostnet_050", stride=8, stride_by="dilate")


def test_untrained_every_class_is_unlikely_and_no_cell_is_open():
    network = SegmentationNet("resnet10t").eval()
    with torch.no_grad():
        seen = network(fields(64, 64)).sigmoid().mean(dim=(0, 2, 3))
    assert 0.01 < float(seen[:19].mean()) < 0.12
    assert 0.3 < float(seen[19]) < 0.7


@pytest.mark.whole_table  # levit's kind in test_backbones.py
def test_an_encoder_of_one_side_is_made_for_the_size_and_refuses_others():
    network = SegmentationNet("efficientformerv2_s0", size=100).eval()
    with torch.no_grad():
        assert network(fields(100, 100)).shape == (2, 20, 100, 100)
    with pytest.raises(InputError, match=r"cannot look at fields of 200 x 200; the nearest sides .*: 112 \("):
        network(fields(200, 200))
    with pytest.raises(InputError, match=r"efficientformerv2_s0 cannot be the encoder of a U-Net: \S+"):
        SegmentationNet("efficientformerv2_s0")
