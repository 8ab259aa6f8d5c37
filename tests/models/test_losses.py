"""The focal loss, by its formula and at the ends of half precision."""

import pytest
import torch

from hpa_kit.models import focal_loss


def test_it_is_cross_entropy_weighted_by_what_is_wrong_summed_over_classes():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 19, generator=draw, dtype=torch.float64).float()
    targets = (torch.rand(5, 19, generator=draw) < 0.2).float()
    p = torch.sigmoid(logits)
    p_true = torch.where(targets > 0, p, 1 - p)
    for gamma in (0.0, 2.0, 5.0):
        expected = (-torch.log(p_true) * (1 - p_true) ** gamma).sum() / 5
        torch.testing.assert_close(focal_loss(logits, targets, gamma), expected)


def test_a_logit_of_0_costs_a_quarter_of_log_2_per_class():
    loss = focal_loss(torch.zeros(3, 4), torch.ones(3, 4))
    assert loss.item() == pytest.approx(4 * 0.25 * 0.693147, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_loss_and_gradient_stay_finite_for_extreme_logits(dtype):
    logits = torch.tensor([[100.0, -100.0, 0.0, 60000.0, -60000.0]] * 2, dtype=dtype, requires_grad=True)
    targets = torch.tensor([[0.0, 1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0, 1.0]])
    loss = focal_loss(logits, targets)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    # What is wrong beyond doubt pulls with the full slope of cross entropy, halved by the mean over two.
    torch.testing.assert_close(logits.grad[0, :2].float(), torch.tensor([0.5, -0.5]))


def test_targets_may_be_any_kind_of_number():
    targets = torch.eye(3, 19)
    expected = focal_loss(torch.ones(3, 19), targets)
    for dtype in (torch.bool, torch.uint8, torch.int64):
        assert focal_loss(torch.ones(3, 19), targets.to(dtype)) == expected


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="must both be"):
        focal_loss(torch.zeros(2, 19), torch.zeros(2, 18))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduction", ["classes", "mean"])
def test_ten_thousand_is_finite_in_half_precision_for_all_classes_at_once(dtype, reduction):
    logits = torch.cat([torch.full((8, 190), 1e4), torch.full((8, 190), -1e4)]).to(dtype).requires_grad_()
    targets = (torch.arange(190) % 2).expand(16, 190)
    loss = focal_loss(logits, targets, reduction=reduction)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    # Half of the logits are wrong by 10,000 (as far as the precision holds it), the rest cost nothing.
    expected = logits.abs().float().max().item() / 2 * (190 if reduction == "classes" else 1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_certain_answer_has_a_finite_gradient_for_every_gamma(gamma):
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([[1, 0]]), gamma).backward()
    assert torch.equal(logits.grad, torch.zeros(1, 2))


def test_segmentation_averages_over_everything():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 20, 5, 7, generator=draw)
    targets = (torch.rand(2, 20, 5, 7, generator=draw) < 0.3).to(torch.uint8)
    each = focal_loss(logits, targets)
    torch.testing.assert_close(focal_loss(logits, targets, reduction="mean"), each / 20)
    flat = focal_loss(logits.movedim(1, -1).reshape(-1, 20), targets.movedim(1, -1).reshape(-1, 20))
    torch.testing.assert_close(each, flat)
    with pytest.raises(ValueError, match="reduction 'sum'"):
        focal_loss(logits, targets, reduction="sum")
