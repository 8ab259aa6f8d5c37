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
