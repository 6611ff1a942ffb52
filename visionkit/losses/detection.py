"""Losses of dense detectors: how certain a class is, how good a box is, where an edge lies."""

from __future__ import annotations

import torch
from torch import Tensor
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
    logits = logits.float()
    wrong = (quality - logits.sigmoid()).abs()
    return wrong**beta * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")


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
