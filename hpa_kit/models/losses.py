"""The loss that image labels are learned with."""

import torch
from torch import Tensor
from torch.nn import functional


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss of multi-label logits: BCE × (1 − p_t)^γ, summed over classes, averaged over the batch.

    Computed in float32 whatever the logits are, from the logarithm of p_t, so logits of ±100 in half
    precision have a finite loss and gradient.

    Args:
        logits: float (B, classes).
        targets: (B, classes) of zeros and ones.
        gamma: how strongly what is already right is left aside; 0 is plain BCE.

    Returns:
        float32 scalar.

    Source: Lin et al., Focal Loss for Dense Object Detection (2017), without its class weights; summing over
    classes is what the learning rates of the 15th-place solution hang on.
    """
    if logits.shape != targets.shape or logits.ndim != 2:
        found = f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)}"
        raise ValueError(f"focal_loss: {found} must both be (B, classes)")
    logits = logits.float()
    targets = targets.to(logits.dtype)
    # 1 - p_t as the sigmoid of the other side: it keeps its digits near 0, where 1 - exp(-bce) loses them.
    bce = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = torch.sigmoid(logits * (1 - 2 * targets))
    return (bce * wrong**gamma).sum(dim=1).mean()
