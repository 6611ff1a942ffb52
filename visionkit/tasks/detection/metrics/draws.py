"""Average precision a thousand times over, of images that count more or less often: what a bootstrap needs.

What does not change with the weights is worked out once. A draw then is a few sums along lists: of the detections of
each range of area, and of those of them that match, for each overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionkit.tasks.detection.metrics.average_precision import (
    ALL,
    AREAS,
    LARGE,
    MAX_DETECTIONS,
    MEDIUM,
    OVERLAPS,
    RECALLS,
    SMALL,
    WORLDS,
    Matches,
    bits_of,
    needed_hits,
)

__all__ = ["AveragePrecisionDraws", "Drawn"]

Array = NDArray[Any]
A, T, R = len(AREAS), len(OVERLAPS), len(RECALLS)  # areas, overlaps from which a detection is right, recalls
NEVER = np.iinfo(np.int32).max


class Drawn(NamedTuple):
    """COCO's numbers when images count as often as some weights say.

    Args:
        average: float64 [4, 10, K], average precision by area, overlap and class.
        recall: float64 [4, 10, K], that of the best 100 detections of a class in an image.
        first: float64 [2, 10, K], that of the best 1 and 10, of any area.
        asked: bool [4, K], whether there are such objects.
    """

    average: Array
    recall: Array
    first: Array
    asked: Array

    def values(self) -> dict[str, float]:
        """Return the twelve numbers, without those that do not occur."""
        means = {
            "map": (self.average[ALL], ALL), "map_50": (self.average[ALL, :1], ALL),
            "map_75": (self.average[ALL, 5:6], ALL),
            "map_small": (self.average[SMALL], SMALL), "map_medium": (self.average[MEDIUM], MEDIUM),
            "map_large": (self.average[LARGE], LARGE),
            "mar_1": (self.first[0], ALL), "mar_10": (self.first[1], ALL), "mar_100": (self.recall[ALL], ALL),
            "mar_small": (self.recall[SMALL], SMALL), "mar_medium": (self.recall[MEDIUM], MEDIUM),
            "mar_large": (self.recall[LARGE], LARGE),
        }  # fmt: skip
        asked = [np.flatnonzero(which) for which in self.asked]
        return {key: float(part[:, asked[a]].mean()) for key, (part, a) in means.items() if len(asked[a])}

    def of_classes(self, names: Sequence[str], keys: Sequence[str]) -> dict[str, float]:
        """Return ``key/<class>`` of the classes that occur, over all overlaps and, as a second key, at 0.5."""
        found: dict[str, float] = {}
        asked = self.asked[ALL].tolist()
        for key, part in zip(keys, (self.average[ALL].mean(0), self.average[ALL, 0]), strict=False):
            found |= {f"{key}/{n}": v for n, v, is_asked in zip(names, part.tolist(), asked, strict=True) if is_asked}
        return found


class AveragePrecisionDraws:
    """Gives the numbers for weights of the images, in time that goes by the detections that match.

    Copies of an image stand side by side: where an image has several detections of a class with the same score, their
    order can differ from that of :meth:`Matches.evaluate`. For ones as weights both are the same.

    Args:
        matches: What is found, matched with the truth.
    """

    def __init__(self, matches: Matches) -> None:
        self._classes = k = matches.classes
        areas, labels = [np.flatnonzero(inside) for inside in matches.inside], matches.labels
        truths = [np.flatnonzero(inside) for inside in matches.truth_inside]
        self._truth_image = np.concatenate([matches.truth_image[t] for t in truths])
        self._truth_key = np.concatenate([a * k + matches.truth_labels[t] for a, t in enumerate(truths)])
        self._seen_image = np.concatenate([matches.image[own] for own in areas])  # [S], detections area by area
        matching = np.flatnonzero(matches.hits)
        parts, starts, base = [], [], 0
        for area, (own, shift) in enumerate(zip(areas, WORLDS, strict=True)):
            passed = np.concatenate([[0], matches.inside[area].cumsum()]) + base  # before each detection
            overlap, entry = np.nonzero(bits_of(matches.hits[matching], shift))
            entry = matching[entry]
            good = (matches.right[entry] >> (shift + overlap.astype(np.uint64)) & np.uint64(1)) > 0
            within = matches.inside[area][entry]
            kept = good | within  # others neither count nor take anything away
            entry, overlap, good, within = entry[kept], overlap[kept], good[kept], within[kept]
            curve = (area * T + overlap) * k + labels[entry]
            parts.append((matches.image[entry], passed[entry + 1], curve, good, within, matches.rank[entry]))
            starts.append(np.tile(passed[np.searchsorted(labels, np.arange(k))], T))
            base += len(own)
        image, place, curve, good, within, rank = (np.concatenate(v) for v in zip(*parts, strict=True))
        self._image, self._place = image, place  # [E], entries: a detection that matches, area by area and overlap
        self._good, self._within = good.astype(np.int32), within.astype(np.int32)
        self._bounds = np.searchsorted(curve, np.arange(A * T * k + 1))  # of the entries of each curve
        self._lengths = np.diff(self._bounds)
        self._start = np.concatenate(starts)  # of each curve among the detections
        self._rows = np.arange(len(image), dtype=np.int32)
        firsts = [np.flatnonzero((good > 0) & (rank < n) & (curve < T * k)) for n in MAX_DETECTIONS[:2]]
        self._firsts = [(image[f], np.searchsorted(curve[f], np.arange(T * k + 1))) for f in firsts]

    def __call__(self, weight: Array) -> Drawn:
        """Return the numbers when image k counts ``weight[k]`` times, int64 [N]."""
        k, times = self._classes, weight.astype(np.int32)
        objects = np.bincount(self._truth_key, times[self._truth_image], minlength=A * k).astype(np.int64)  # [A * K]
        before = _sums(times[self._seen_image])  # [S + 1]
        copies = times[self._image]
        right = _sums(copies * self._good)  # [E + 1]
        met = _sums(copies * self._within)
        ends = self._bounds[1:], self._bounds[:-1]
        number = right[ends[0]] - right[ends[1]]  # of each curve
        # all that counts up to an entry: right ones, and those of this size that match nothing
        counted = right[1:] + before[self._place] - met[1:]
        counted -= np.repeat(right[ends[1]] + before[self._start] - met[ends[1]], self._lengths)
        precision = (right[1:] - np.repeat(right[ends[1]], self._lengths)) / (counted + np.spacing(1))
        average = self._average(precision, np.repeat(self._rows, copies * self._good), right[ends[1]], number, objects)
        asked = objects.reshape(A, 1, k)
        shown = np.maximum(asked, 1)
        first = [np.diff(_sums(times[image])[bounds]).reshape(T, k) / shown[ALL] for image, bounds in self._firsts]
        return Drawn(average, number.reshape(A, T, k) / shown, np.stack(first), asked[:, 0] > 0)

    def _average(self, precision: Array, rows: Array, first: Array, number: Array, objects: Array) -> Array:
        """Return the average precision, float64 [4, 10, K]: the mean over 101 recalls of the best one from there on.

        Args:
            precision: float64 [E], at each entry.
            rows: int32, the entry of each right detection, as often as it counts.
            first: int32 [C], right detections before each curve.
            number: int32 [C], of each curve.
            objects: int64 [4 * K].
        """
        k = self._classes
        needed = np.full((A * k, R), NEVER, np.int32)
        needed[objects > 0] = needed_hits(objects[objects > 0])
        needed = needed.reshape(A, 1, k, R)
        reached = (needed <= number.reshape(A, T, k, 1)).reshape(-1)
        place = np.broadcast_to(needed, (A, T, k, R)).reshape(-1)[reached]
        place += np.repeat(first - 1, reached.reshape(-1, R).sum(1))
        best = np.zeros(len(reached))
        if len(place):
            best[reached] = np.maximum.reduceat(precision, rows[place])  # up to the next recall that is reached
        curves = np.ascontiguousarray(best.reshape(-1, R).T)  # [101, C]
        for recall in range(R - 2, -1, -1):
            np.maximum(curves[recall], curves[recall + 1], out=curves[recall])
        average: Array = curves.mean(0).reshape(A, T, k)
        return average


def _sums(values: Array) -> Array:
    """Return the sums of the first 0, 1, ... N values, int32 [N + 1]."""
    sums = np.zeros(len(values) + 1, np.int32)
    np.cumsum(values, dtype=np.int32, out=sums[1:])
    return sums
