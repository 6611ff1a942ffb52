"""Losses of dense detectors: how certain a class is, how good a box is, where an edge lies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["distribution_focal_loss", "focal_loss", "quality_focal_loss"]


def focal_loss(logits: Tensor, truth: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the focal loss of each number (Lin et al., "Focal Loss for Dense Detection", ICCV 2017, equation 5).

    Args:
        logits: float [...], before the sigmoid.
        truth: float [...], 0 or 1.
        alpha: Weight of the positives, 0..1; the negatives have one minus it.
        gamma: How strongly what is right already is weighed down, >= 0.

    Returns:
        float32 [...].
    """
    logits = logits.float()
    probability = logits.sigmoid()
    wrong = probability + truth - 2 * probability * truth  # 1 - p for positives, p for negatives
    weight = alpha * truth + (1 - alpha) * (1 - truth)
    return weight * wrong**gamma * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")


def quality_focal_loss(logits: Tensor, quality: Tensor, *, beta: float = 2.0) -> Tensor:
    """Return the quality focal loss of each number (Li et al., "Generalized Focal Loss", NeurIPS 2020, equation 5).

    Args:
        logits: float [...], before the sigmoid.
        quality: float [...], 0..1: how good the box there is, 0 for background.
        beta: How strongly what is right already is weighed down, >= 0.

    Returns:
        float32 [...].
    """
    loss: Tensor = _QualityFocalLoss.apply(logits.float(), quality, beta)
    return loss


def distribution_focal_loss(logits: Tensor, distance: Tensor) -> Tensor:
    """Return the cross-entropy of an edge with the two bins around it (Generalized Focal Loss, equation 6).

    Args:
        logits: float [..., bins], before the softmax.
        distance: float [...], in bins; clamped to 0..bins-1.

    Returns:
        float32 [...].
    """
    bins = logits.shape[-1]
    distance = distance.clamp(0, bins - 1 - 1e-3)
    lower = distance.floor()
    share = distance - lower  # of the bin above
    chances = F.log_softmax(logits.float(), -1)
    index = lower.long()[..., None]
    below, above = chances.gather(-1, index)[..., 0], chances.gather(-1, index + 1)[..., 0]
    return -torch.lerp(below, above, share)


class _QualityFocalLoss(torch.autograd.Function):
    """The loss with its slope written down: a third of the passes over what are millions of numbers."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, quality: Tensor, beta: float) -> Tensor:
        """Return the loss of each number; the slope over the logits is what it leaves behind.

        With w = p - q, the cross-entropy H = max(x, 0) - x q + log(1 + exp(-|x|)) and dH/dx = w, it is
        ``|w|**beta * w + beta * |w|**(beta - 1) * sign(w) * p * (1 - p) * H``.
        """
        entropy = logits.abs().neg_().exp_().log1p_()  # several times faster than torch's own cross-entropy
        entropy.add_(logits.clamp(min=0)).addcmul_(logits, quality, value=-1)
        probability = logits.sigmoid()
        wrong = probability - quality
        weight = wrong.square() if beta == 2 else wrong.abs().pow_(beta)
        if ctx.needs_input_grad[0]:
            spread = probability.addcmul_(probability, probability, value=-1).mul_(entropy)
            spread *= wrong if beta == 2 else wrong.abs().pow_(beta - 1).mul_(wrong.sign())
            ctx.save_for_backward(spread.mul_(beta).addcmul_(weight, wrong))
        return weight.mul_(entropy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient over the logits."""
        return ctx.saved_tensors[0] * gradient, None, None
