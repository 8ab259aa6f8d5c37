"""The network that looks at one cell at a time."""

import pytest
import torch
from families import MEMBERS
from test_backbones import QUICK, rows

from hpa_kit.classes import NEGATIVE
from hpa_kit.errors import InputError
from hpa_kit.models import CropNet

TINY = "test_resnet"


def net(**changes) -> CropNet:
    torch.manual_seed(0)
    return CropNet(TINY, 8, "both", **changes).eval()


@pytest.fixture
def crops():
    torch.manual_seed(1)
    pixels = torch.randint(0, 256, (3, 4, 48, 48), dtype=torch.uint8)
    masks = torch.zeros((3, 48, 48), dtype=torch.uint8)
    masks[:, 10:30, 12:40] = 1
    statistics = torch.rand((3, 2, 4)) * 100 + 20
    return pixels, masks, statistics


def test_negative_is_what_the_others_leave(crops) -> None:
    logits = net()(*crops)
    assert logits.shape == (3, 19)
    torch.testing.assert_close(logits[:, NEGATIVE], -logits[:, :NEGATIVE].amax(dim=1))


def test_a_crop_is_normalised_by_its_field_not_by_itself(crops) -> None:
    pixels, masks, statistics = crops
    seen = net(neighbours="kept").prepare(pixels, masks, statistics)
    mean, spread = statistics[:, 0, :, None, None], statistics[:, 1, :, None, None]
    torch.testing.assert_close(seen[:, :4], (pixels.float() - mean) / (spread + 4))
    # A dim cell stays dim beside a bright one of the same field.
    dim = net().prepare(pixels // 4, masks, statistics)
    assert dim[:, :4].amax() < net().prepare(pixels, masks, statistics)[:, :4].amax()


@pytest.mark.parametrize(("neighbours", "left"), [("kept", 1.0), ("faded", 0.3), ("zeroed", 0.0)])
def test_what_becomes_of_neighbours(crops, neighbours, left) -> None:
    masks = crops[1]
    kept = net(neighbours="kept").prepare(*crops)[:, :4]
    seen = net(neighbours=neighbours).prepare(*crops)[:, :4]
    outside = (masks == 0)[:, None].expand_as(seen)
    torch.testing.assert_close(seen[outside], kept[outside] * left)
    torch.testing.assert_close(seen[~outside], kept[~outside])


@pytest.mark.parametrize("in_channels", [3, 4])
def test_the_mask_is_one_more_channel_or_none(crops, in_channels) -> None:
    with_mask, without = (
        net(in_channels=in_channels, mask_channel=there).prepare(*crops) for there in (True, False)
    )
    assert with_mask.shape[1] == in_channels + 1 and without.shape[1] == in_channels
    torch.testing.assert_close(with_mask[:, in_channels], crops[1].float())
    torch.testing.assert_close(with_mask[:, :in_channels], without)


def test_fixed_normalisation_takes_no_statistics(crops) -> None:
    pixels, masks, statistics = crops
    network = net(normalisation="fixed")
    torch.testing.assert_close(network(pixels, masks, statistics), network(pixels, masks))


@pytest.mark.parametrize("kind", rows(QUICK))
def test_backbones_of_maps_look_at_crops(kind) -> None:
    name = MEMBERS[kind]
    for stride in (32, 16, 8):
        try:
            network = CropNet(name, stride, size=None)
            break
        except InputError:
            continue
    side = network.sides.nearest(4 * network.sides.stride)
    logits = network.train()(torch.randint(0, 256, (2, 4, side, side), dtype=torch.uint8))
    logits.sum().backward()
    assert logits.shape == (2, 19)


def test_pretrained_filters_of_a_mask_are_those_of_blue(tmp_path) -> None:
    import timm

    weights = timm.create_model(TINY, pretrained=False, num_classes=0).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    stem = net(pretrained=tmp_path / "w.pth").state_dict()["backbone.maps.network.conv1.0.weight"]
    three = weights["conv1.0.weight"]
    torch.testing.assert_close(stem, three[:, [0, 1, 2, 2, 2]])
