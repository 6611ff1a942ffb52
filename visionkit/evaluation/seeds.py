"""Several runs of one recipe against several of another: what pictures and what seeds leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visionkit.evaluation.comparison import Difference, Drawings, difference_interval
from visionkit.evaluation.intervals import Interval, welch_interval
from visionkit.evaluation.measures import bases, lower_is_better

__all__ = ["SeedDifference", "compare_seeds"]


@dataclass(frozen=True)
class SeedDifference:
    """How much the mean of some runs lies above that of others.

    Args:
        a: Value of each run of the first recipe.
        b: Value of each run of the second one.
        pictures: The difference of the means, with its interval over pictures: other pictures, these very runs.
        seeds: Its interval over runs: other runs, these very pictures; None where a recipe has one run.
    """

    a: Sequence[float]
    b: Sequence[float]
    pictures: Difference
    seeds: Interval | None

    @property
    def shown(self) -> bool:
        """Whether both intervals say that the recipes differ, to the same side."""
        over = self.pictures.interval
        if self.seeds is None or over is None or not self.pictures.shown:
            return False
        return self.seeds.low > 0 if over.low > 0 else self.seeds.high < 0

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        seeds = None if self.seeds is None else {"low": self.seeds.low, "high": self.seeds.high}
        told = {**self.pictures.record(), "runs_of_a": list(self.a), "runs_of_b": list(self.b)}
        return {**told, "over_seeds": seeds, "shown": self.shown}


def compare_seeds(drawings: Drawings, first: Sequence[int], second: Sequence[int]) -> dict[str, SeedDifference]:
    """Compare two sets of runs, by key of the value.

    An interval over pictures alone does not hold what another seed would have given, and one over seeds not what other
    pictures would have: both are told.

    Args:
        drawings: All evaluations over the same resamples.
        first: Positions of the runs that are compared with.
        second: Positions of the others.
    """
    a = drawings.evaluations[first[0]]
    of_a = bases(a.metric, [drawings.groups[k] for k in np.argsort(drawings.places[first[0]])])
    found = {}
    for key in drawings.values[first[0]]:
        if not all(key in drawings.values[k] for k in (*first, *second)):
            continue
        ours, theirs = ([drawings.values[k][key] for k in some] for some in (first, second))
        drawn = [np.mean([drawings.drawn[k][key] for k in some], 0) for some in (first, second)]
        basis = of_a.get(key, of_a[""])
        interval = difference_interval(drawn[1] - drawn[0], basis.units)
        pictures = Difference(float(np.mean(ours)), float(np.mean(theirs)), interval, basis, lower_is_better(key))
        over = welch_interval(np.array(ours), np.array(theirs)) if min(len(ours), len(theirs)) > 1 else None
        found[key] = SeedDifference(ours, theirs, pictures, over)
    return found
