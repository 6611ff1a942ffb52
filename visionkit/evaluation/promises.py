"""Promises of a share that hold 19 times of 20, whichever of many thresholds they are made at.

A share read off a curve breaks its promise every other time, since the curve is followed to where it happens to be
high. Here thresholds are tried in an order that does not depend on what is right, each by an exact one-sided bound, up
to the first that fails (fixed-sequence testing, as in Angelopoulos et al., "Learn then Test", 2021, section 2.3).

Answers of one picture are alike: where one is wrong, so are others. They count as fewer than they are, by the design
effect 1 + r (m - 1) of m answers a picture that agree by r (Kish, "Survey Sampling", 1965), in the bound of Korn and
Graubard, "Confidence Intervals for Proportions with Small Expected Number of Positive Counts", 1998.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["alikeness", "could_be", "design_effects", "lower_bounds", "needed"]

Array = NDArray[Any]

WINDOW = 15  # answers on each side that say how often one of such a score is right, at least


def lower_bounds(hits: Array, n: Array, effect: Array | float, level: float) -> Array:
    """Return what each share is not below with certainty ``level``: Clopper and Pearson's bound on one side.

    Args:
        hits: [T], how many are right.
        n: [T], of how many, from 1 on.
        effect: [T] or one number, by how many times they are fewer than that, from 1 on.
        level: 0..1.
    """
    from scipy.special import betaincinv

    right, all_ = np.asarray(hits, np.float64) / effect, np.asarray(n, np.float64) / effect
    bounds: Array = np.where(right > 0, betaincinv(np.maximum(right, 1e-9), all_ - right + 1, 1 - level), 0.0)
    return bounds


def could_be(hits: float, n: float, effect: float, target: float, level: float) -> bool:
    """Return whether a share may be a target or more, at a certainty: whether its upper bound reaches it.

    Args:
        hits: How many are right.
        n: Of how many, from 1 on.
        effect: By how many times they are fewer than that.
        target: 0..1.
        level: 0..1.
    """
    from scipy.special import betaincinv

    return hits >= n or bool(betaincinv(hits / effect + 1, (n - hits) / effect, level) >= target)


def needed(share: float, target: float, level: float) -> float:
    """Return of how many independent things such a share has to be seen, so that the bound reaches a target.

    Args:
        share: 0..1.
        target: 0..1.
        level: 0..1.

    Returns:
        inf where the share is no higher than the target.
    """
    if share <= target:
        return math.inf
    low, high = 1.0, 1.0
    while lower_bounds(np.array([share * high]), np.array([high]), 1.0, level)[0] < target:
        low, high = high, high * 2
        if high > 1e9:
            return math.inf
    while high - low > 0.5:
        middle = (low + high) / 2
        reached = lower_bounds(np.array([share * middle]), np.array([middle]), 1.0, level)[0] >= target
        low, high = (low, middle) if reached else (middle, high)
    return high


def alikeness(right: Array, unit: Array, *, of_scores: bool = True) -> float:
    """Return how far answers of one unit agree beyond what their scores say, 0..1: their intraclass correlation.

    It is the mean product of two deviations from the share that is right among neighbours in score, and one standard
    error, since too small a number breaks promises. Where nothing is wrong, or nothing right, it cannot be seen, and
    is 1.

    Args:
        right: bool [N], by falling score.
        unit: int64 [N].
        of_scores: Whether how often one is right depends on its score.
    """
    n = len(right)
    _, place, count = np.unique(unit, return_inverse=True, return_counts=True)
    if n == 0 or count.max() == 1:
        return 0.0
    if right.all() or not right.any():
        return 1.0
    half = max(WINDOW, n // 20) if of_scores else n
    sums = np.concatenate([[0], np.cumsum(right, dtype=np.float64)])
    first, last = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    share = (sums[last] - sums[first] + 0.5) / (last - first + 1)
    deviation = (right - share) / np.sqrt(share * (1 - share))
    total, own = np.bincount(place, deviation), np.bincount(place, deviation**2)
    products, pairs = (total**2 - own) / 2, count * (count - 1) / 2
    mean = products.sum() / pairs.sum()
    error = math.sqrt(float(((products - mean * pairs) ** 2).sum())) / pairs.sum()
    return float(np.clip(mean + error, 0.0, 1.0))


def design_effects(right: Array, unit: Array, ends: Array, alike: float) -> Array:
    """Return by how many times the first answers are fewer than they are, from 1 on, for each number of them.

    It is the larger one of what their alikeness makes, and of how the share that is right varies between units.

    Args:
        right: bool [N].
        unit: int64 [N].
        ends: int64 [T], rising: the first so many are looked at.
        alike: 0..1.
    """
    _, place = np.unique(unit, return_inverse=True)
    counts, hits = np.zeros((2, place.max(initial=-1) + 1))
    effects, done = np.ones(len(ends)), 0
    for t, end in enumerate(ends.tolist()):
        counts += np.bincount(place[done:end], minlength=len(counts))
        hits += np.bincount(place[done:end], right[done:end], minlength=len(counts))
        done = end
        share = hits.sum() / max(end, 1)
        varied = 1.0
        if 0 < share < 1:
            varied = float(((hits - share * counts) ** 2).sum() / (end * share * (1 - share)))
        size = float((counts**2).sum()) / max(end, 1)  # of the unit that an answer is in, on average
        effects[t] = max(1.0, varied, 1 + alike * (size - 1))
    return effects
