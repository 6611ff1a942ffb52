"""What is true of a picture, in plain words and numbers, and how far a prediction of it is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from visionkit.core.errors import UsageError
from visionkit.data.labels.masks import IGNORE
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget
from visionkit.tasks.detection.types import BoxTarget
from visionkit.tasks.segmentation.types import MaskTarget

__all__ = ["margin_of", "truth_of"]


def truth_of(target: Any, names: Sequence[str], *, multilabel: bool = False) -> dict[str, Any]:
    """Return the truth of a picture as plain values, with names in place of class ids.

    Args:
        target: In pixels of the original.
        names: Class names, in the order of their ids.
        multilabel: Whether a picture has several labels.

    Returns:
        ``{"label": name}``, ``{"labels": [names]}``, ``{"objects": [{"label", "box", "crowd", "area"}]}`` with boxes
        xyxy in pixels, or ``{"pixels": {name: count}}`` without the pixels that are ignored.

    Raises:
        UsageError: It is the target of another task.
    """
    if isinstance(target, ClassTarget):
        true = target.names(names)
        return {"labels": true} if multilabel else {"label": true[0]}
    if isinstance(target, BoxTarget):
        columns = (target.labels, target.boxes, target.crowd, target.areas)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return {"objects": [{"label": names[k], "box": b, "crowd": crowd, "area": a} for k, b, crowd, a in rows]}
    if isinstance(target, MaskTarget):
        counts = torch.bincount(target.mask.flatten(), minlength=IGNORE)[:IGNORE].tolist()
        return {"pixels": {name: n for name, n in zip(names, counts, strict=False) if n}}
    raise UsageError(f"a {type(target).__name__} is no truth of the tasks that evaluate knows")


def margin_of(prediction: Any, target: Any) -> float | None:
    """Return by how much a classifier is right, -1..1: below 0 it is wrong, and the lower the more certain of it.

    Of one label it is the probability of the true class less that of the best other one. Of several it is the least
    distance of a class from its threshold, counted from the right side.

    Args:
        prediction: Of any task.
        target: Of the same picture.

    Returns:
        None of other tasks, whose pictures are judged by what the metric counts in them.
    """
    if not isinstance(prediction, ClassPrediction) or not isinstance(target, ClassTarget):
        return None
    found = prediction.probabilities.detach().float().cpu()
    true = target.scores.cpu() > 0.5
    if not bool(found.isfinite().all()):
        return -1.0
    if prediction.multilabel:
        own = prediction.thresholds
        least = torch.full_like(found, prediction.threshold) if own is None else own.detach().float().cpu()
        above = found - least.clamp_max(1.0)
        return float(torch.where(true, above, -above).min())
    others = found.masked_fill(true, -torch.inf)
    return float(found[true].max() - others.max()) if len(found) > 1 else 1.0
