"""What several views of a picture gain over one, and what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionkit.evaluation.counting import Count
from visionkit.evaluation.intervals import expanded_percentile
from visionkit.evaluation.resampling import bootstrap_weights

__all__ = ["gain_of_views"]


def gain_of_views(plain: Count, several: Count, views: str, *, draws: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Return the gain in each number over all classes, with the paired interval: both were counted on each draw.

    Args:
        plain: Each picture seen once, as a whole.
        several: The same pictures in the same order, seen in several views.
        views: What was asked for, in words.
        draws: Of the pictures, or of their groups.
        seed: Of the draws.

    Returns:
        "views", "monitor", the key of the number that counts, "metrics" with "plain", "several", "gain", "low" and
        "high" by key, and "cost", how many times the time of one view.
    """
    before, after = plain.metric.compute(), several.metric.compute()
    keys = [k for k, v in after.items() if v.ndim == 0 and "/" not in k and k in before]
    groups = [k if image.group is None else image.group for k, image in enumerate(several.images)]
    first, second = plain.metric.drawing(), several.metric.drawing()
    differences: dict[str, list[float]] = {k: [] for k in keys}
    for weight in bootstrap_weights(groups, draws, seed):
        one, two = first(weight), second(weight)
        for k in keys:
            differences[k].append(two.get(k, np.nan) - one.get(k, np.nan))
    told: dict[str, Any] = {}
    for k in keys:
        known = np.asarray(differences[k])
        sure = len(set(groups)) > 1 and not np.isnan(known).all()
        interval = expanded_percentile(known, len(set(groups))) if sure else None
        told[k] = {
            "plain": float(before[k]), "several": float(after[k]), "gain": float(after[k]) - float(before[k]),
            "low": None if interval is None else interval.low, "high": None if interval is None else interval.high,
        }  # fmt: skip
    cost = several.seconds / plain.seconds if several.seconds and plain.seconds else None
    return {"views": views, "monitor": several.metric.monitor, "metrics": told, "cost": cost}
