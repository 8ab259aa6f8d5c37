"""Every family of timm: maps at their places, fields of sides that it takes, or a refusal in one line.

`make test` tries one of a kind, ``make test-all`` all quick ones; ``make backbones`` tries all and writes
docs/backbones.md.
"""

import os
from pathlib import Path

import pytest
import timm
import torch
from families import MEMBERS, family
from places import beside, wake

from hpa_kit.errors import InputError
from hpa_kit.models import CamClassifier
from hpa_kit.models.backbones import Backbone

EVERY = bool(os.environ.get("HPA_KIT_ALL_BACKBONES"))
QUICK = (
    "byobnet", "convnext", "cspnet", "deit", "densenet", "dla", "edgenext", "efficientnet",
    "efficientvit_mit", "inception_next", "levit", "mambaout", "nfnet", "resnest", "resnet",
    "vision_transformer", "vovnet",
)  # fmt: skip
# Rounding up, rounding down, of one side for life, of tokens, attention among convolutions; without maps.
ONE_OF_A_KIND = {"resnet", "convnext", "levit", "vision_transformer", "efficientvit_mit", "pit"}
WITHOUT_MAPS = {
    "coat", "convit", "convmixer", "crossvit", "csatv2", "inception_resnet_v2", "inception_v3",
    "inception_v4", "mlp_mixer", "naflexvit", "pit", "sequencer",
}  # fmt: skip
# How far chance moves the middle of a gradient, by random weights and as networks see more than small fields:
# apart from what it moves it by where no side is rounded.
CHANCE = 0.1


def whole(*values):
    """A row of which the others have another of its kind."""
    return pytest.param(*values, marks=pytest.mark.whole_table)


def rows(quick):
    """Families as parameters, of which `make test` takes one of a kind."""
    return [kind if kind in ONE_OF_A_KIND else whole(kind) for kind in quick]


def with_maps(name):
    """The backbone of the largest stride at which it gives maps."""
    torch.manual_seed(0)  # the same weights whatever ran before
    for stride in (32, 16, 8):
        try:
            return Backbone(name, stride)
        except InputError as error:
            fault = error
    raise fault


@pytest.mark.parametrize("kind", rows(sorted(MEMBERS.keys() - WITHOUT_MAPS) if EVERY else QUICK))
def test_a_family_learns_from_fields_of_any_side_by_maps_at_their_places(kind):
    backbone = with_maps(MEMBERS[kind]).eval()
    wake(backbone)
    stride = backbone.sides.stride
    unrounded = beside(backbone, backbone.sides.nearest(4 * stride))
    assert unrounded <= 0.5 + 4 * CHANCE
    # The most that rounding down can lose, and the most that rounding up can add.
    sides = {backbone.sides.nearest(4 * stride + more) for more in (-1, 1)}
    assert all(beside(backbone, side) <= max(0.5, unrounded) + CHANCE for side in sides)
    for side in sides:
        maps = backbone.train()(torch.randn(2, 4, side, side))
        n = backbone.sides.map_side(side)
        assert maps.shape == (2, backbone.n_features, n, n) and side // stride <= n <= -(-side // stride)
        maps.square().mean().backward()


@pytest.mark.parametrize("kind", rows(sorted(WITHOUT_MAPS) if EVERY else ["crossvit", "convmixer", "pit"]))
def test_a_family_without_maps_is_refused_in_one_line_that_says_why(kind, recwarn):
    skip_for_another_timm()
    with pytest.raises(InputError, match=rf"^backbone: {MEMBERS[kind]} (gives|has no stage) .+\w") as caught:
        with_maps(MEMBERS[kind])
    assert "\n" not in str(caught.value) and not recwarn.list


def skip_for_another_timm():
    kaggle = (Path(__file__).parents[2] / "constraints" / "kaggle.txt").read_text(encoding="utf-8")
    if f"timm=={timm.__version__}\n" not in kaggle:
        pytest.skip(f"families and their page are those of Kaggle's timm, not of {timm.__version__}")


def test_every_family_of_timm_is_tried():
    skip_for_another_timm()
    own = {name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("timm.")}
    assert {family(name) for name in own} == MEMBERS.keys()
    assert all(family(name) == kind for kind, name in MEMBERS.items())
    page = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
    assert all(f"\n| {kind} | {name} |" in page for kind, name in MEMBERS.items())
    refused = page.split("## Refused")[1]
    assert {kind for kind in MEMBERS if f"\n| {kind} |" in refused} == WITHOUT_MAPS


def test_a_network_that_rounds_down_misplaces_its_maps_where_fields_are_not_padded():
    backbone = Backbone("test_convnext").eval()
    wake(backbone)
    assert backbone.sides.padded(191) == 192 and beside(backbone.maps, 191) > 0.5 + CHANCE
    assert max(beside(backbone, 191), beside(backbone, 192)) < 0.5 - CHANCE


@pytest.mark.whole_table  # why CHANCE is what it is
def test_maps_are_seen_at_their_places_the_better_the_larger_the_field():
    """At 4 strides hardcorenas sees all of a field, whose border moves the middle by a quarter map pixel."""
    torch.manual_seed(0)
    backbone = Backbone("hardcorenas_b").eval()
    wake(backbone)
    assert beside(backbone, 4 * 32) > 0.5 + CHANCE > beside(backbone, 16 * 32)


@pytest.mark.parametrize(
    "name", ["resnet18", *(whole(name) for name in ("efficientnet_lite0", "regnetx_002"))]
)
@pytest.mark.parametrize("side", [89, 97, 127])
def test_maps_that_lie_at_their_places_are_the_networks_own(name, side):
    backbone, fields = Backbone(name).eval(), torch.randn(1, 4, side, side)
    with torch.inference_mode():
        assert torch.equal(backbone(fields), backbone.maps(fields))


@pytest.mark.parametrize("name", ["test_convnext", whole("densenet121")])
def test_at_multiples_of_the_stride_maps_are_the_networks_own(name):
    backbone, fields = Backbone(name).eval(), torch.randn(1, 4, 96, 96)
    with torch.inference_mode():
        assert torch.equal(backbone(fields), backbone.maps(fields))


@pytest.mark.parametrize(
    ("name", "stride", "size", "near"),
    [
        whole("swin_tiny_patch4_window7_224", 32, 250, "248 and 252"),
        ("test_vit", 16, 250, "240 and 256"),
        ("dla46x_c", 32, 250, "224 and 256"),
        whole("levit_128s", 32, 250, "224 and 256"),
    ],
)
def test_a_side_that_cannot_be_taken_is_refused_with_the_nearest_good_ones(name, stride, size, near):
    with pytest.raises(
        InputError, match=rf"{name} cannot look at fields of 250 x 250; .*takes: {near} \(.+\)"
    ):
        CamClassifier(name, stride, size=size)


def test_a_network_of_one_side_is_made_for_the_one_that_it_learns_from():
    made = CamClassifier("levit_128s", size=256).eval()
    with torch.inference_mode():
        assert made(torch.zeros(1, 4, 256, 256)).shape == (1, 19)
    with pytest.raises(InputError, match=r"takes: 252 \("):  # its grid is rounded up
        made(torch.zeros(1, 4, 224, 224))
    as_ever = CamClassifier("levit_128s", size=224)
    assert as_ever.state_dict().keys() == made.state_dict().keys()
    assert as_ever.sides.nearest(268) == 224 and made.sides.nearest(307) == 256


def test_sides_that_the_kit_derives_are_the_nearest_that_a_network_takes():
    assert Backbone("resnet18").sides.nearest(268) == 268
    assert Backbone("test_convnext").sides.nearest(268) == 268
    assert Backbone("test_vit", 16).sides.nearest(268) == 272
    assert Backbone("swin_tiny_patch4_window7_224").sides.nearest(313) == 312
    assert Backbone("dla46x_c").sides.nearest(614) == 608


def test_numbers_that_a_network_computes_places_from_are_tried_too():
    """mvitv2 looks positions up by numbers; too large ones are only found with numbers."""
    sides = Backbone("mvitv2_tiny", size=224).sides
    assert sides.takes(224) and not sides.takes(288) and sides.nearest(268) == 224


def test_a_network_is_built_without_a_word_of_torch_on_the_classifier_that_it_lacks(recwarn):
    Backbone("inception_next_atto")
    assert not recwarn.list


@pytest.mark.parametrize("name", ["dla46x_c", "efficientvit_b0"])  # without numbers, and with random ones
def test_finding_out_about_sides_draws_no_random_numbers(name):
    sides = Backbone(name).sides
    before = torch.get_rng_state()
    sides.nearest(301)
    assert torch.equal(torch.get_rng_state(), before)
