"""Logistic regression on features that do not change: the best linear layer, found without steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Solved", "judge", "solve"]

STRENGTHS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Penalties of the squared weights of standardised features that are tried, strongest first."""
FOLDS = 4
TRIED_ITERATIONS, ITERATIONS = 30, 200  # of L-BFGS, while a penalty is looked for and in the end

Loss = Callable[[Tensor, Tensor], Tensor]


class Solved(NamedTuple):
    """A linear layer.

    Args:
        weight: float32 [K, C].
        bias: float32 [K].
    """

    weight: Tensor
    bias: Tensor


def solve(pooled: Tensor, scores: Tensor, loss: Loss) -> tuple[Solved, float]:
    """Return the linear layer of the lowest penalised loss, and the penalty, which cross-validation chooses.

    The same input gives the same layer: folds go by position within each class.

    Args:
        pooled: Float [N, C], a feature vector an image.
        scores: Float [N, K], the truth.
        loss: Mean loss of logits and scores, [N, K] each.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(pooled.device.type, enabled=False):
        pooled, scores = pooled.detach().float().clone(), scores.float().clone()
        mean, deviation = pooled.mean(0), pooled.std(0, correction=0).clamp(min=1e-6)
        x = (pooled - mean) / deviation
        strength, _ = _tried(x, scores, loss)
        weight, bias = _minimise(x, scores, loss, strength, ITERATIONS)
        scaled = weight / deviation[:, None]
        return Solved(scaled.T.contiguous(), bias - mean @ scaled), strength


def judge(pooled: Tensor, scores: Tensor, loss: Loss) -> float:
    """Return the share of answers that are right of layers solved on other images, at the best penalty, 0..1.

    An answer is the class of the highest score where each image has one, else each class of each image.

    Args:
        pooled: Float [N, C], a feature vector an image.
        scores: Float [N, K], the truth.
        loss: Mean loss of logits and scores, [N, K] each.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(pooled.device.type, enabled=False):
        pooled, scores = pooled.detach().float().clone(), scores.float().clone()
        x = (pooled - pooled.mean(0)) / pooled.std(0, correction=0).clamp(min=1e-6)
        _, logits = _tried(x, scores, loss)
        if bool((scores.sum(1) == 1).all()):
            right = logits.argmax(1) == scores.argmax(1)
        else:
            right = (logits > 0) == (scores > 0.5)
        return float(right.float().mean())


def _tried(x: Tensor, scores: Tensor, loss: Loss) -> tuple[float, Tensor]:
    """Return the penalty whose layers have the lowest loss on images that they were not solved on, and their logits."""
    folds = min(FOLDS, len(x))
    if folds < 2:
        return STRENGTHS[0], torch.zeros_like(scores)
    fold = torch.empty(len(x), dtype=torch.long)
    order = torch.sort(scores.argmax(1), stable=True).indices
    fold[order] = torch.arange(len(x)) % folds
    logits = torch.zeros(len(STRENGTHS), *scores.shape)
    for k in range(folds):
        left, right = fold != k, fold == k
        start: tuple[Tensor, Tensor] | None = None
        for i, strength in enumerate(STRENGTHS):
            start = _minimise(x[left], scores[left], loss, strength, TRIED_ITERATIONS, start)
            logits[i, right] = x[right] @ start[0] + start[1]
    with torch.no_grad():
        losses = [float(loss(found, scores)) for found in logits]
    best = min(range(len(STRENGTHS)), key=losses.__getitem__)
    return STRENGTHS[best], logits[best]


def _minimise(
    x: Tensor, scores: Tensor, loss: Loss, strength: float, iterations: int, start: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return weight [C, K] and bias [K] of the lowest penalised loss."""
    if start is None:
        start = (x.new_zeros(x.shape[1], scores.shape[1]), x.new_zeros(scores.shape[1]))
    weight, bias = (part.detach().clone().requires_grad_() for part in start)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(x @ weight + bias, scores) + strength / 2 * weight.square().sum() / scores.shape[1]
        value.backward()
        return value

    optimizer.step(closure)
    return weight.detach(), bias.detach()
