"""What a dense detector learns from a teacher: the scores of each location, and its boxes where it is sure."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionkit.tasks.detection.heads.assign import Points

__all__ = ["SURE", "binary_divergence", "nearest_locations", "sure_of"]

SURE = 0.1
"""Score of a teacher from which on its box at a location is learnt."""


def sure_of(scores: Tensor) -> Tensor:
    """Return how sure a teacher is of an object at each location, 0 below :data:`SURE`; float [B, A].

    Args:
        scores: Float [B, A, S], 0..1.
    """
    best = scores.amax(-1)
    return torch.where(best >= SURE, best, 0.0)


def nearest_locations(points: Points, others: Points) -> Tensor | None:
    """Return, for each location, the nearest one of another detector on the level of the most similar cells.

    Args:
        points: A locations.
        others: A' locations of a detector of the same pictures, in the same pixels; the cells of a level are square
            and lie in rows.

    Returns:
        int64 [A]; None where both have the same locations.
    """
    if len(points.centres) == len(others.centres) and torch.equal(points.centres, others.centres):
        return None
    levels = others.strides.unique()
    found = torch.zeros(len(points.centres), dtype=torch.int64, device=points.centres.device)
    for stride in points.strides.unique():
        level = levels[(levels.log() - stride.log()).abs().argmin()]
        place = (others.strides == level).nonzero()[:, 0]
        grid = others.centres[place]  # [h * w, 2], row by row
        first = grid[0]
        columns = int((grid[:, 1] == first[1]).sum())
        step = torch.stack([_step(grid[:columns, 0], level), _step(grid[::columns, 1], level)])
        own = points.strides == stride
        last = torch.tensor([columns - 1, len(grid) // columns - 1], device=grid.device)
        cell = torch.minimum(((points.centres[own] - first) / step).round().long().clamp(min=0), last)  # column, row
        found[own] = place[cell[:, 1] * columns + cell[:, 0]]
    return found


def _step(values: Tensor, otherwise: Tensor) -> Tensor:
    """Return the distance between neighbours of a row of places."""
    return values[1] - values[0] if len(values) > 1 else otherwise


def binary_divergence(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the cross-entropy of each number with a teacher's, less what the teacher itself has: 0 where equal.

    Args:
        logits: Float [...], before the sigmoid.
        truth: Float [...], 0..1.
    """
    cross = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
    return cross + torch.xlogy(truth, truth) + torch.xlogy(1 - truth, 1 - truth)
