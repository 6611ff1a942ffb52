"""What goes wrong at one score threshold: which class is taken for which, and the kinds of errors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionkit.tasks.detection.metrics.matching import DataSetBoxes, Pairs, box_pairs, match_greedily, starts_of

__all__ = ["ERROR_TYPES", "ErrorCounts", "count_errors"]

ERROR_TYPES = ("missed", "confused", "poorly_localised", "both", "duplicate", "background")
"""Kinds of errors, in the order in which they are listed and drawn."""
NEAR = 0.1
"""Overlap below which a detection has nothing to do with an object."""

Array = NDArray[Any]


class ErrorCounts(NamedTuple):
    """The errors of a data set.

    Args:
        confusion: int64 [K + 1, K + 1], rows truth, columns prediction; the last row holds detections of nothing, the
            last column missed objects. Rows sum to the objects, columns to the detections that count.
        errors: Number of errors of each kind of :data:`ERROR_TYPES`.
    """

    confusion: Array
    errors: dict[str, int]


def count_errors(boxes: DataSetBoxes, classes: int, *, score_threshold: float, iou_threshold: float) -> ErrorCounts:
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
        boxes: Predictions and truth of all images.
        classes: Number of classes, K.
        score_threshold: Lowest score that counts.
        iou_threshold: Overlap from which a detection is where an object is, in (0, 1].
    """
    strong = np.flatnonzero(boxes.scores >= score_threshold)
    strong = strong[np.lexsort((-boxes.scores[strong], boxes.image[strong]))]  # best first in each image
    image, labels = boxes.image[strong], boxes.labels[strong]  # [P]
    near, truth_labels = _near(boxes, strong, ~boxes.crowd, min(NEAR, iou_threshold))
    same = labels[near.row] == truth_labels[near.column]
    there = near.overlap >= iou_threshold
    wrong = np.ones(len(strong), bool)
    free = np.ones(len(truth_labels), bool)
    row, column = _match(near.select(same & there), image, len(free))
    wrong[row], free[column] = False, False
    confusion = _count((truth_labels[column], labels[row]), classes)

    within, crowd_labels = _near(boxes, strong, boxes.crowd, iou_threshold)
    wrong[within.row[labels[within.row] == crowd_labels[within.column]]] = False

    row, column = _match(near.select(there & wrong[near.row] & free[near.column]), image, len(free))
    mixed, missed = np.zeros(len(strong), bool), free.copy()
    mixed[row], missed[column] = True, False
    confusion += _count((truth_labels[column], labels[row]), classes)
    nothing = labels[wrong & ~mixed], truth_labels[missed]
    confusion += _count((np.full(len(nothing[0]), classes), nothing[0]), classes)
    confusion += _count((nothing[1], np.full(len(nothing[1]), classes)), classes)
    left = wrong[near.row]
    return ErrorCounts(confusion, _kinds(near.select(left), same[left], wrong, free, iou_threshold))


def _near(boxes: DataSetBoxes, rows: Array, which: Array, least: float) -> tuple[Pairs, Array]:
    """Pair detections with the objects of their images.

    Args:
        boxes: Predictions and truth.
        rows: int64 [P], positions of detections.
        which: bool [M], the objects that count, T of them.
        least: Lowest overlap.

    Returns:
        Pairs by positions in ``rows`` and among the objects that count; and the labels of these, int64 [T].
    """
    columns = np.flatnonzero(which)
    start = np.searchsorted(boxes.truth_image[columns], np.arange(boxes.images + 1))
    first, count = start[boxes.image[rows]], np.diff(start)[boxes.image[rows]]
    found = box_pairs(boxes.boxes[rows], boxes.truth[columns], boxes.crowd[columns], first, count, least)
    return found, boxes.truth_labels[columns]


def _match(pairs: Pairs, image: Array, columns: int) -> tuple[Array, Array]:
    """Give each row, in order, the free column that it overlaps most; return rows and columns that are matched."""
    pairs = pairs.best_first(last=False)
    matched = match_greedily(pairs, image, columns, np.ones(len(pairs.row), np.uint64)) > 0
    return pairs.row[matched], pairs.column[matched]


def _count(pairs: tuple[Array, Array], classes: int) -> Array:
    """Return how often each pair of truth and prediction occurs, int64 [K + 1, K + 1]."""
    rows, columns = pairs
    return np.bincount(rows * (classes + 1) + columns, minlength=(classes + 1) ** 2).reshape(classes + 1, classes + 1)


def _kinds(pairs: Pairs, same: Array, wrong: Array, free: Array, threshold: float) -> dict[str, int]:
    """Count the kinds of errors.

    Args:
        pairs: Wrong detections (rows) and the objects that are near, by row, then by column.
        same: bool [pairs], whether their classes are equal.
        wrong: bool [P], detections that are wrong.
        free: bool [T], objects that have no right detection.
        threshold: Overlap from which a detection is where an object is.
    """
    own_best, own = _best(pairs.select(same), len(wrong))
    other_best, other = _best(pairs.select(~same), len(wrong))
    poor = wrong & (own_best >= NEAR) & (own_best < threshold)
    confused = wrong & ~poor & (other_best >= threshold)
    duplicate = wrong & ~poor & ~confused & (own_best >= threshold)
    rest = wrong & ~(poor | confused | duplicate)
    near = rest & (other_best >= NEAR)
    missed = free.copy()
    missed[own[poor]] = False
    missed[other[confused]] = False
    kinds = {"missed": missed, "confused": confused, "poorly_localised": poor, "both": near, "duplicate": duplicate}
    return {k: int(v.sum()) for k, v in {**kinds, "background": rest & ~near}.items()}


def _best(pairs: Pairs, rows: int) -> tuple[Array, Array]:
    """Return the largest overlap of each row, 0 without any, and its column, the first one of equal ones."""
    largest, column = np.zeros(rows), np.zeros(rows, np.int64)
    ordered = pairs.best_first(last=False)
    first = starts_of(ordered.row)
    largest[ordered.row[first]] = ordered.overlap[first]
    column[ordered.row[first]] = ordered.column[first]
    return largest, column
