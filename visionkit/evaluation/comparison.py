"""Which of two models is better on the same pictures, and whether that is shown."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import UsageError
from visionkit.evaluation.folder import Evaluation
from visionkit.evaluation.intervals import Interval, expanded_percentile, mcnemar, wilson
from visionkit.evaluation.measures import Basis, bases, lower_is_better
from visionkit.evaluation.pairing import groups_of, place_of
from visionkit.evaluation.resampling import DRAWS, bootstrap_weights, resample_together

__all__ = [
    *("Comparison", "Difference", "Drawings", "McNemar", "OtherImage"),
    *("compare", "difference_interval", "draw_together", "main_of"),
]

Array = NDArray[Any]
LEAST_SHARE = 0.005
"""Share of wrong pixels by which two masks differ before their picture is told of."""


@dataclass(frozen=True)
class Difference:
    """How much a value of the second model lies above that of the first.

    Args:
        a: Value of the first one.
        b: Value of the second one.
        interval: Of b - a, over pictures; None where it cannot be said.
        basis: What it rests on.
        lower: Whether a lower value is the better one.
        sure: Whether a second test, where there is one, says that they differ, too.
    """

    a: float
    b: float
    interval: Interval | None
    basis: Basis
    lower: bool = False
    sure: bool = True

    @property
    def gain(self) -> float:
        """How much better the second one is; below 0 where it is worse."""
        return self.a - self.b if self.lower else self.b - self.a

    @property
    def shown(self) -> bool:
        """Whether it is shown that they differ: the interval does not hold 0, and rests on enough."""
        excludes = self.interval is not None and (self.interval.low > 0 or self.interval.high < 0)
        return excludes and self.sure and self.basis.few is None

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        low, high = (None, None) if self.interval is None else (self.interval.low, self.interval.high)
        return {
            "a": self.a, "b": self.b, "difference": self.b - self.a, "low": low, "high": high, "shown": self.shown,
            "lower_is_better": self.lower, "n": self.basis.n, "unit": self.basis.unit, "few": self.basis.few,
        }  # fmt: skip


class McNemar(NamedTuple):
    """McNemar's exact test of top-1.

    Args:
        first: Pictures that the first model alone gets right.
        second: Those that the second one alone gets right.
        p: How likely two equal models are to differ so much.
    """

    first: int
    second: int
    p: float


class OtherImage(NamedTuple):
    """A picture on which the two differ.

    Args:
        image: Its path, as the first evaluation gives it.
        a: How wrong the first one is: 1 or 0 for a class, numbers of boxes or labels, the share of pixels.
        b: How wrong the second one is.
    """

    image: str
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """The second model against the first.

    Args:
        main: Key of the value that counts most.
        differences: By key of the value.
        mcnemar: Of top-1, where the pictures are independent.
        better: Pictures on which the second one is better, the clearest first.
        worse: Pictures on which it is worse.
    """

    main: str
    differences: Mapping[str, Difference]
    mcnemar: McNemar | None
    better: Sequence[OtherImage]
    worse: Sequence[OtherImage]

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "main": self.main,
            "differences": {key: one.record() for key, one in self.differences.items()},
            "mcnemar": None if self.mcnemar is None else self.mcnemar._asdict(),
            "better": [one._asdict() for one in self.better],
            "worse": [one._asdict() for one in self.worse],
        }


class Drawings(NamedTuple):
    """Several evaluations over the same resamples.

    Args:
        evaluations: E of them.
        places: int64 [E, N], where the images of the first one stand in each.
        groups: The group of each image of the first one, N.
        values: Of each evaluation the values by key, those that it tells.
        drawn: Of each evaluation the values by key, float64 [draws].
    """

    evaluations: Sequence[Evaluation]
    places: Sequence[Array]
    groups: Sequence[Hashable]
    values: Sequence[Mapping[str, float]]
    drawn: Sequence[Mapping[str, Array]]


def draw_together(named: Sequence[tuple[str, Evaluation]], draws: int = DRAWS, seed: int = 0) -> Drawings:
    """Return the values of several evaluations over the same resamples of the pictures.

    Args:
        named: What each evaluation is called, and the evaluation; from 1 on.
        draws: Number of resamples.
        seed: The same one gives the same resamples.

    Raises:
        UsageError: They are of other tasks, classes, pictures, labels or settings; with the names.
    """
    first = named[0]
    places = [np.arange(len(first[1].images)), *(place_of(first, other) for other in named[1:])]
    groups = groups_of(named, places)
    evaluations = [evaluation for _, evaluation in named]
    drawings = [(e.metric.drawing(), place) for e, place in zip(evaluations, places, strict=True)]
    drawn = resample_together(drawings, bootstrap_weights(groups, draws, seed))
    values = []
    for evaluation, columns in zip(evaluations, drawn, strict=True):
        whole = evaluation.metric.redraw_weighted(np.ones(len(evaluation.images), np.int64))  # matched once already
        told = columns.keys() & evaluation.metrics.keys()  # evaluate leaves out what predictions cannot tell
        values.append({key: float(value) for key, value in whole.items() if key in told})
    return Drawings(evaluations, places, groups, values, drawn)


def compare(drawings: Drawings, first: int = 0, second: int = 1) -> Comparison:
    """Compare two of the evaluations.

    The interval of a difference is the expanded percentile one of the paired bootstrap: both models are judged on the
    same resamples, so that what is hard for both takes nothing from the comparison.

    Args:
        drawings: What :func:`draw_together` returned.
        first: Position of the one that is compared with.
        second: Position of the other.

    Raises:
        UsageError: They tell no number in common.
    """
    a, b = drawings.evaluations[first], drawings.evaluations[second]
    places = drawings.places[first], drawings.places[second]
    values = drawings.values[first], drawings.values[second]
    drawn = drawings.drawn[first], drawings.drawn[second]
    of_a = bases(a.metric, [drawings.groups[k] for k in np.argsort(places[0])])
    test = _mcnemar(a, b, places) if len(set(drawings.groups)) == len(drawings.groups) else None
    differences = {}
    for key in (key for key in values[0] if key in values[1]):
        basis = of_a.get(key, of_a[""])
        interval = difference_interval(drawn[1][key] - drawn[0][key], basis.units)
        sure = key != "top1" or test is None or test.p < 0.05
        differences[key] = Difference(values[0][key], values[1][key], interval, basis, lower_is_better(key), sure)
    better, worse = _other_images(a, b, places)
    return Comparison(main_of(differences, a.metric.monitor), differences, test, better, worse)


def main_of(keys: Iterable[str], monitor: str) -> str:
    """Return the key of the value that counts most: the monitor, or the first one where the monitor is not told.

    Args:
        keys: Of the values that are compared.
        monitor: The key that the metric names.

    Raises:
        UsageError: There are none.
    """
    told = list(keys)
    if not told:
        raise UsageError("these evaluations have no number in common; give two of the same kind of predictions")
    return monitor if monitor in told else told[0]


def difference_interval(draws: Array, units: int) -> Interval | None:
    """Return the interval of a difference, None where the draws do not say one.

    Args:
        draws: float64 [draws], the difference in each resample; nan where one has none.
        units: How many images or groups it rests on.
    """
    known = draws[~np.isnan(draws)]
    if units < 2 or 2 * len(known) < len(draws) or not len(known):
        return None
    if known[0] and not np.ptp(known):  # each picture differs as much: so might not the next one
        sure = 2 * wilson(units, units).low - 1  # that one of them goes the other way is not excluded
        one, other = float(known[0]) * sure, float(known[0])
        return Interval(min(one, other), max(one, other), "wilson")
    return expanded_percentile(known, units)


def _mcnemar(a: Evaluation, b: Evaluation, places: tuple[Array, Array]) -> McNemar | None:
    """Return the test of top-1, None of tasks that have none."""
    both = []
    for evaluation, place in zip((a, b), places, strict=True):
        counted = dict(evaluation.metric.counted()) if evaluation.task == "classification" else {}
        if "top1" not in counted or counted["top1"].hits is None:
            return None
        both.append(counted["top1"].hits[place] > 0)
    first, second = int((both[0] & ~both[1]).sum()), int((both[1] & ~both[0]).sum())
    return McNemar(first, second, mcnemar(first, second))


def _other_images(
    a: Evaluation, b: Evaluation, places: tuple[Array, Array]
) -> tuple[list[OtherImage], list[OtherImage]]:
    """Return the pictures on which the second one is better, and those on which it is worse."""
    faults = [e.metric.faults()[place] for e, place in zip((a, b), places, strict=True)]
    gain = faults[0] - faults[1]
    least = LEAST_SHARE if a.task == "segmentation" else 0.0
    order = np.argsort(-abs(gain), kind="stable")
    names = [a.images[k].id for k in places[0]]
    told = [[k for k in order.tolist() if sign * gain[k] > least] for sign in (1, -1)]
    better, worse = ([OtherImage(names[k], float(faults[0][k]), float(faults[1][k])) for k in some] for some in told)
    return better, worse
