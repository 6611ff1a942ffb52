"""What goes wrong at one score threshold: which class is taken for which, and the kinds of errors."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from visionkit.tasks.detection.metrics.matching import DataSetBoxes, Pairs, box_pairs, match_greedily, starts_of
from visionkit.training.redraw import ImageCounts

__all__ = ["ERROR_TYPES", "ErrorCounts", "FoundErrors", "count_errors", "error_table", "find_errors"]

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


class FoundErrors(NamedTuple):
    """The errors of a data set one by one, E of them, image after image.

    Args:
        image: int64 [E], position of the image.
        kind: int64 [E], position in :data:`ERROR_TYPES`.
        found: int64 [E], position of the detection; -1 where an object is missed.
        truth: int64 [E], position of the object that is missed, or the one that the detection is nearest to; -1 for
            none.
    """

    image: Array
    kind: Array
    found: Array
    truth: Array


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


def count_errors(boxes: DataSetBoxes, classes: int, *, score_threshold: float, iou_threshold: float) -> ImageCounts:
    """Count confusions and kinds of errors of the detections with at least a score, in each image.

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

    Returns:
        The cells of the confusion matrix [K + 1, K + 1], row by row, then the kinds.
    """
    judged = _judge(boxes, score_threshold, iou_threshold)
    image, labels = boxes.image[judged.strong], boxes.labels[judged.strong]  # [P]
    truth_image, truth_labels = boxes.truth_image[judged.objects], boxes.truth_labels[judged.objects]  # [T]
    mixed, missed = np.zeros(len(image), bool), judged.free.copy()
    mixed[judged.mixed[0]], missed[judged.mixed[1]] = True, False
    nothing = judged.wrong & ~mixed
    found = [
        (image[row], truth_labels[column] * (classes + 1) + labels[row]) for row, column in (judged.right, judged.mixed)
    ]
    found.append((image[nothing], classes * (classes + 1) + labels[nothing]))
    found.append((truth_image[missed], truth_labels[missed] * (classes + 1) + classes))
    for number, kind in enumerate(ERROR_TYPES):
        where = (truth_image if kind == "missed" else image)[judged.kinds[kind]]
        found.append((where, np.full(len(where), (classes + 1) ** 2 + number)))
    return ImageCounts.make(*(np.concatenate(values) for values in zip(*found, strict=True)))


def find_errors(boxes: DataSetBoxes, *, score_threshold: float, iou_threshold: float) -> FoundErrors:
    """Return the errors that :func:`count_errors` counts by kind, one by one.

    Args:
        boxes: Predictions and truth of all images.
        score_threshold: As there.
        iou_threshold: As there.
    """
    judged = _judge(boxes, score_threshold, iou_threshold)
    parts = []
    for number, kind in enumerate(ERROR_TYPES):
        which = np.flatnonzero(judged.kinds[kind])
        if kind == "missed":
            truth = judged.objects[which]
            parts.append((boxes.truth_image[truth], np.full(len(which), number), np.full(len(which), -1), truth))
        else:
            nearest = judged.nearest[kind][which]
            found = judged.strong[which]
            truth = np.where(nearest < 0, -1, judged.objects[nearest]) if len(judged.objects) else nearest
            parts.append((boxes.image[found], np.full(len(which), number), found, truth))
    image, numbers, found, truth = (np.concatenate(values) for values in zip(*parts, strict=True))
    order = np.argsort(image, kind="stable")
    return FoundErrors(image[order], numbers[order], found[order], truth[order])


class _Judged(NamedTuple):
    """Which of the P strong detections and T objects that count are right, and what the others are."""

    strong: Array
    """int64 [P], positions of the detections, image after image, best first."""
    objects: Array
    """int64 [T], positions of the objects."""
    right: tuple[Array, Array]
    """Rows and columns that belong together."""
    mixed: tuple[Array, Array]
    """Those of one place and two classes."""
    wrong: Array
    """bool [P]."""
    free: Array
    """bool [T]."""
    kinds: dict[str, Array]
    """By kind, bool [T] of missed objects, bool [P] of others."""
    nearest: dict[str, Array]
    """By kind but "missed", int64 [P], the object that a detection is nearest to, -1 for none."""


def _judge(boxes: DataSetBoxes, score_threshold: float, iou_threshold: float) -> _Judged:
    strong = np.flatnonzero(boxes.scores >= score_threshold)
    strong = strong[np.lexsort((-boxes.scores[strong], boxes.image[strong]))]  # best first in each image
    image, labels = boxes.image[strong], boxes.labels[strong]  # [P]
    near, truth_labels = _near(boxes, strong, ~boxes.crowd, min(NEAR, iou_threshold))
    same = labels[near.row] == truth_labels[near.column]
    there = near.overlap >= iou_threshold
    wrong = np.ones(len(strong), bool)
    free = np.ones(len(truth_labels), bool)
    right = _match(near.select(same & there), image, len(free))
    wrong[right[0]], free[right[1]] = False, False

    within, crowd_labels = _near(boxes, strong, boxes.crowd, iou_threshold)
    wrong[within.row[labels[within.row] == crowd_labels[within.column]]] = False

    mixed = _match(near.select(there & wrong[near.row] & free[near.column]), image, len(free))
    left = wrong[near.row]
    kinds, nearest = _kinds(near.select(left), same[left], wrong, free, iou_threshold)
    return _Judged(strong, np.flatnonzero(~boxes.crowd), right, mixed, wrong, free, kinds, nearest)


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


def _kinds(
    pairs: Pairs, same: Array, wrong: Array, free: Array, threshold: float
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return which detections, bool [P], or objects, bool [T], are errors of each kind; and the nearest objects.

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
    nearest = {"poorly_localised": own, "duplicate": own, "confused": other, "both": other}
    nothing = np.full(len(wrong), -1)
    return {**kinds, "background": rest & ~near}, {**nearest, "background": nothing}


def _best(pairs: Pairs, rows: int) -> tuple[Array, Array]:
    """Return the largest overlap of each row, 0 without any, and its column, the first one of equal ones."""
    largest, column = np.zeros(rows), np.zeros(rows, np.int64)
    ordered = pairs.best_first(last=False)
    first = starts_of(ordered.row)
    largest[ordered.row[first]] = ordered.overlap[first]
    column[ordered.row[first]] = ordered.column[first]
    return largest, column
