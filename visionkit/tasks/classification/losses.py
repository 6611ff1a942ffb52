"""Losses of classification as pure functions, computed in float32 whatever the autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "binary_cross_entropy",
    "binary_divergence",
    "focal_loss",
    "soft_cross_entropy",
    "softmax_divergence",
]

TINY = 1e-12  # keeps a division and the slope of a power finite


def soft_cross_entropy(
    logits: Tensor, scores: Tensor, *, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy of one label an image, whose truth may be a blend of classes.

    For one-hot scores it equals ``torch.nn.functional.cross_entropy(logits, labels, weight, label_smoothing=...)``: the
    mean is weighted, so the sum is divided by the weights of the true classes, not by B.

    Args:
        logits: Float [B, K].
        scores: Float [B, K], each row sums to 1.
        weights: Float [K], weight of each class, or None for equal weights.
        label_smoothing: Part of the truth that is spread evenly over all classes, 0..1 (Szegedy et al., CVPR 2016).
    """
    return _softmax_loss(logits, scores, 0.0, weights, label_smoothing)


def binary_cross_entropy(
    logits: Tensor, scores: Tensor, *, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean binary cross-entropy over all images and classes, each class a yes/no question.

    Args:
        logits: Float [B, K].
        scores: Float [B, K] in 0..1.
        weights: Float [K], weight of the "yes" term of each class (torch's ``pos_weight``), or None for 1.
        label_smoothing: How far the truth moves from 0 and 1 towards 1/2, 0..1.
    """
    truth = _smooth(scores.float(), label_smoothing, 2)
    pos_weight = None if weights is None else weights.float()
    return F.binary_cross_entropy_with_logits(logits.float(), truth, pos_weight=pos_weight)


def focal_loss(
    logits: Tensor,
    scores: Tensor,
    *,
    multilabel: bool,
    gamma: float = 2.0,
    alpha: float | None = None,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the focal loss: cross-entropy times (1 - p)^gamma, so that easy examples count less.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equations 4 and 5. With several labels a sigmoid a
    class and the mean over B x K; with one label the softmax and the mean over B (weighted as in
    :func:`soft_cross_entropy`, which it equals for gamma = 0).

    Args:
        logits: Float [B, K].
        scores: Float [B, K]; multi-hot for several labels, rows that sum to 1 for one.
        multilabel: Whether several classes can be present at once.
        gamma: How strongly easy examples are turned down, >= 0; 0 is plain cross-entropy.
        alpha: Weight of "yes" against 1 - alpha of "no", 0..1, or None for 1 both; for several labels.
        weights: Float [K], weight of each class ("yes" terms only for several labels), or None for equal weights.
        label_smoothing: As in :func:`binary_cross_entropy` or :func:`soft_cross_entropy`, 0..1.

    Raises:
        ValueError: ``alpha`` with one label, where class weights take its place.
    """
    if not multilabel:
        if alpha is not None:
            raise ValueError("alpha weighs yes against no: with one label use weights")
        return _softmax_loss(logits, scores, gamma, weights, label_smoothing)
    x = logits.float()
    truth = _smooth(scores.float(), label_smoothing, 2)
    yes, no = x.sigmoid(), (-x).sigmoid()  # [B, K] each; 1 - yes would lose the digits of a small "no"
    positive = -F.logsigmoid(x) * no.clamp_min(TINY) ** gamma * truth
    negative = -F.logsigmoid(-x) * yes.clamp_min(TINY) ** gamma * (1 - truth)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    if weights is not None:
        positive = weights.float() * positive
    return (positive + negative).mean()


def softmax_divergence(logits: Tensor, truth: Tensor, *, temperature: float) -> Tensor:
    """Return how far softened probabilities are from a teacher's, 0 where they are equal.

    The Kullback-Leibler divergence from the truth, times the square of the temperature, so that its slope keeps its
    size (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.1).

    Args:
        logits: Float [B, K]; they are divided by the temperature here.
        truth: Float [B, K], the teacher's probabilities at the same temperature; each row sums to 1.
        temperature: > 0.

    Returns:
        float32 [B].
    """
    log_p = F.log_softmax(logits.float() / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, truth.float(), reduction="none").sum(1)


def binary_divergence(logits: Tensor, truth: Tensor, *, temperature: float) -> Tensor:
    """Return the same as :func:`softmax_divergence` of yes/no questions, the mean over the classes.

    Args:
        logits: Float [B, K]; they are divided by the temperature here.
        truth: Float [B, K] in 0..1, the teacher's probabilities at the same temperature.
        temperature: > 0.

    Returns:
        float32 [B].
    """
    x, p = logits.float() / temperature, truth.float()
    entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))
    cross = F.binary_cross_entropy_with_logits(x, p, reduction="none")
    return temperature**2 * (cross - entropy).mean(1)


def _softmax_loss(
    logits: Tensor, scores: Tensor, gamma: float, weights: Tensor | None, label_smoothing: float
) -> Tensor:
    log_p = F.log_softmax(logits.float(), dim=1)  # [B, K]
    terms = -log_p
    if gamma:
        terms = terms * (-log_p.expm1()).clamp_min(TINY) ** gamma  # -expm1(log p) is 1 - p
    truth = scores.float()
    loss = _smooth(truth, label_smoothing, logits.shape[1]) * terms
    if weights is None:
        return loss.sum() / truth.sum().clamp_min(TINY)
    return (loss * weights.float()).sum() / (truth * weights.float()).sum().clamp_min(TINY)


def _smooth(truth: Tensor, amount: float, outcomes: int) -> Tensor:
    return truth * (1 - amount) + amount / outcomes if amount else truth
