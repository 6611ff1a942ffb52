"""The bootstrap: what numbers would have been on other pictures of the same kind."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import UsageError
from visionkit.training.redraw import RedrawnMetric

__all__ = ["DRAWS", "bootstrap_weights", "group_numbers", "resample", "resample_together"]

Array = NDArray[Any]
DRAWS = 1000
"""Resamples that an interval is read from."""


def group_numbers(groups: Sequence[Hashable]) -> Array:
    """Return the number of each image's group, int64 [N], 0 on in the order in which groups are first met."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(group, len(known)) for group in groups], np.int64)


def bootstrap_weights(groups: Sequence[Hashable], draws: int = DRAWS, seed: int = 0) -> Iterator[Array]:
    """Yield how often each image counts in a resample, int64 [N]; whole groups are drawn, with replacement.

    Args:
        groups: The group of each image: frames of a video are no independent pictures. One of its own where it is.
        draws: Number of resamples, from 1 on.
        seed: The same one gives the same resamples.

    Raises:
        UsageError: There are no images.
    """
    number = group_numbers(groups)
    if not len(number):
        raise UsageError("there are no images to draw from")
    count = int(number.max()) + 1
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.bincount(rng.integers(0, count, count), minlength=count)[number]


def resample(metric: RedrawnMetric[Any, Any], weights: Iterable[Array]) -> dict[str, Array]:
    """Return the values without dimensions in each resample, float64 [draws]; nan where one has no such value.

    Args:
        metric: Holds what each image adds.
        weights: How often each image counts, int64 [N], once for each resample.

    Raises:
        UsageError: The weights are none of these images.
    """
    return resample_together([(metric.drawing(), slice(None))], weights)[0]


def resample_together(
    drawings: Sequence[tuple[Callable[[Array], dict[str, float]], Any]], weights: Iterable[Array]
) -> list[dict[str, Array]]:
    """Return for several metrics the values in the same resamples, float64 [draws] each; nan where one has none.

    Args:
        drawings: For each metric what ``drawing()`` returned, and where its images stand: position k of the weights is
            that of its own image ``place[k]``.
        weights: How often each image counts, int64 [N], once for each resample.
    """
    found: list[dict[str, array[float]]] = [{} for _ in drawings]
    number = 0
    for weight in weights:
        for columns, (draw, place) in zip(found, drawings, strict=True):
            own = np.empty_like(weight)
            own[place] = weight
            for key, value in draw(own).items():
                column = columns.setdefault(key, array("d"))
                column.extend([math.nan] * (number - len(column)))
                column.append(value)
        number += 1
    return [{key: _filled(column, number) for key, column in columns.items()} for columns in found]


def _filled(column: array[float], length: int) -> Array:
    """Return a column, nan where its end is missing, float64 [length]."""
    column.extend([math.nan] * (length - len(column)))
    return np.array(column, np.float64)
