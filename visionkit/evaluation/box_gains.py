"""What a detector would gain if one kind of its errors were mended: TIDE's oracles over visionkit's own matching."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionkit.tasks.detection.metrics.average_precision import ALL, AREAS, OVERLAPS, Matches
from visionkit.tasks.detection.metrics.error_types import ERROR_TYPES, find_errors
from visionkit.tasks.detection.metrics.matching import DataSetBoxes, starts_of

__all__ = ["BoxGains", "box_gains", "mean_gains"]

Array = NDArray[Any]
_MOST = 100  # detections of a class in an image that average precision counts


class BoxGains(NamedTuple):
    """The average precision, and what it would gain.

    Args:
        value: Mean average precision over the classes that occur, 0..1.
        gains: By kind of error, 0 or more.
        counts: Errors of each kind among all detections that average precision counts.
    """

    value: float
    gains: dict[str, float]
    counts: dict[str, int]


def box_gains(boxes: DataSetBoxes, classes: int, *, iou_threshold: float = 0.5) -> BoxGains:
    """Return what mending each kind of error alone would add to the average precision at one overlap.

    Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2.3. An oracle
    mends one kind and leaves all else: a confused detection gets the class, a poorly localised one the place of the
    object that it means, and finds it (of several that mean one object the most certain, the others are gone, as are
    those whose object is found already); doubled ones, those of both errors and those of nothing are gone; missed
    objects are no longer asked for. As in TIDE's code a gain below 0, which rounded recalls can make, is 0. Two details
    differ from that code: detections that mean one object rival within the kind that is mended alone, and a class whose
    objects were all missed becomes right and does not drop out of the mean.

    Args:
        boxes: Predictions and truth of all images; of a class the best 100 of an image count, as for COCO.
        classes: Number of classes, K.
        iou_threshold: Overlap from which a detection is right, in (0.1, 1].
    """
    errors = find_errors(boxes, _counted(boxes, classes), iou_threshold=iou_threshold)
    scores = boxes.scores[errors.rows]
    right = errors.right >= 0
    kept = right | errors.wrong  # not those in crowds
    value = _mean_precision(errors.labels[kept], scores[kept], right[kept], errors.truth_labels, classes)
    gains = {}
    for kind in ERROR_TYPES:
        which, labels, found, truth = errors.kinds[kind], errors.labels, right, errors.truth_labels
        left = kept
        if kind == "missed":
            truth = truth[~which]
        else:
            left = kept & ~which
            if kind in ("confused", "poorly_localised"):
                nearest = errors.other if kind == "confused" else errors.own
                mended = _most_certain(which, nearest, scores, errors.free)
                labels = np.where(mended, errors.truth_labels[nearest] if len(errors.truth_labels) else labels, labels)
                left, found = left | mended, right | mended
        lost = np.setdiff1d(errors.truth_labels, truth)  # classes of which all was missed
        mend = _mean_precision(labels[left], scores[left], found[left], truth, classes, wholly=lost)
        gains[kind] = max(0.0, mend - value)
    return BoxGains(value, gains, {kind: int(errors.kinds[kind].sum()) for kind in ERROR_TYPES})


def _counted(boxes: DataSetBoxes, classes: int) -> Array:
    """Return the positions of the best detections of each class in each image."""
    place = boxes.image * classes + boxes.labels
    order = np.lexsort((-boxes.scores, place))
    begin = starts_of(place[order])
    rank = np.arange(len(order)) - np.repeat(begin, np.diff(begin, append=len(order)))
    return np.asarray(np.sort(order[rank < _MOST]))


def _most_certain(which: Array, nearest: Array, scores: Array, free: Array) -> Array:
    """Return, bool [P], of the detections that mean one free object the most certain each.

    Args:
        which: bool [P], the detections that are mended.
        nearest: int64 [P], the object that each means.
        scores: float32 [P].
        free: bool [T], objects that nothing finds.
    """
    rows = np.flatnonzero(which)
    rows = rows[free[nearest[rows]]] if len(free) else rows[:0]
    rows = rows[np.lexsort((-scores[rows], nearest[rows]))]
    chosen = np.zeros(len(which), bool)
    chosen[rows[starts_of(nearest[rows])]] = True
    return chosen


def _mean_precision(
    labels: Array, scores: Array, right: Array, truth_labels: Array, classes: int, wholly: Array | None = None
) -> float:
    """Return the mean over classes of COCO's average precision, 101 recalls; 0 without any object.

    Args:
        labels: int64 [P], of the detections.
        scores: float32 [P].
        right: bool [P].
        truth_labels: int64 [T], of the objects.
        classes: Number of classes, K.
        wholly: Further classes, whose precision is 1.
    """
    order = np.lexsort((-scores, labels))
    hits = right[order].astype(np.uint64)  # the first world: the lowest overlap, objects of any size
    p, t = len(order), len(truth_labels)
    inside, truth_inside = np.zeros((len(AREAS), p), bool), np.zeros((len(AREAS), t), bool)
    inside[ALL], truth_inside[ALL] = True, True
    matches = Matches(
        classes=classes, labels=labels[order], image=np.zeros(p, np.int64), rank=np.zeros(p, np.int64), hits=hits,
        right=hits, inside=inside, runs=np.arange(p), truth_labels=truth_labels, truth_image=np.zeros(t, np.int64),
        truth_inside=truth_inside, scores=scores[order],
    )  # fmt: skip
    curves = matches.evaluate(np.ones(1, np.int64))[0][0, :, :, ALL]  # [101, K]
    occurs = (curves >= 0).all(0)
    values = [*curves[:, occurs].mean(0).tolist(), *([1.0] * (0 if wholly is None else len(wholly)))]
    return float(np.mean(values)) if values else 0.0


def mean_gains(boxes: DataSetBoxes, classes: int) -> BoxGains:
    """Return the same of COCO's mean average precision, over overlaps of 0.5 to 0.95; counts are those at 0.5."""
    each = [box_gains(boxes, classes, iou_threshold=float(t)) for t in OVERLAPS]
    gains = {kind: float(np.mean([g.gains[kind] for g in each])) for kind in ERROR_TYPES}
    return BoxGains(float(np.mean([g.value for g in each])), gains, each[0].counts)
