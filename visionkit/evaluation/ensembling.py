"""What several models gain as one: each model's own numbers beside theirs, and the gain with its interval."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionkit.core.prediction import Prediction
from visionkit.evaluation.intervals import expanded_percentile
from visionkit.evaluation.model_weights import FittedWeights, fit_weights
from visionkit.evaluation.resampling import DRAWS, bootstrap_weights, resample
from visionkit.prediction.ensemble import Ensemble
from visionkit.training.redraw import RedrawnMetric

__all__ = ["FittedWeights", "Gain", "MembersJudged", "fit_weights", "mean_gain", "not_fitted"]

Array = NDArray[Any]
Metric: TypeAlias = RedrawnMetric[Any, Any]


@dataclass(frozen=True)
class Gain:
    """How much higher one number is than another on the same images.

    Args:
        value: Over all images.
        low: Lower end of the interval of 95 %; None where there are too few images for one.
        high: Its upper end.
    """

    value: float
    low: float | None
    high: float | None

    def record(self) -> dict[str, float | None]:
        """Return it as plain values."""
        return {"value": self.value, "low": self.low, "high": self.high}


class MembersJudged:
    """Measures each model of an ensemble on the images that the ensemble is measured on.

    Args:
        ensemble: The models.
        make_metric: Makes a metric over the ensemble's classes.
    """

    def __init__(self, ensemble: Ensemble, make_metric: Callable[[], Metric]) -> None:
        self.ensemble = ensemble
        self.metrics = [make_metric() for _ in ensemble.names]

    def update(self, parts: Sequence[Prediction], target: Any) -> None:
        """Add what each model says of an image.

        Args:
            parts: As ``Ensemble.each`` gave them.
            target: The truth in pixels of the original, with class ids of the ensemble.
        """
        for model, (part, metric) in enumerate(zip(parts, self.metrics, strict=True)):
            metric.update([self.ensemble.alone(model, part)], [target])

    def entry(
        self,
        whole: Metric,
        fitted: FittedWeights | None,
        groups: Sequence[Hashable],
        *,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Return what an evaluation keeps of it, as plain values.

        Args:
            whole: The ensemble's metric over the same images, in the same order.
            fitted: Weights that were fitted on other images; None where they were not.
            groups: Of each image, what it belongs to; see ``bootstrap_weights``.
            draws: Resamples of the intervals.
            seed: Of the draws.
        """
        key, ensemble = whole.monitor, self.ensemble
        found = [scalars(metric) for metric in self.metrics]
        values = [one.get(key, 0.0) for one in found]
        best = int(np.argmax(values))
        own, *theirs = _drawn((whole, *self.metrics), key, groups, draws, seed)
        gains = [_gain(own, side, len(set(groups))) for side in (theirs, [theirs[best]])]
        weights = ensemble.weights if fitted is None else fitted.weights
        names = ensemble.names
        return {
            "weights": list(weights),
            "fitted": fitted is not None and fitted.fitted,
            "reason": None if fitted is None else fitted.reason,
            "measured_with": list(ensemble.weights),
            "monitor": key,
            "members": [
                {"name": name, "value": value, "metrics": own}
                for name, value, own in zip(names, values, found, strict=True)
            ],
            "gain_over_mean": gains[0].record(),
            "gain_over_best": {**gains[1].record(), "best": names[best]},
            "cost": ensemble.cost(),
        }


def not_fitted(ensemble: Ensemble, why: str) -> FittedWeights:
    """Return the weights that an ensemble has, with the reason why no others are fitted."""
    return FittedWeights(ensemble.weights, False, why)


def mean_gain(
    first: Metric,
    others: Sequence[Metric],
    groups: Sequence[Hashable],
    *,
    key: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Gain:
    """Return how much higher a number of one metric is than the mean of that of others over the same images.

    Whole groups are drawn, the same ones for all (paired bootstrap).

    Args:
        first: A metric.
        others: One or more, with the same images in the same order.
        groups: Of each image, what it belongs to.
        key: Of the number; None takes the one that says which checkpoint is the best.
        draws: Resamples of the interval.
        seed: Of the draws.
    """
    name = first.monitor if key is None else key
    own, *theirs = _drawn((first, *others), name, groups, draws, seed)
    return _gain(own, theirs, len(set(groups)))


def scalars(metric: Metric) -> dict[str, float]:
    """Return the numbers of a metric."""
    return {key: float(value) for key, value in metric.compute().items() if value.ndim == 0}


def _drawn(
    metrics: Sequence[Metric], key: str, groups: Sequence[Hashable], draws: int, seed: int
) -> list[tuple[float, Array | None]]:
    """Return a number of each metric, and its values in the same resamples; None where it has none in them."""
    weights = list(bootstrap_weights(groups, draws, seed)) if len(set(groups)) > 1 else []
    return [(scalars(m).get(key, 0.0), resample(m, weights).get(key) if weights else None) for m in metrics]


def _gain(own: tuple[float, Array | None], theirs: Sequence[tuple[float, Array | None]], n: int) -> Gain:
    """Return how much higher a number is than the mean of others, from their values in the same resamples of n."""
    value = own[0] - float(np.mean([one for one, _ in theirs]))
    drawn = [array for _, array in (own, *theirs) if array is not None]
    if len(drawn) <= len(theirs):
        return Gain(value, None, None)
    interval = expanded_percentile(drawn[0] - np.mean(drawn[1:], 0), n)
    return Gain(value, interval.low, interval.high)
