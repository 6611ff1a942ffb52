"""What goes wrong at one score threshold: which class is taken for which, and the kinds of errors."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from visionkit.tasks.detection.metrics.matching import DataSetBoxes, Pairs, box_pairs, match_greedily, starts_of
from visionkit.training.redraw import ImageCounts

__all__ = ["ERROR_TYPES", "DetectionErrors", "ErrorCounts", "count_errors", "error_table", "find_errors"]

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

    @classmethod
    def over(cls, counts: ImageCounts, classes: int, weight: Array) -> Self:
        """Return the errors when image k counts ``weight[k]`` times, of what ``count_errors`` found in each."""
        cells = (classes + 1) ** 2
        total = counts.total(weight, cells + len(ERROR_TYPES)).numpy()
        kinds = dict(zip(ERROR_TYPES, total[cells:].tolist(), strict=True))
        return cls(total[:cells].reshape(classes + 1, classes + 1), kinds)


def error_table(counts: ImageCounts, classes: int, images: int) -> Array:
    """Return what each image adds to the sums, of what ``count_errors`` found in it.

    Returns:
        int64 [images, 3 + kinds]: right detections, detections and objects that count, then the errors of each kind.
    """
    cells = (classes + 1) ** 2
    image, cell = counts.image.numpy(), counts.cell.numpy()
    inner = cell < cells
    row, column = cell // (classes + 1), cell % (classes + 1)
    which = (inner & (row == column), inner & (column < classes), inner & (row < classes))
    kinds = (cell == cells + number for number in range(len(ERROR_TYPES)))
    return np.stack([np.bincount(image[w], minlength=images) for w in (*which, *kinds)], 1)


class DetectionErrors(NamedTuple):
    """Which detections of a data set are right, which are errors, and of which kind.

    Args:
        rows: int64 [P], positions of the detections that count: image after image, best first in each.
        columns: int64 [T], positions of the objects that count.
        image: int64 [P], of the detections.
        labels: int64 [P].
        truth_image: int64 [T], of the objects.
        truth_labels: int64 [T].
        right: int64 [P], the object that each detection finds, by its place in ``columns``; -1 for none.
        wrong: bool [P], detections that are errors; neither right nor wrong are those in crowds of their class.
        free: bool [T], objects that no detection finds.
        kinds: By kind of :data:`ERROR_TYPES`, bool [P] of the detections, but [T] of the objects for "missed".
        own: int64 [P], of a wrong detection the object of its class that it overlaps most, by its place in ``columns``;
            where none is near it means nothing.
        other: int64 [P], the same of the objects of other classes.
        near: Pairs of detections and objects that are near, by places in ``rows`` and ``columns``.
    """

    rows: Array
    columns: Array
    image: Array
    labels: Array
    truth_image: Array
    truth_labels: Array
    right: Array
    wrong: Array
    free: Array
    kinds: dict[str, Array]
    own: Array
    other: Array
    near: Pairs


def find_errors(boxes: DataSetBoxes, rows: Array, *, iou_threshold: float) -> DetectionErrors:
    """Find what is right and what is wrong.

    A detection is right when it overlaps an object of its class that no detection with a higher score has taken; that
    is COCO's matching. One that lies in a crowd box of its class is left out.

    The kinds are those of Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020,
    section 2.2. Each detection that is not right is one of them, tried in this order: "poorly_localised" (an object of
    its class is near), "confused" (an object of another class is where it is), "duplicate" (its object is taken),
    "background" (nothing is near), "both" (an object of another class is near). "missed" counts the objects without a
    right detection, except those that a poorly localised or confused one has as its nearest.

    Args:
        boxes: Predictions and truth of all images.
        rows: int64 [P], positions of the detections that count.
        iou_threshold: Overlap from which a detection is where an object is, in (0, 1].
    """
    strong = rows[np.lexsort((-boxes.scores[rows], boxes.image[rows]))]  # best first in each image
    image, labels = boxes.image[strong], boxes.labels[strong]  # [P]
    near, columns = _near(boxes, strong, ~boxes.crowd, min(NEAR, iou_threshold))
    truth_labels = boxes.truth_labels[columns]
    same = labels[near.row] == truth_labels[near.column]
    there = near.overlap >= iou_threshold
    wrong = np.ones(len(strong), bool)
    free = np.ones(len(columns), bool)
    right = np.full(len(strong), -1)
    row, column = _match(near.select(same & there), image, len(free))
    right[row], wrong[row], free[column] = column, False, False

    within, crowds = _near(boxes, strong, boxes.crowd, iou_threshold)
    wrong[within.row[labels[within.row] == boxes.truth_labels[crowds][within.column]]] = False

    left = wrong[near.row]
    kinds, own, other = _kinds(near.select(left), same[left], wrong, free, iou_threshold)
    return DetectionErrors(
        strong, columns, image, labels, boxes.truth_image[columns], truth_labels, right, wrong, free, kinds, own, other,
        near,
    )  # fmt: skip


def count_errors(boxes: DataSetBoxes, classes: int, *, score_threshold: float, iou_threshold: float) -> ImageCounts:
    """Count confusions and kinds of errors of the detections with at least a score, in each image.

    Right, wrong and the kinds are as :func:`find_errors` has them. Of the wrong detections, best score first, each that
    overlaps a free object of another class is a confusion in the matrix.

    Args:
        boxes: Predictions and truth of all images.
        classes: Number of classes, K.
        score_threshold: Lowest score that counts.
        iou_threshold: Overlap from which a detection is where an object is, in (0, 1].

    Returns:
        The cells of the confusion matrix [K + 1, K + 1], row by row, then the kinds.
    """
    e = find_errors(boxes, np.flatnonzero(boxes.scores >= score_threshold), iou_threshold=iou_threshold)
    image, labels, truth_image, truth_labels, near = e.image, e.labels, e.truth_image, e.truth_labels, e.near
    row = np.flatnonzero(e.right >= 0)
    found = [(image[row], truth_labels[e.right[row]] * (classes + 1) + labels[row])]
    there = near.overlap >= iou_threshold
    row, column = _match(near.select(there & e.wrong[near.row] & e.free[near.column]), image, len(e.free))
    mixed, missed = np.zeros(len(image), bool), e.free.copy()
    mixed[row], missed[column] = True, False
    found.append((image[row], truth_labels[column] * (classes + 1) + labels[row]))
    nothing = e.wrong & ~mixed
    found.append((image[nothing], classes * (classes + 1) + labels[nothing]))
    found.append((truth_image[missed], truth_labels[missed] * (classes + 1) + classes))
    for number, kind in enumerate(ERROR_TYPES):
        where = (truth_image if kind == "missed" else image)[e.kinds[kind]]
        found.append((where, np.full(len(where), (classes + 1) ** 2 + number)))
    return ImageCounts.make(*(np.concatenate(values) for values in zip(*found, strict=True)))


def _near(boxes: DataSetBoxes, rows: Array, which: Array, least: float) -> tuple[Pairs, Array]:
    """Pair detections with the objects of their images.

    Args:
        boxes: Predictions and truth.
        rows: int64 [P], positions of detections.
        which: bool [M], the objects that count, T of them.
        least: Lowest overlap.

    Returns:
        Pairs by positions in ``rows`` and among the objects that count; and the positions of these, int64 [T].
    """
    columns = np.flatnonzero(which)
    start = np.searchsorted(boxes.truth_image[columns], np.arange(boxes.images + 1))
    first, count = start[boxes.image[rows]], np.diff(start)[boxes.image[rows]]
    found = box_pairs(boxes.boxes[rows], boxes.truth[columns], boxes.crowd[columns], first, count, least)
    return found, columns


def _match(pairs: Pairs, image: Array, columns: int) -> tuple[Array, Array]:
    """Give each row, in order, the free column that it overlaps most; return rows and columns that are matched."""
    pairs = pairs.best_first(last=False)
    matched = match_greedily(pairs, image, columns, np.ones(len(pairs.row), np.uint64)) > 0
    return pairs.row[matched], pairs.column[matched]


def _kinds(
    pairs: Pairs, same: Array, wrong: Array, free: Array, threshold: float
) -> tuple[dict[str, Array], Array, Array]:
    """Return which detections, bool [P], or objects, bool [T], are errors of each kind; and the nearest objects [P].

    The latter are those of the own class and of others.

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
    return {**kinds, "background": rest & ~near}, own, other


def _best(pairs: Pairs, rows: int) -> tuple[Array, Array]:
    """Return the largest overlap of each row, 0 without any, and its column, the first one of equal ones."""
    largest, column = np.zeros(rows), np.zeros(rows, np.int64)
    ordered = pairs.best_first(last=False)
    first = starts_of(ordered.row)
    largest[ordered.row[first]] = ordered.overlap[first]
    column[ordered.row[first]] = ordered.column[first]
    return largest, column
