"""COCO's average precision and recall of a whole data set, by its rules and to its digits, without loops over images.

What COCO's code does image by image is done for all at once: detections are sorted once, the forty worlds of ten
overlaps and four ranges of area are bits of one number, and a curve is known from its right detections alone. What is
matched once can be counted again, each image as often as one likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionkit.data.labels.masks import ObjectMasks
from visionkit.tasks.detection.metrics.matching import DataSetBoxes, Pairs, box_pairs, match_greedily, starts_of

__all__ = [
    *("ALL", "AREAS", "LARGE", "LAST_NUMBER", "MAX_DETECTIONS", "MEDIUM", "OVERLAPS", "RECALLS", "SMALL", "WORLDS"),
    *("ImageMasks", "Matches", "bits_of", "match_coco", "needed_hits"),
]

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


class Matches(NamedTuple):
    """Detections that count, by class and falling score, with the worlds in which they match.

    Args:
        classes: Number of classes, K.
        labels: int64 [D].
        image: int64 [D], positions of their images.
        rank: int64 [D], position among those of the class in the image.
        hits: uint64 [D], worlds in which they match an object.
        right: uint64 [D], worlds in which that object counts.
        inside: bool [4, D], ranges of area in which the detections lie.
        runs: int64 [R], where a new class, score or image begins.
        truth_labels: int64 [M], of the objects.
        truth_image: int64 [M].
        truth_inside: bool [4, M], ranges of area in which the objects count.
        scores: float32 [D].
    """

    classes: int
    labels: Array
    image: Array
    rank: Array
    hits: Array
    right: Array
    inside: Array
    runs: Array
    truth_labels: Array
    truth_image: Array
    truth_inside: Array
    scores: Array

    def evaluate(self, weight: Array) -> tuple[Array, Array]:
        """Return COCO's precision [10, 101, K, 4] and recall [10, K, 4, 3] by IoU, recall, class, area and number.

        Precision is that of the best 100 detections of a class in an image, recall that of the best 1, 10 and 100. -1
        stands where the truth holds no such object.

        Args:
            weight: int64 [N], how often each image counts, copies side by side.
        """
        asked = weight[self.truth_image]
        objects = np.stack([_tally(self.truth_labels, asked * i, self.classes) for i in self.truth_inside], 1)  # [K, 4]
        precision = np.full((len(OVERLAPS), len(RECALLS), self.classes, len(AREAS)), -1.0)
        recall = np.full((len(OVERLAPS), self.classes, len(AREAS), len(MAX_DETECTIONS)), -1.0)
        labels, rank, hits, right, inside, times = self._counted(weight)
        start = np.searchsorted(labels, np.arange(self.classes))  # [K]
        matching = np.flatnonzero(hits)  # those that match somewhere
        for area, shift in enumerate(WORLDS):
            counted = np.flatnonzero(objects[:, area])
            needed = needed_hits(objects[counted, area])  # [C, 101]
            ours = times * inside[area]
            before = np.concatenate([[0], ours.cumsum()])  # detections of this size, along the curves
            overlap, own = np.nonzero(bits_of(hits[matching], shift))
            own = matching[own]  # [T], detections that match, overlap by overlap
            curve = overlap * self.classes + labels[own]
            # wrong are the detections of this size that match nothing: all of them without those that match
            met = np.concatenate([[0], ours[own].cumsum()])
            begin = (
                np.tile(before[start], len(OVERLAPS))
                - met[np.searchsorted(curve, np.arange(precision[:, 0, :, 0].size))]
            )
            wrong = before[own + 1] - met[1:] - begin[curve]
            good = (right[own] >> (shift + overlap.astype(np.uint64)) & np.uint64(1)) > 0
            own, curve, wrong, copies = own[good], curve[good], wrong[good], times[own[good]]
            best = [copies * (rank[own] < n) for n in MAX_DETECTIONS]
            number = np.stack([_tally(curve, c, len(begin)).reshape(len(OVERLAPS), -1)[:, counted] for c in best], -1)
            recall[:, counted, area] = number / objects[counted, area, None]
            curves = _curves(wrong, copies, number[..., LAST_NUMBER].reshape(-1), np.tile(needed, (len(OVERLAPS), 1)))
            precision[:, :, counted, area] = curves.reshape(len(OVERLAPS), -1, len(RECALLS)).transpose(0, 2, 1)
        return precision, recall

    def _counted(self, weight: Array) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Return labels, rank, hits, right and inside of the detections that count, and how often each does.

        Copies of an image share their scores and stand side by side on a curve. Where an image has several detections
        of one class and score, those of its first copy come before those of its second: they are repeated in turn.
        """
        times = weight[self.image]
        lengths = np.diff(self.runs, append=len(times))
        repeats = np.where((lengths > 1) & (times[self.runs] > 1), times[self.runs], 1)
        if (repeats > 1).any():
            first, length = np.repeat(self.runs, repeats), np.repeat(lengths, repeats)
            times = np.where(np.repeat(repeats, lengths) > 1, 1, times)
            offset = np.repeat(first - (length.cumsum() - length), length)
            kept = offset + np.arange(len(offset))
            kept = kept[times[kept] > 0]
        else:
            kept = np.flatnonzero(times)
        return (
            self.labels[kept], self.rank[kept], self.hits[kept], self.right[kept], self.inside[:, kept], times[kept],
        )  # fmt: skip


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
        curve: int64 [D], those of the detections here by class and falling score.
    """

    origin: Array
    labels: Array
    group: Array
    rank: Array
    first: Array
    length: Array
    truth: Array
    curve: Array


def match_coco(
    boxes: DataSetBoxes, classes: int, masks: Sequence[ImageMasks] | None = None, *, every: bool = False
) -> Matches:
    """Match the detections of a data set by COCO's rules.

    The overlap is that of the boxes, or of the masks where they are given. The area of an object is the one that its
    file tells, and that of a prediction the one of its box or of its mask.

    Args:
        boxes: Predictions and truth of all images.
        classes: Number of classes, K.
        masks: Those of each image.
        every: Whether detections of classes without any object are kept, too; they have no part in COCO's numbers.
    """
    wide = boxes.areas.astype(np.float64)
    outside = [(wide < low) | (wide > high) | boxes.crowd for low, high in AREAS]
    wanted = every | (np.bincount(boxes.truth_labels[~np.all(outside, 0)], minlength=classes) > 0)
    found = _sort(boxes, classes, wanted)
    truth_crowd = boxes.crowd[found.truth]
    if masks is None:
        places = boxes.boxes[found.origin]
        pairs = box_pairs(places, boxes.truth[found.truth], truth_crowd, found.first, found.length, OVERLAPS[0])
        sides = places[:, 2:].astype(np.float64) - places[:, :2]
        areas = sides.prod(1)
    else:
        pairs, areas = _mask_pairs(boxes, found, masks)
    hits, right = _match(found, pairs, outside, truth_crowd)
    inside = np.stack([(areas >= low) & (areas <= high) for low, high in AREAS])
    origin = found.origin[found.curve]
    labels, image = boxes.labels[origin], boxes.image[origin]
    score = _falling(boxes.scores[origin])
    differs = [v[1:] != v[:-1] for v in (labels, image, score)]
    runs = np.flatnonzero(np.concatenate([np.ones(min(1, len(score)), bool), np.any(differs, 0)]))
    return Matches(
        classes, labels, image, found.rank[found.curve], hits[found.curve], right[found.curve],
        inside[:, found.curve], runs, boxes.truth_labels, boxes.truth_image, ~np.stack(outside), boxes.scores[origin],
    )  # fmt: skip


def bits_of(worlds: Array, shift: np.uint64) -> Array:
    """Return the worlds of an area one by one, bool [10, D]."""
    bits: Array = (worlds >> (shift + np.arange(len(OVERLAPS), dtype=np.uint64)[:, None]) & np.uint64(1)) > 0
    return bits


def _tally(values: Array, times: Array, size: int) -> Array:
    """Return how often each value up to ``size`` occurs, int64 [size], when each counts some times."""
    return np.bincount(values, times, minlength=size).astype(np.int64)


def _sort(boxes: DataSetBoxes, classes: int, wanted: Array) -> _Found:
    """Sort detections and objects.

    Args:
        boxes: Predictions and truth.
        classes: Number of classes, K.
        wanted: bool [K], classes whose detections are kept: where the truth holds none they find nothing and cost time.
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
    curve = np.argsort(labels << 32 | score, kind="stable")
    group, first, count = (v[kept] for v in values)
    return _Found(origin, labels, group, rank[kept], first, count, truth, curve)


def _falling(scores: Array) -> Array:
    """Return int64 [N], 0 up to 2^32, that rise as the scores fall."""
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.int32).astype(np.int64)  # + 0: no two zeros
    return np.where(bits < 0, bits & 0x7FFFFFFF, -1 - bits) + 2**31


def _match(found: _Found, pairs: Pairs, outside: Sequence[Array], crowd: Array) -> tuple[Array, Array]:
    """Match detections and objects in all forty worlds.

    Args:
        found: The detections.
        pairs: Pairs of detections and objects, both in the order of ``found``, that overlap enough.
        outside: bool [M] for each area, objects that do not count there.
        crowd: bool [M], in the order of ``found``.

    Returns:
        For each detection the worlds in which it matches, and those in which it matches an object that counts; uint64
        [D] each.
    """
    pairs = pairs.best_first(last=True)
    ignored = np.zeros(len(found.truth), np.uint64)
    for shift, out in zip(WORLDS, outside, strict=True):
        ignored |= np.where(out[found.truth], EVERY << shift, np.uint64(0))
    reached = (np.uint64(1) << np.searchsorted(OVERLAPS, pairs.overlap, "right").astype(np.uint64)) - np.uint64(1)
    allowed = reached | reached << WORLDS[SMALL] | reached << WORLDS[MEDIUM] | reached << WORLDS[LARGE]
    matched = match_greedily(pairs, found.group, len(ignored), allowed, ignored, crowd)
    hits, right = np.zeros(len(found.group), np.uint64), np.zeros(len(found.group), np.uint64)
    first = starts_of(pairs.row)
    if len(first):
        rows = pairs.row[first]
        hits[rows] = np.bitwise_or.reduceat(matched, first)
        right[rows] = np.bitwise_or.reduceat(matched & ~ignored[pairs.column], first)
    return hits, right


def needed_hits(objects: Array) -> Array:
    """Return how many right detections reach each recall, int64 [C, 101] from 1 on, for numbers of objects [C]."""
    number = np.ceil(RECALLS * objects[:, None])
    number -= (number - 1) / objects[:, None] >= RECALLS  # as COCO compares: rounding may have gone either way
    number += number / objects[:, None] < RECALLS
    return np.asarray(np.maximum(number, 1), np.int64)


def _curves(wrong: Array, copies: Array, number: Array, needed: Array) -> Array:
    """Return the precision of each class at each recall, [C, 101]; 0 at those that are not reached.

    Precision falls with every wrong detection, so the highest one at a recall or above is that of a right detection,
    and of its copies that of the last one.

    Args:
        wrong: int64 [T], wrong detections before each right one, class by class and by falling score.
        copies: int64 [T], how often each right one counts, from 1 on.
        number: int64 [C], right detections of each class, counted that often.
        needed: int64 [C, 101], right detections that reach a recall.
    """
    start = number.cumsum() - number
    row = np.repeat(np.arange(len(copies)), copies)  # of each copy
    ends = copies.cumsum()
    first = np.append(row, len(copies))[np.append(start, len(row))]  # [C + 1], of each class
    right = ends - np.repeat(start, np.diff(first))
    precision = np.append(right / (wrong + right + np.spacing(1)), 0.0)
    reached = needed <= number[:, None]
    place = np.where(reached, start[:, None] + needed - 1, len(row))
    place = np.where(reached, np.append(row, 0)[place], first[1:, None])
    best: Array = np.maximum.reduceat(precision, place.reshape(-1)).reshape(place.shape)  # up to the next recall
    return np.maximum.accumulate(np.where(reached, best, 0.0)[:, ::-1], 1)[:, ::-1]


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
