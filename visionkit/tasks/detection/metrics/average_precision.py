"""COCO's average precision and recall of a whole data set, by its rules and to its digits, without loops over images.

What COCO's code does image by image is done for all at once: detections are sorted once, the forty worlds of ten
overlaps and four ranges of area are bits of one number, and a curve is known from its right detections alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionkit.data.labels.masks import ObjectMasks
from visionkit.tasks.detection.metrics.matching import DataSetBoxes, Pairs, box_pairs, match_greedily, starts_of

__all__ = ["ALL", "AREAS", "LARGE", "MEDIUM", "LAST_NUMBER", "OVERLAPS", "SMALL", "ImageMasks", "evaluate_coco"]

Array = NDArray[Any]

OVERLAPS = np.linspace(0.5, 0.95, 10)
"""Intersections over union from which a detection is right."""
RECALLS = np.linspace(0, 1, 101)  # at which precision is read
ALL, SMALL, MEDIUM, LARGE = range(4)
"""Positions of COCO's areas: any, below 32², up to 96², above."""
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])
"""Pixels of the original, both ends included; areas far above the last one are nowhere."""
MAX_DETECTIONS = (1, 10, 100)  # detections of a class in an image that count
LAST_NUMBER = 2
"""Position of 100 in the numbers of detections."""
EVERY = np.uint64(2 ** len(OVERLAPS) - 1)  # bits of all overlaps of an area
WORLDS = [np.uint64(len(OVERLAPS) * k) for k in range(len(AREAS))]  # how far the bits of an area are shifted


class ImageMasks(NamedTuple):
    """The masks of an image, all as run lengths, which are small."""

    found: ObjectMasks
    """Of the N predictions."""
    truth: ObjectMasks
    """Of the M objects."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.found.size


class _Found(NamedTuple):
    """The detections that count, by image, class and falling score.

    Args:
        origin: int64 [D], positions among all detections.
        labels: int64 [D].
        group: int64 [D], number of the image and class.
        rank: int64 [D], position in the group.
        first: int64 [D], the first object of the group in the order of ``truth``.
        length: int64 [D], how many there are.
        truth: int64 [M], positions of the objects by image and class.
        curve: int64 [D], position by class and falling score.
    """

    origin: Array
    labels: Array
    group: Array
    rank: Array
    first: Array
    length: Array
    truth: Array
    curve: Array


def evaluate_coco(boxes: DataSetBoxes, classes: int, masks: Sequence[ImageMasks] | None = None) -> tuple[Array, Array]:
    """Return COCO's precision [10, 101, K, 4] and recall [10, K, 4, 3] by IoU, recall, class, area and number.

    The overlap is that of the boxes, or of the masks where they are given. By COCO's rules, the area of an object is
    the one that its file tells, and that of a prediction the one of its box or of its mask. Precision is that of the
    best 100 detections of a class in an image, recall that of the best 1, 10 and 100.

    -1 stands where the truth holds no such object.

    Args:
        boxes: Predictions and truth of all images.
        classes: Number of classes, K.
        masks: Those of each image.
    """
    wide = boxes.areas.astype(np.float64)
    outside = [(wide < low) | (wide > high) | boxes.crowd for low, high in AREAS]
    objects = np.stack([np.bincount(boxes.truth_labels[~o], minlength=classes) for o in outside], 1)  # [K, 4]
    precision = np.full((len(OVERLAPS), len(RECALLS), classes, len(AREAS)), -1.0)
    recall = np.full((len(OVERLAPS), classes, len(AREAS), len(MAX_DETECTIONS)), -1.0)
    if not objects.any():
        return precision, recall
    found = _sort(boxes, classes, np.asarray(objects.any(1)))
    truth_crowd = boxes.crowd[found.truth]
    if masks is None:
        places = boxes.boxes[found.origin]
        pairs = box_pairs(places, boxes.truth[found.truth], truth_crowd, found.first, found.length, OVERLAPS[0])
        sides = places[:, 2:].astype(np.float64) - places[:, :2]
        areas = sides.prod(1)
    else:
        pairs, areas = _mask_pairs(boxes, found, masks)
    rows, hits, right = _match(found, pairs, outside, truth_crowd)
    held = np.bincount(found.labels, minlength=classes)
    start = held.cumsum() - held  # [K], of each class in the order of the curves
    sorted_by_curve = np.empty(len(found.curve), np.int64)
    sorted_by_curve[found.curve] = np.arange(len(found.curve))
    label, place, rank = found.labels[rows], found.curve[rows], found.rank[rows]
    for area, (low, high) in enumerate(AREAS):
        counted = np.flatnonzero(objects[:, area])
        needed = _needed(objects[counted, area])  # [C, 101]
        inside = (areas >= low) & (areas <= high)
        before = np.concatenate([[0], inside[sorted_by_curve].cumsum()])  # detections of this size, along the curves
        for k in range(len(OVERLAPS)):
            bit = np.uint64(1) << (WORLDS[area] + np.uint64(k))
            own = np.flatnonzero(hits & bit)
            # wrong are the detections of this size that match nothing: all of them without those that match
            matching = np.concatenate([[0], inside[rows[own]].cumsum()])
            wrong = before[place[own] + 1] - matching[1:]
            wrong -= (before[start] - matching[np.searchsorted(label[own], np.arange(classes))])[label[own]]
            good = (right[own] & bit) != 0
            own = own[good]
            number = np.stack([np.bincount(label[own][rank[own] < n], minlength=classes) for n in MAX_DETECTIONS], 1)[
                counted
            ]
            recall[k, counted, area] = number / objects[counted, area, None]
            precision[k][:, counted, area] = _curves(wrong[good], number[:, LAST_NUMBER], needed).T
    return precision, recall


def _sort(boxes: DataSetBoxes, classes: int, wanted: Array) -> _Found:
    """Sort detections and objects.

    Args:
        boxes: Predictions and truth.
        classes: Number of classes, K.
        wanted: bool [K], classes that the truth holds; others find nothing and cost time.
    """
    origin = np.flatnonzero(wanted[boxes.labels])
    place = boxes.image[origin] * classes + boxes.labels[origin]
    score = _falling(boxes.scores[origin])
    order = np.argsort(place << 32 | score, kind="stable")
    origin, place, score = origin[order], place[order], score[order]
    begin = starts_of(place)
    length = np.diff(begin, append=len(place))
    rank = np.arange(len(place)) - np.repeat(begin, length)
    truth_place = boxes.truth_image * classes + boxes.truth_labels
    truth = np.argsort(truth_place, kind="stable")
    first, last = (np.searchsorted(truth_place[truth], place[begin], side) for side in ("left", "right"))
    values = (np.repeat(v, length) for v in (np.arange(len(begin)), first, last - first))
    kept = np.flatnonzero(rank < MAX_DETECTIONS[-1])
    origin, score = origin[kept], score[kept]
    labels = boxes.labels[origin]
    curve = np.empty(len(kept), np.int64)
    curve[np.argsort(labels << 32 | score, kind="stable")] = np.arange(len(kept))
    group, first, count = (v[kept] for v in values)
    return _Found(origin, labels, group, rank[kept], first, count, truth, curve)


def _falling(scores: Array) -> Array:
    """Return int64 [N], 0 up to 2^32, that rise as the scores fall."""
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.int32).astype(np.int64)  # + 0: no two zeros
    return np.where(bits < 0, bits & 0x7FFFFFFF, -1 - bits) + 2**31


def _match(found: _Found, pairs: Pairs, outside: Sequence[Array], crowd: Array) -> tuple[Array, Array, Array]:
    """Match detections and objects in all forty worlds.

    Args:
        found: The detections.
        pairs: Pairs of detections and objects, both in the order of ``found``, that overlap enough.
        outside: bool [M] for each area, objects that do not count there.
        crowd: bool [M], in the order of ``found``.

    Returns:
        The C detections with pairs, int64, in the order of the curves; worlds in which they match, uint64 [C]; and
        worlds in which they match an object that counts, uint64 [C].
    """
    pairs = pairs.best_first(last=True)
    ignored = np.zeros(len(found.truth), np.uint64)
    for shift, out in zip(WORLDS, outside, strict=True):
        ignored |= np.where(out[found.truth], EVERY << shift, np.uint64(0))
    reached = (np.uint64(1) << np.searchsorted(OVERLAPS, pairs.overlap, "right").astype(np.uint64)) - np.uint64(1)
    allowed = reached | reached << WORLDS[SMALL] | reached << WORLDS[MEDIUM] | reached << WORLDS[LARGE]
    matched = match_greedily(pairs, found.group, len(ignored), allowed, ignored, crowd)
    first = starts_of(pairs.row)
    if not len(first):
        return first, matched, matched
    rows = pairs.row[first]
    hits, right = (np.bitwise_or.reduceat(m, first) for m in (matched, matched & ~ignored[pairs.column]))
    order = np.argsort(found.curve[rows])
    return rows[order], hits[order], right[order]


def _needed(objects: Array) -> Array:
    """Return how many right detections reach each recall, int64 [C, 101] from 1 on, for numbers of objects [C]."""
    number = np.ceil(RECALLS * objects[:, None])
    number -= (number - 1) / objects[:, None] >= RECALLS  # as COCO compares: rounding may have gone either way
    number += number / objects[:, None] < RECALLS
    return np.asarray(np.maximum(number, 1), np.int64)


def _curves(wrong: Array, number: Array, needed: Array) -> Array:
    """Return the precision of each class at each recall, [C, 101]; 0 at those that are not reached.

    Precision falls with every wrong detection, so the highest one at a recall or above is that of a right detection.

    Args:
        wrong: int64 [T], wrong detections before each right one, class by class and by falling score.
        number: int64 [C], right detections of each class.
        needed: int64 [C, 101], right detections that reach a recall.
    """
    start = number.cumsum() - number
    right = np.arange(len(wrong)) - np.repeat(start, number) + 1
    precision = right / (wrong + right + np.spacing(1))
    for k in np.flatnonzero(number > 1):
        part = precision[start[k] : start[k] + number[k]][::-1]
        np.maximum.accumulate(part, out=part)
    reached = needed <= number[:, None]
    place = np.where(reached, start[:, None] + needed - 1, len(precision))
    return np.append(precision, 0.0)[place]


def _mask_pairs(boxes: DataSetBoxes, found: _Found, masks: Sequence[ImageMasks]) -> tuple[Pairs, Array]:
    """Return the pairs of masks that overlap enough, and the area of each detection's mask, float32 [D]."""
    from faster_coco_eval.core import mask as coco

    areas = np.concatenate([m.found.areas() for m in masks])[found.origin]
    starts, truth_starts = (np.searchsorted(i, np.arange(len(masks) + 1)) for i in (boxes.image, boxes.truth_image))
    parts = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    begin = starts_of(found.group)
    both = np.flatnonzero(found.length[begin])
    ends = np.append(begin, len(found.group))
    for start, end in zip(begin[both].tolist(), ends[both + 1].tolist(), strict=True):
        image = int(boxes.image[found.origin[start]])
        columns = np.arange(found.first[start], found.first[start] + found.length[start])
        truth = found.truth[columns]
        ours = masks[image].found.select((found.origin[start:end] - starts[image]).tolist()).rles()
        theirs = masks[image].truth.select((truth - truth_starts[image]).tolist()).rles()
        overlap = np.asarray(coco.iou(ours, theirs, boxes.crowd[truth].astype(np.uint8).tolist()))  # [D, G]
        row, column = np.nonzero(overlap >= OVERLAPS[0])
        parts.append(Pairs(row + start, columns[column], overlap[row, column]))
    return Pairs(*(np.concatenate(p) for p in zip(*parts, strict=True))), areas
