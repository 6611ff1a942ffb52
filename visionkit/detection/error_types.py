"""What goes wrong at one score threshold: which class is taken for which, and the kinds of errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ERROR_TYPES", "ErrorCounts", "ImageBoxes", "count_errors"]

ERROR_TYPES = ("missed", "confused", "poorly_localised", "both", "duplicate", "background")
"""Kinds of errors, in the order in which they are listed and drawn."""
NEAR = 0.1
"""Overlap below which a detection has nothing to do with an object."""

Array = NDArray[Any]


class ImageBoxes(NamedTuple):
    """What is predicted for an image and what is true; boxes are xyxy in pixels of the original.

    Args:
        boxes: float32 [N, 4], predicted.
        scores: float32 [N].
        labels: int64 [N], class ids.
        truth: float32 [M, 4].
        truth_labels: int64 [M].
        crowd: bool [M], boxes that are neither asked for nor wrong to find.
        areas: float32 [M], pixels of the original.
    """

    boxes: Array
    scores: Array
    labels: Array
    truth: Array
    truth_labels: Array
    crowd: Array
    areas: Array


class ErrorCounts(NamedTuple):
    """The errors of a data set.

    Args:
        confusion: int64 [K + 1, K + 1], rows truth, columns prediction; the last row holds detections of nothing, the
            last column missed objects. Rows sum to the objects, columns to the detections that count.
        errors: Number of errors of each kind of :data:`ERROR_TYPES`.
    """

    confusion: Array
    errors: dict[str, int]


def count_errors(
    images: Iterable[ImageBoxes], classes: int, *, score_threshold: float, iou_threshold: float
) -> ErrorCounts:
    """Count confusions and kinds of errors of the detections with at least a score.

    A detection is right when it overlaps an object of its class that no detection with a higher score has taken; that
    is COCO's matching. One that lies in a crowd box of its class is left out. Of the rest, best score first, each that
    overlaps a free object of another class is a confusion in the matrix.

    The kinds are those of Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020,
    section 2.2. Each detection that is not right is one of them, tried in this order: "poorly_localised" (an object of
    its class is near), "confused" (an object of another class is where it is), "duplicate" (its object is taken),
    "background" (nothing is near), "both" (an object of another class is near). "missed" counts the objects without a
    right detection, except those that a poorly localised or confused one has as its nearest.

    Args:
        images: Predictions and truth.
        classes: Number of classes, K.
        score_threshold: Lowest score that counts.
        iou_threshold: Overlap from which a detection is where an object is, in (0, 1].
    """
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    errors = dict.fromkeys(ERROR_TYPES, 0)
    for image in images:
        _count(image, confusion, errors, score_threshold, iou_threshold)
    return ErrorCounts(confusion, errors)


def _count(image: ImageBoxes, confusion: Array, errors: dict[str, int], score: float, threshold: float) -> None:
    order = np.argsort(-image.scores, kind="stable")
    order = order[image.scores[order] >= score]
    boxes, labels = image.boxes[order], image.labels[order]  # [P, 4], [P]
    truth, truth_labels = image.truth[~image.crowd], image.truth_labels[~image.crowd]  # [T, 4], [T]
    overlap = _overlap(boxes, truth)  # [P, T]
    same = labels[:, None] == truth_labels[None]
    partner = _match(overlap * same, threshold)
    wrong = partner < 0
    if image.crowd.any() and wrong.any():
        inside = _overlap(boxes, image.truth[image.crowd], crowd=True) >= threshold
        wrong &= ~(inside & (labels[:, None] == image.truth_labels[image.crowd][None])).any(1)
    found = np.zeros(len(truth), bool)
    found[partner[partner >= 0]] = True

    np.add.at(confusion, (truth_labels[found], truth_labels[found]), 1)
    rest = _match(overlap * (wrong[:, None] & ~found[None]), threshold)
    mixed = rest >= 0
    np.add.at(confusion, (truth_labels[rest[mixed]], labels[mixed]), 1)
    np.add.at(confusion[-1], labels[wrong & ~mixed], 1)
    missed = ~found
    missed[rest[mixed]] = False
    np.add.at(confusion[:, -1], truth_labels[missed], 1)

    for kind, count in _kinds(overlap[wrong], same[wrong], found, threshold).items():
        errors[kind] += count


def _kinds(overlap: Array, same: Array, found: Array, threshold: float) -> dict[str, int]:
    """Count the kinds of errors of an image.

    Args:
        overlap: float64 [P, T] of wrong detections and objects.
        same: bool [P, T], whether their classes are equal.
        found: bool [T], objects that have a right detection.
        threshold: Overlap from which a detection is where an object is.
    """
    if not len(found):
        return {"background": len(overlap)}
    own, other = np.where(same, overlap, 0), np.where(same, 0, overlap)
    own_best, other_best = own.max(1), other.max(1)  # [P] each
    poor = (own_best >= NEAR) & (own_best < threshold)
    confused = ~poor & (other_best >= threshold)
    duplicate = ~poor & ~confused & (own_best >= threshold)
    rest = ~(poor | confused | duplicate)
    near = rest & (other_best >= NEAR)
    explained = found.copy()
    explained[own[poor].argmax(1)] = True
    explained[other[confused].argmax(1)] = True
    return {
        "missed": int((~explained).sum()),
        "confused": int(confused.sum()),
        "poorly_localised": int(poor.sum()),
        "both": int(near.sum()),
        "duplicate": int(duplicate.sum()),
        "background": int((rest & ~near).sum()),
    }


def _match(overlap: Array, threshold: float) -> Array:
    """Give each row, in order, the free column that it overlaps most; int64 [P], -1 for none above the threshold."""
    partner = np.full(len(overlap), -1)
    free = overlap.copy()
    for row in np.flatnonzero((overlap >= threshold).any(1)):
        best = free[row].argmax()
        if free[row, best] >= threshold:
            partner[row] = best
            free[:, best] = 0
    return partner


def _overlap(a: Array, b: Array, *, crowd: bool = False) -> Array:
    """Return the overlap of boxes [P, 4] and [T, 4]: float64 [P, T].

    It is intersection over union, or with ``crowd`` the share of ``a`` that lies in ``b``.
    """
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = sides.clip(min=0).prod(-1)
    own, other = (a[..., 2:] - a[..., :2]).prod(-1), (b[..., 2:] - b[..., :2]).prod(-1)
    whole = own if crowd else own + other - common
    return np.asarray(common / np.maximum(whole, 1e-9))
