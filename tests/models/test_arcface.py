"""Angles to sub-centres, and the margin that makes them harder."""

import math

import pytest
import torch

from hpa_kit.models import ArcFaceNet, add_margin, bce_loss, ce_loss

TINY = "test_resnet"


def fields(n=3, side=64):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 4, side, side), dtype=torch.uint8, generator=draw)


def test_a_logit_is_the_scaled_cosine_to_the_nearest_sub_centre():
    torch.manual_seed(0)
    model = ArcFaceNet(TINY, stride=8, n_centres=3, scale=30).eval()
    with torch.inference_mode():
        embedding, logits = model.forward_embedding(fields()), model(fields())
    assert embedding.shape == (3, 512) and logits.shape == (3, 19) and logits.dtype == torch.float32
    for row in range(3):
        for index in range(19):
            angles = [
                torch.cosine_similarity(embedding[row], centre, dim=0) for centre in model.centres[index]
            ]
            assert logits[row, index].item() == pytest.approx(30 * max(angles).item(), abs=1e-4)


def test_it_gives_feature_maps_and_no_maps_of_classes():
    model = ArcFaceNet(TINY, stride=16, in_channels=3).eval()
    assert model.forward_features(fields()).shape == (3, model.n_features, 4, 4)
    assert not hasattr(model, "forward_maps")


@pytest.mark.parametrize("margin", [0.0, 0.3, 0.5])
def test_the_margin_is_added_to_the_angles_of_shown_classes_only(margin):
    angles = torch.linspace(0.05, math.pi - margin - 0.05, 19)
    targets = (torch.arange(19) % 2).float()[None]
    moved = add_margin(angles.cos()[None], targets, margin)
    expected = torch.where(targets > 0, (angles + margin).cos(), angles.cos())
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_beyond_pi_less_the_margin_it_goes_on_falling():
    angles = torch.linspace(0, math.pi, 500)
    moved = add_margin(angles.cos()[:, None], torch.ones(500, 1), 0.5)[:, 0]
    assert (moved.diff() < 1e-6).all()
    assert moved[-1].item() == pytest.approx(-1 - 0.5 * math.sin(0.5), abs=1e-5)


def test_cosines_of_one_have_a_finite_gradient():
    cosines = torch.tensor([[1.0, -1.0, 1.0, -1.0]], requires_grad=True)
    add_margin(cosines, torch.tensor([[1, 1, 0, 0]]), 0.5).sum().backward()
    assert torch.isfinite(cosines.grad).all()


def test_every_weight_learns_and_half_precision_is_finite():
    model = ArcFaceNet(TINY, stride=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cosines = model.forward_cosines(fields())
    assert cosines.dtype == torch.float32
    bce_loss(30 * add_margin(cosines, torch.ones(3, 19), 0.5), torch.ones(3, 19)).backward()
    bad = [n for n, w in model.named_parameters() if w.grad is None or not torch.isfinite(w.grad).all()]
    assert bad == []


def test_a_single_field_is_learnt_by_the_statistics_there_are():
    torch.manual_seed(0)
    model = ArcFaceNet(TINY, stride=8).train()
    model.norm.running_mean.normal_()
    before = model.norm.running_mean.clone()
    embedding = model.forward_embedding(fields(1))
    embedding.sum().backward()
    assert torch.equal(model.norm.running_mean, before) and model.embed.weight.grad is not None
    assert not torch.equal(model.forward_embedding(fields(2))[:1], embedding)
    assert not torch.equal(model.norm.running_mean, before)


def test_cross_entropy_shares_one_among_the_shown_classes():
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    targets = torch.tensor([[1, 0, 1], [0, 1, 0]])
    logs = logits.log_softmax(1)
    expected = -(logs[0, 0] / 2 + logs[0, 2] / 2 + logs[1, 1]) / 2
    torch.testing.assert_close(ce_loss(logits, targets), expected)
    assert ce_loss(logits, torch.zeros(2, 3)) == 0
