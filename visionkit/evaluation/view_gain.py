"""What several views of a picture gain over one, and what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionkit.evaluation.counting import Count
from visionkit.evaluation.intervals import expanded_percentile
from visionkit.evaluation.resampling import DRAWS, bootstrap_weights, resample_together

__all__ = ["gain_of_views"]


def gain_of_views(plain: Count, several: Count, views: str, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
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
    groups = [k if image.group is None else image.group for k, image in enumerate(several.images)]
    each = [(one.metric.drawing(), slice(None)) for one in (plain, several)]
    first, second = resample_together(each, bootstrap_weights(groups, draws, seed))
    told: dict[str, Any] = {}
    for key in (k for k, v in after.items() if v.ndim == 0 and "/" not in k and k in before):
        one = {"plain": float(before[key]), "several": float(after[key])}
        known = second[key] - first[key]
        sure = len(set(groups)) > 1 and not np.isnan(known).all()
        interval = expanded_percentile(known, len(set(groups))) if sure else None
        ends = (None, None) if interval is None else (interval.low, interval.high)
        told[key] = one | {"gain": one["several"] - one["plain"], "low": ends[0], "high": ends[1]}
    cost = several.seconds / plain.seconds if several.seconds and plain.seconds else None
    return {"views": views, "monitor": several.metric.monitor, "metrics": told, "cost": cost}
