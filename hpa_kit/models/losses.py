"""The losses that labels are learned with: sums over classes, finite in half precision."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Reduction = Literal["classes", "mean"]
FOCAL_GAMMA = 2.0  # the paper's
# A power below 1 has an infinite slope at 0.
_TINY = torch.finfo(torch.float32).tiny


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float = FOCAL_GAMMA,
    reduction: Reduction = "classes",
    soft: bool = False,
) -> Tensor:
    """Focal loss of multi-label logits: BCE × (1 − p_t)^γ.

    Computed in float32 whatever the logits are, from the logarithm of p_t, so logits at the ends of half
    precision have a finite loss and gradient.

    Args:
        logits: float (B, classes, ...): of images, or of pixels (B, classes, H, W).
        targets: of the same shape, any dtype: zeros and ones or, where they are ``soft``, anything between.
        gamma: how strongly what is already right is left aside; 0 is plain BCE.
        reduction: ``classes`` sums over classes and averages over images (and pixels), for classifiers;
            ``mean`` averages over everything, for segmentation.
        soft: take |target − p| for 1 − p_t, which it is at 0 and 1: the quality focal loss of Li et al.,
            Generalized Focal Loss (2020).

    Returns:
        float32 scalar.

    Raises:
        ValueError: the shapes differ, or there is no axis of classes.

    Source: Lin et al., Focal Loss for Dense Object Detection (2017), without its class weights; the two
    reductions are those that the learning rates of the 15th-place solution hang on.
    """
    if logits.shape != targets.shape or logits.ndim < 2:
        found = f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}"
        raise ValueError(f"focal_loss: {found} must both be (B, classes, ...)")
    if reduction not in ("classes", "mean"):
        raise ValueError(f"focal_loss: reduction {reduction!r} is not classes or mean")
    logits = logits.float()
    targets = targets.to(logits.dtype)
    bce = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t as the sigmoid of the other side: it keeps its digits near 0, where 1 - exp(-bce) loses them.
    wrong = (targets - logits.sigmoid()).abs() if soft else torch.sigmoid(logits * (1 - 2 * targets))
    if 0 < gamma < 1:
        wrong = wrong.clamp_min(_TINY)
    losses = bce * wrong**gamma
    return losses.sum(dim=1).mean() if reduction == "classes" else losses.mean()


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of multi-label logits (B, classes), summed over classes, averaged over images.

    Returns:
        float32 scalar.
    """
    return focal_loss(logits, targets, gamma=0)


def ce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits (B, classes) against the shown classes, each with the same share of one.

    Args:
        logits: float (B, classes).
        targets: (B, classes) of zeros and ones; a row without any class costs nothing.

    Returns:
        float32 scalar, averaged over images.
    """
    targets = targets.float()
    shares = targets / targets.sum(dim=1, keepdim=True).clamp_min(1)
    return -(shares * functional.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
