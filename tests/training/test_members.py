"""Every kind of network is built, saved, read back, and may start another run."""

import pytest
import torch

from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.models import ArcFaceNet, CamClassifier, SegmentationNet
from hpa_kit.training import load_member
from hpa_kit.training.checkpoint import write_checkpoint
from hpa_kit.training.member import build_network

TINY = "test_resnet"


def fields(n=2, channels=4):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, 64, 64), dtype=torch.uint8, generator=draw)


@pytest.fixture
def settings(tmp_path):
    def make(**changes):
        base = {"data": tmp_path, "out": tmp_path / "run", "backbone": TINY, "stride": 16, "size": 64}
        return TrainSettings(**{**base, **changes})

    return make


@pytest.fixture
def saved(tmp_path, settings):
    """Saves a network of settings as a checkpoint; gives path, settings and network."""

    def save(name, n_subcategories=0, **changes):
        torch.manual_seed(len(name))
        made = settings(**changes)
        model = build_network(made, n_subcategories).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
        path = tmp_path / f"{name}.safetensors"
        write_checkpoint(path, made, {"model": model.state_dict(), "epoch": 1})
        return path, made, model

    return save


@pytest.mark.parametrize(
    ("network", "kind", "changes"),
    [
        ("cam", CamClassifier, {"in_channels": 3, "contrast": "fixed"}),
        ("arcface", ArcFaceNet, {"arcface_centres": 2, "arcface_scale": 12.0}),
        ("unet", SegmentationNet, {"pseudo_labels": "labels"}),
    ],
)
def test_each_kind_of_network_comes_back_as_it_was(saved, network, kind, changes):
    path, made, model = saved(network, network=network, **changes)
    member = load_member(path)
    assert type(member.model) is kind and member.settings == made and not member.model.training
    with torch.inference_mode():
        assert torch.equal(member.model(fields()), model(fields()))
    assert member.model.in_channels == made.in_channels


def test_a_member_of_round_one_needs_its_table_no_more(saved):
    path, _, model = saved("one", 57, round=1, subcategories="gone.csv")
    member = load_member(path).model
    with torch.inference_mode():
        one, other = (network.forward_heads(network.input(fields())) for network in (member, model))
        assert torch.equal(one.subcategory_maps, other.subcategory_maps)
        assert torch.equal(member(fields()), model(fields()))


def test_a_checkpoint_that_knows_nothing_of_networks_is_a_classifier(tmp_path, saved, settings):
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    path, _, model = saved("old")
    known = ("data", "out", "backbone", "stride", "size", "in_channels", "augmentation", "epochs")
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {key: file.get_tensor(key) for key in list(file.keys())}
    before = {name: value for name, value in json.loads(metadata["settings"]).items() if name in known}
    save_file(tensors, path, metadata | {"settings": json.dumps(before)})
    member = load_member(path)
    assert member.settings.network == "cam" and member.settings.sc_cam.round == 0
    with torch.inference_mode():
        assert torch.equal(member.model(fields()), model(fields()))


def test_a_network_that_cannot_be_used_is_refused_by_its_kind(saved):
    path, _, _ = saved("angles", network="arcface")
    with pytest.raises(
        InputError, match=r"angles.* is a network arcface, which has no maps.* expected cam or unet"
    ):
        load_member(path, networks=("cam", "unet"))
    assert load_member(path, networks=("cam", "arcface")).settings.network == "arcface"


def same(model, other, prefix=""):
    left, right = model.state_dict(), other.state_dict()
    return all(torch.equal(left[key], right[key]) for key in left if key.startswith(prefix))


def test_round_one_starts_with_the_backbone_and_the_parents_of_round_zero(saved, settings):
    path, _, zero = saved("zero")
    model = build_network(settings(round=1, subcategories="t.csv", warm_start=path), 190)
    assert same(zero, model)
    assert model.subcategory_head.weight.std() > 0


def test_clusters_of_another_round_are_not_taken_over_and_those_of_the_same_are(saved, settings):
    path, _, one = saved("one", 190, round=1, subcategories="t.csv")
    again = build_network(settings(round=1, subcategories="t.csv", warm_start=path), 190)
    assert same(one, again)
    two = build_network(settings(round=2, subcategories="u.csv", warm_start=path), 190)
    assert same(one, two, "backbone.") and same(one, two, "head.")
    assert not same(one, two, "subcategory_head.")
    fewer = build_network(settings(round=1, subcategories="u.csv", warm_start=path), 95)
    assert fewer.subcategory_head.out_channels == 95 and same(one, fewer, "head.")
    assert same(build_network(settings(warm_start=path)), one, "head.")


def test_angles_hand_on_their_backbone_only(saved, settings):
    path, _, angles = saved("angles", network="arcface")
    model = build_network(settings(warm_start=path))
    assert same(angles, model, "backbone.") and isinstance(model, CamClassifier)


def test_stage_two_starts_with_the_backbone_of_a_classifier_as_far_as_that_goes(saved, settings):
    path, _, zero = saved("zero")  # test_resnet at stride 16: its last stage is left out
    stage2 = settings(network="unet", pseudo_labels="labels")
    torch.manual_seed(0)
    fresh = build_network(stage2).state_dict()
    torch.manual_seed(0)
    started = build_network(stage2.model_copy(update={"warm_start": path})).state_dict()
    learnt = {key for key in started if not torch.equal(started[key], fresh[key])}
    weights = zero.state_dict()
    assert learnt
    for key in learnt:
        plain = key.removeprefix("network.encoder.model.")
        of_stage = (
            plain.replace("layer1_", "layer1.").replace("layer2_", "layer2.").replace("layer3_", "layer3.")
        )
        assert torch.equal(started[key], weights[f"backbone.maps.network.{of_stage}"])
    assert any("layer3" in key for key in learnt)
    assert not any("layer4" in key or "decoder" in key for key in learnt)


def test_a_start_that_does_not_fit_is_named(saved, settings, tmp_path):
    path, _, _ = saved("zero")
    with pytest.raises(InputError, match=r"zero.* reads 4 channels; expected 3"):
        build_network(settings(warm_start=path, in_channels=3))
    with pytest.raises(InputError, match=r"zero.* does not fit backbone resnet18 at stride 16: backbone"):
        build_network(settings(warm_start=path, backbone="resnet18"))
    with pytest.raises(InputError, match=r"zero.* network cam, which has no weights for unet"):
        build_network(
            settings(warm_start=path, network="unet", pseudo_labels="labels", backbone="convnext_atto")
        )
    with pytest.raises(InputError, match=r"gone.* is missing"):
        build_network(settings(warm_start=tmp_path / "gone.safetensors"))
    # A warm start brings the backbone, so a file of pretrained weights is not looked for.
    build_network(settings(warm_start=path, pretrained=tmp_path / "gone.pth"))
