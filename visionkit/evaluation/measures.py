"""Each number of a metric with its interval, and with a word where it rests on too little."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.evaluation.intervals import Interval, expanded_percentile, wilson
from visionkit.evaluation.measured import Measured
from visionkit.evaluation.resampling import DRAWS, bootstrap_weights, group_numbers, resample
from visionkit.training.redraw import Counted, RedrawnMetric

__all__ = ["Basis", "Measured", "bases", "lower_is_better", "measure", "share_interval"]

Array = NDArray[Any]
RARE = 0.25
"""Share of rare classes from which on a mean over classes says "too few"."""
_PLURAL = re.compile(r"s\b")
FEWEST, FEWEST_OF_A_CLASS = 50, 10
"""Images or groups, and objects of a class (or images or groups that hold any), below which it says "too few"."""
FEWEST_PAIRED = 30
"""Images or groups below which a difference of two models on the same ones does."""


class Basis(NamedTuple):
    """What a number rests on.

    Args:
        n: How many things.
        unit: What they are, in the plural.
        units: How many images or groups hold them: only these are independent of each other.
        few: Why it says little; None where there is enough.
    """

    n: int
    unit: str
    units: int
    few: str | None


def measure(
    metric: RedrawnMetric[Any, Any], groups: Sequence[Hashable] | None = None, draws: int = DRAWS, seed: int = 0
) -> dict[str, Measured]:
    """Return the values of a metric that have no dimensions, each with its 95 % interval.

    Shares of counted things (top-1, recall, ...) have Wilson's interval, widened where several of the things lie in one
    image or group; all others the expanded percentile interval of a bootstrap over images, or over groups.

    Args:
        metric: Holds what each of N images adds.
        groups: The group of each image, N; each image its own where there are none.
        draws: Number of resamples.
        seed: The same one gives the same intervals.

    Raises:
        UsageError: The metric does not hold one image for each group.
    """
    groups = range(metric.images) if groups is None else groups
    if len(groups) != metric.images:
        raise UsageError(f"{len(groups)} groups of {metric.images} images: one for each")
    if not metric.images:
        return {}
    values = {key: float(value) for key, value in metric.compute().items() if _is_scalar(key, value)}
    drawn = resample(metric, bootstrap_weights(groups, draws, seed))
    number = group_numbers(groups)
    counted = {key: (_basis(c, number), None if c.hits is None else share_interval(c.hits, c.of, number))
               for key, c in metric.counted() if key in values}  # fmt: skip
    whole, rare = _whole(number), _rare_classes({key: basis.n for key, (basis, _) in counted.items()})
    measured = {}
    for key, value in values.items():
        basis, interval = counted.get(key, (whole, None))
        if interval is None and key in drawn:
            interval = _bootstrap(value, drawn[key], basis.units, is_share="errors/" not in key)
        few = basis.few or next(
            (why for start, why in rare.items() if key == start or key.startswith(f"{start}_")), None
        )
        if few is None and interval is None and key not in drawn:  # such as the mean over no classes
            few = f"too few to say: 0 of what it is of in {_number(whole.units, whole.unit)}"
        measured[key] = Measured(value, interval, basis.n, basis.unit, few)
    return measured


def bases(metric: RedrawnMetric[Any, Any], groups: Sequence[Hashable]) -> dict[str, Basis]:
    """Return what each difference of two models rests on; "" stands for all that are not named.

    Args:
        metric: Holds what each of N images adds.
        groups: The group of each image, N.
    """
    number = group_numbers(groups)
    counted = {key: _basis(one, number, FEWEST_PAIRED) for key, one in metric.counted()}
    return {"": _whole(number, FEWEST_PAIRED), **counted}


def lower_is_better(key: str) -> bool:
    """Return whether a lower value of this key is the better one: calibration errors, numbers of errors."""
    return key.rpartition("/")[2] == "ece" or "errors/" in key


def share_interval(hits: Array, of: Array, group: Array) -> Interval:
    """Return Wilson's interval of the share of hits among things of which several lie in an image or group.

    Things of one group are alike, so they say less than as many that are independent: Wilson's interval is that of the
    effective number, n divided by the design effect, with the quantile of t for few groups (Korn and Graubard,
    "Confidence Intervals for Proportions with Small Expected Number of Positive Counts Estimated from Survey Data",
    Survey Methodology 1998). Where each group holds one thing it is Wilson's own.

    Args:
        hits: int64 [N], in each image.
        of: int64 [N], how many things each image has.
        group: int64 [N], number of its group, from 0 on.
    """
    from scipy.special import ndtri, stdtrit

    sums = np.bincount(group, hits), np.bincount(group, of)
    there = sums[1] > 0
    right, total = (s[there] for s in sums)  # [G]
    n, count = int(total.sum()), len(total)
    if count == n:
        return wilson(int(right.sum()), n)
    share = right.sum() / n
    if count < 2 or share in (0.0, 1.0):
        effective = float(count)  # nothing is known of how alike they are: each group counts once
    else:
        spread = ((right - share * total) ** 2).sum() * count / (count - 1) / n**2  # variance of the share
        effective = min(float(n), share * (1 - share) / spread) if spread > 0 else float(n)
        effective *= float(ndtri(0.975) / stdtrit(count - 1, 0.975)) ** 2
    effective = max(float(effective), 1.0)
    return wilson(float(share) * effective, effective)


def _bootstrap(value: float, draws: Array, units: int, *, is_share: bool) -> Interval | None:
    """Return the interval of a value, None where the draws do not say one."""
    known = draws[~np.isnan(draws)]
    if units < 2 or 2 * len(known) < len(draws) or not math.isfinite(value):
        return None
    if np.ptp(known) > 0:
        return expanded_percentile(known, units)
    if is_share and value in (0.0, 1.0):  # right, or wrong, throughout: another picture might be otherwise
        return wilson(units if value else 0, units)
    return None


def _whole(number: Array, fewest: int = FEWEST) -> Basis:
    units = int(number.max()) + 1
    unit = "images" if units == len(number) else "groups"
    return Basis(units, unit, units, _few(units, unit, fewest))


def _basis(counted: Counted, number: Array, fewest: int = FEWEST) -> Basis:
    whole = _whole(number, fewest)
    n = int(counted.of.sum())
    if counted.unit == "images":
        return whole
    units = int((np.bincount(number, counted.of) > 0).sum())
    few = whole.few or _few(n, counted.unit, FEWEST_OF_A_CLASS)
    if few is None and units < FEWEST_OF_A_CLASS:  # what lies in one picture is alike
        few = f"too few to say: {_number(n, counted.unit)} in {_number(units, whole.unit)}"
    return Basis(n, counted.unit, units, few)


def _few(n: int, unit: str, fewest: int) -> str | None:
    return None if n >= fewest else f"too few to say: {_number(n, unit)}"


def _number(n: int, unit: str) -> str:
    return f"{n} {unit if n != 1 else _PLURAL.sub('', unit, count=1)}"


def _rare_classes(numbers: Mapping[str, int]) -> dict[str, str]:
    """Return why means of average precision say little, by how their keys begin: too many classes are rare.

    The average precision of a few objects is too high on average, and more so in each resample: where it makes up much
    of a mean, the interval holds the true value far too seldom (three times of four, simulated).

    Args:
        numbers: Of each value that is of a class, the objects of the class.
    """
    classes: dict[str, list[int]] = {}
    for key, n in numbers.items():
        start, found, _ = key.partition("ap/")
        if found and (not start or start.endswith(("/", "mask_"))):
            classes.setdefault(f"{start}map", []).append(n)
    few = {start: sum(n < FEWEST_OF_A_CLASS for n in some) for start, some in classes.items()}
    return {
        start: f"too few to say: {few[start]} of {len(some)} classes have under {FEWEST_OF_A_CLASS} objects"
        for start, some in classes.items()
        if few[start] > RARE * len(some)
    }


def _is_scalar(key: str, value: Tensor) -> bool:
    """Return whether a value is one number; torchmetrics makes one of the table of a single class, too."""
    return value.numel() == 1 and not key.endswith("confusion_matrix")
