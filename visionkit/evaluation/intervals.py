"""Intervals that hold the true value nineteen times of twenty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import UsageError

__all__ = ["Interval", "expanded_percentile", "mcnemar", "welch_interval", "wilson"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Interval:
    """Two ends, the lower one first.

    Args:
        low: The lower end.
        high: The upper end.
        method: "wilson", "bootstrap" or "t".
    """

    low: float
    high: float
    method: str


def wilson(hits: float, n: float, level: float = 0.95) -> Interval:
    """Return the score interval of a share.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927. It covers about
    ``level`` on average over the true share, a little more or less at each.

    Args:
        hits: How many of them came true, 0..n; parts of one where n is an effective number.
        n: How many there are; of none the share may be anything.
        level: How often the interval holds the true share, 0..1.

    Raises:
        UsageError: A number is out of range.
    """
    from scipy.special import ndtri

    _check(hits, n, level)
    if not n:
        return Interval(0.0, 1.0, "wilson")
    z = float(ndtri(0.5 + level / 2))
    share, shrink = hits / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(low if hits else 0.0, high if hits < n else 1.0, "wilson")


def expanded_percentile(draws: Array, n: int, level: float = 0.95) -> Interval:
    """Return the interval of a value from its bootstrap draws: their percentiles, moved out for small n.

    Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015, section 3.4: the share
    of each tail is Φ(-sqrt(n / (n - 1)) t), with t of n - 1 degrees of freedom.

    Args:
        draws: float64 [B], the value in each resample; nan where a resample has none, which is left out.
        n: How many independent things were resampled, from 2 on.
        level: How often the interval holds the true value, 0..1.

    Raises:
        UsageError: A number is out of range, or no draw has a value.
    """
    from scipy.special import ndtr, stdtrit

    known = np.asarray(draws, np.float64)
    known = known[~np.isnan(known)]
    if n < 2 or not len(known) or not 0 < level < 1:
        raise UsageError(f"an interval at level {level} of {len(known)} draws over {n} things: from 2 things on")
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.5 + level / 2)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(low), float(high), "bootstrap")


def welch_interval(a: Array, b: Array, level: float = 0.95) -> Interval:
    """Return the interval of how much the mean of ``b`` lies above that of ``a``, independent values of any spread.

    Welch, "The Generalization of Student's Problem When Several Different Population Variances Are Involved",
    Biometrika 1947.

    Args:
        a: float64 [N], from 2 on.
        b: float64 [M], from 2 on.
        level: How often the interval holds the true difference, 0..1.

    Raises:
        UsageError: A number is out of range.
    """
    from scipy.special import stdtrit

    both = [np.asarray(v, np.float64) for v in (a, b)]
    if min(map(len, both)) < 2 or not 0 < level < 1:
        raise UsageError(f"an interval at level {level} of {len(both[0])} and {len(both[1])} values: from 2 values on")
    parts = [v.var(ddof=1) / len(v) for v in both]
    middle, spread = float(both[1].mean() - both[0].mean()), float(sum(parts))
    if not spread:
        return Interval(middle, middle, "t")
    freedom = spread**2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, both, strict=True))
    half = float(stdtrit(freedom, 0.5 + level / 2)) * math.sqrt(spread)
    return Interval(middle - half, middle + half, "t")


def mcnemar(first: int, second: int) -> float:
    """Return how likely two equal models are to differ so much: McNemar's exact test, both sides, 0..1.

    McNemar, "Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages", Psychometrika
    1947, with the binomial distribution in place of its approximation.

    Args:
        first: Pictures that the first model alone gets right, from 0 on.
        second: Those that the second one alone gets right.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(first, second), first + second, 0.5)))


def _check(hits: float, n: float, level: float) -> None:
    if not 0 <= hits <= n or not 0 < level < 1:
        raise UsageError(f"{hits} of {n} at level {level}: 0 to n hits, and a level between 0 and 1")
