"""Where a model goes wrong: which class is taken for which and in which pictures, curves, the worst pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric
from visionkit.training.redraw import ImageCounts, RedrawnMetric

__all__ = ["MISSED", "NOTHING", "confusion_of", "precision_recall_of", "scores_of", "worst_first"]

Array = NDArray[Any]

NOTHING, MISSED = "(nothing there)", "(missed)"
"""The last row of a detector's confusion, of boxes where nothing is, and its last column, of objects without a box."""
MOST_IMAGES = 50
"""Pictures that are named of a cell of the confusion."""
MOST_CLASSES = 2_000
"""Classes of which the confusion is told: a table of more would be too large to be read."""
MOST_POINTS = 100
"""Points of a curve."""


def confusion_of(metric: RedrawnMetric[Any, Any], scores: Sequence[float]) -> dict[str, Any] | None:
    """Return which class is taken for which, and the pictures of each cell off the diagonal.

    Args:
        metric: Holds what each picture adds.
        scores: One a picture, see :func:`scores_of`: those of a cell with the most of it come first, among equals those
            with the lowest score.

    Returns:
        "names" and "columns" of rows (truth) and columns (prediction), "counts", and "images", positions of at most 50
        pictures by "row,column". None where a picture has several labels: there each class is a question of its own;
        and of more than 2,000 classes.
    """
    counts = _counts_of(metric) if len(metric.classes) <= MOST_CLASSES else None
    if counts is None:
        return None
    names = list(metric.classes)
    boxes = isinstance(metric, DetectionMetric)
    rows, columns = ([*names, NOTHING], [*names, MISSED]) if boxes else (names, names)
    cells = len(rows) * len(columns)
    image, cell, number = _summed(counts, cells)
    table = np.bincount(cell, number, minlength=cells).astype(np.int64).reshape(len(rows), len(columns))
    wrong = cell // len(columns) != cell % len(columns)
    image, cell, number = image[wrong], cell[wrong], number[wrong]
    order = np.lexsort((image, np.asarray(scores)[image], -number, cell))
    found: dict[str, list[int]] = {}
    for k in order.tolist():
        place = found.setdefault(f"{cell[k] // len(columns)},{cell[k] % len(columns)}", [])
        if len(place) < MOST_IMAGES:
            place.append(int(image[k]))
    return {"names": rows, "columns": columns, "counts": table.tolist(), "images": found}


def scores_of(metric: RedrawnMetric[Any, Any], margins: Sequence[float | None]) -> list[float]:
    """Return how right the predictions of each picture are, the higher the better.

    Of classes it is the margin; of boxes and objects with masks F1 of the picture alone, at the metric's threshold; of
    pixels the mean IoU over the classes that the picture shows or is said to show. 1 where there is nothing to find and
    nothing was found.

    Args:
        metric: Holds what each picture adds.
        margins: What :func:`visionkit.evaluation.truth.margin_of` said of each.
    """
    counts = None if isinstance(metric, ClassificationMetric) else _counts_of(metric)
    if counts is None:
        return [0.0 if m is None else m for m in margins]
    k = len(metric.classes)
    if isinstance(metric, DetectionMetric):
        image, cell, number = _summed(counts, (k + 1) ** 2)
        row, column = cell // (k + 1), cell % (k + 1)
        hits, truth, found = (
            np.bincount(image[which], number[which], minlength=metric.images)
            for which in ((row == column) & (row < k), row < k, column < k)
        )
        both = truth + found
        score: Array = np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0)
    else:
        image, cell, number = _summed(counts, k * k)
        row, column = cell // k, cell % k
        hits, truth, found = (
            np.bincount(image[which] * k + of[which], number[which], minlength=metric.images * k).reshape(-1, k)
            for which, of in ((row == column, row), (row >= 0, row), (row >= 0, column))
        )
        union = truth + found - hits
        shown = (union > 0).sum(1)
        score = np.where(shown > 0, (hits / np.maximum(union, 1)).sum(1) / np.maximum(shown, 1), 1.0)
    return [float(s) for s in score]


def worst_first(scores: Sequence[float]) -> list[int]:
    """Return the positions of pictures, that of the lowest score first."""
    return [int(k) for k in np.argsort(np.asarray(scores), kind="stable")]


def precision_recall_of(metric: RedrawnMetric[Any, Any]) -> dict[str, list[list[float]]]:
    """Return how precision and recall of each class go with its threshold.

    Of boxes that is at IoU 0.5 (of masks, where these are compared), of several labels for each class; one label and
    pixels have none.

    Args:
        metric: Holds what each picture adds.

    Returns:
        Points ``[recall, precision, threshold]`` by class, from the highest threshold on; at most 100 each, and none of
        classes that do not occur.
    """
    ready = _ready_of(metric)
    if ready is None:
        return {}
    found: dict[str, list[list[float]]] = {}
    if isinstance(metric, DetectionMetric):
        matches = ready.masks if ready.masks is not None else ready.boxes
        objects = np.bincount(matches.truth_labels[matches.truth_inside[0]], minlength=len(metric.classes))
        hit, right = (matches.hits & np.uint64(1)) > 0, (matches.right & np.uint64(1)) > 0
        counted = right | ~hit  # what matches an object that does not count is neither right nor wrong
        for k, name in enumerate(metric.classes):
            own = counted & (matches.labels == k)
            if objects[k]:
                found[name] = _points(matches.scores[own], right[own], int(objects[k]))
    elif isinstance(metric, ClassificationMetric) and metric.multilabel:
        probabilities, answers, _ = metric.join(metric._parts)
        truth = (answers & 1).bool()
        for k, name in enumerate(metric.classes):
            if truth[:, k].any():
                order = torch.argsort(probabilities[:, k], descending=True, stable=True)
                column, hits = probabilities[order, k].numpy(), truth[order, k].numpy()
                found[name] = _points(column, hits, int(hits.sum()))
    return found


def _points(scores: Array, hits: Array, objects: int) -> list[list[float]]:
    """Return recall, precision and threshold where the score falls, of what is sorted by falling score."""
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], np.ones(min(1, len(scores)), bool)))
    last = last[np.isfinite(scores[last])]
    if len(last) > MOST_POINTS:
        last = last[np.unique(np.linspace(0, len(last) - 1, MOST_POINTS).round().astype(np.int64))]
    right = hits.cumsum()[last]
    rows = zip((right / objects).tolist(), (right / (last + 1)).tolist(), scores[last].tolist(), strict=True)
    return [[round(float(v), 6) for v in row] for row in rows]


def _ready_of(metric: RedrawnMetric[Any, Any]) -> Any:
    """Return what values are computed from, made once."""
    metric._ready = metric._ready or metric.gather()
    return metric._ready[1]


def _counts_of(metric: RedrawnMetric[Any, Any]) -> ImageCounts | None:
    """Return what each picture adds to the cells of the confusion; None where there is none."""
    ready = _ready_of(metric)
    if ready is None or (isinstance(metric, ClassificationMetric) and metric.multilabel):
        return None
    if isinstance(metric, DetectionMetric):
        counts = ready.errors
    else:
        counts = ready if isinstance(metric, SegmentationMetric) else ready.counts
    return counts if isinstance(counts, ImageCounts) else None


def _summed(counts: ImageCounts, cells: int) -> tuple[Array, Array, Array]:
    """Return picture, cell and number of each pair of these, int64 [E] each, of the first cells alone."""
    image, cell, number = (v.numpy().astype(np.int64) for v in counts)
    kept = cell < cells
    key, where = np.unique(image[kept] * cells + cell[kept], return_inverse=True)
    return key // cells, key % cells, np.bincount(where, number[kept], minlength=len(key)).astype(np.int64)
