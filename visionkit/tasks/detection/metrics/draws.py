"""Average precision a thousand times over, of images that count more or less often: what a bootstrap needs.

What does not change with the weights is worked out once. A draw then is a few sums along lists: of the detections of
each range of area, and of those of them that match, for each overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
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
        images: Number of images, N.
    """

    def __init__(self, matches: Matches, images: int) -> None:
        self._classes = k = matches.classes
        labels, matching = matches.labels, np.flatnonzero(matches.hits)
        parts, starts, seen, base = [], [], [], 0
        for area, shift in enumerate(WORLDS):
            inside = matches.inside[area]
            passed = np.concatenate([[0], inside.cumsum()]) + base  # detections of the lists before each one
            overlap, entry = np.nonzero(bits_of(matches.hits[matching], shift))
            entry = matching[entry]
            good = (matches.right[entry] >> (shift + overlap.astype(np.uint64)) & np.uint64(1)) > 0
            kept = good | inside[entry]  # others neither count nor take anything away
            entry, overlap, good = entry[kept], overlap[kept], good[kept]
            curve = (area * T + overlap) * k + labels[entry]
            parts.append((matches.image[entry], passed[entry + 1], curve, good, inside[entry], matches.rank[entry]))
            starts.append(np.tile(passed[np.searchsorted(labels, np.arange(k))], T))
            seen.append(matches.image[inside])
            base += len(seen[-1])
        image, place, curve, good, within, rank = (np.concatenate(v) for v in zip(*parts, strict=True))
        self._image = image  # [E], entries: a detection that matches, area by area and overlap by overlap
        self._good, self._over = good.astype(np.int32), good.astype(np.int32) - within.astype(np.int32)
        bounds = np.searchsorted(curve, np.arange(A * T * k + 1))
        self._first, self._end, self._lengths = bounds[:-1], bounds[1:], np.diff(bounds)  # of each curve
        self._filled = np.flatnonzero(self._lengths)
        self._steps = 2.0 * np.repeat(np.arange(A * T * k), self._lengths[::-1])
        # where the lists of detections are read: what lies between two places is added up at once
        places, where = np.unique(np.concatenate([place, *starts]), return_inverse=True)
        self._place, self._start = where[: len(place)], where[len(place) :]
        gap = np.searchsorted(places, np.arange(base), "right")
        self._gaps = _counter(gap, np.concatenate(seen), len(places) + 1, images)
        objects = [
            (a * k + matches.truth_labels[i], matches.truth_image[i]) for a, i in enumerate(matches.truth_inside)
        ]
        row, of = (np.concatenate(v) for v in zip(*objects, strict=True))
        self._objects = _counter(row, of, A * k, images)
        best = [good & (rank < n) & (curve < T * k) for n in MAX_DETECTIONS[:2]]
        self._best = [_counter(curve[which], image[which], T * k, images) for which in best]

    def __call__(self, weight: Array) -> Drawn:
        """Return the numbers when image k counts ``weight[k]`` times, int64 [N]."""
        times = weight.astype(np.int32)
        objects = self._objects @ times  # [A * K]
        copies = times[self._image]
        right = _sums(copies * self._good)  # [E + 1]
        number = (right[self._end] - right[self._first]).reshape(A, T, -1)
        average = self._average(copies, right, _sums(self._gaps @ times)[1:], objects)
        asked = np.maximum(objects, 1).reshape(A, 1, -1)
        first = [(best @ times).reshape(T, -1) / asked[ALL] for best in self._best]
        return Drawn(average, number / asked, np.stack(first), objects.reshape(A, -1) > 0)

    def _average(self, copies: Array, right: Array, before: Array, objects: Array) -> Array:
        """Return the average precision, float64 [4, 10, K]: the mean over 101 recalls of the best one from there on.

        Args:
            copies: int32 [E], how often each entry counts.
            right: int32 [E + 1], right ones up to each entry, over all curves.
            before: int32, detections of the lists up to each place.
            objects: int32 [4 * K].
        """
        # all that counts up to an entry: right ones, and those of this size that match nothing
        over = _sums(copies * self._over)
        counted = before[self._place] + over[1:]
        counted -= np.repeat(before[self._start] + over[self._first], self._lengths)
        ours = right[1:] - np.repeat(right[self._first], self._lengths)
        best = np.empty(len(ours))
        np.divide(ours, counted + np.spacing(1), out=best[::-1])  # from the last curve's end to the first one's start
        best += self._steps  # which lifts each curve above all those behind it
        best = torch.from_numpy(best).cummax(0).values.numpy()
        best -= self._steps
        # recalls that each entry is the first to reach: of each number of right ones it is known how many it reaches
        wanted = np.where(objects > 0, objects + 1, 0)
        offset = (wanted.cumsum() - wanted).astype(np.int32)  # of the numbers 0, 1, ... of each class and size
        needed = needed_hits(objects[objects > 0]) + offset[objects > 0, None]
        reaches = _sums(np.bincount(needed.reshape(-1), minlength=int(wanted.sum()) + 1).astype(np.int32))[1:]
        offset = np.broadcast_to(offset.reshape(A, 1, -1), (A, T, self._classes)).reshape(-1)
        reached = reaches[ours + np.repeat(offset, self._lengths)]
        gained, begin = np.diff(reached, prepend=0), self._first[self._filled]
        gained[begin] = reached[begin] - reaches[offset[self._filled]]
        average = np.zeros(len(self._lengths))
        average[self._filled] = np.add.reduceat(best[::-1] * gained, begin) / R
        return average.reshape(A, T, -1)


def _counter(row: Array, image: Array, rows: int, images: int) -> Any:
    """Return a sparse matrix [rows, images] that holds how often each image stands in each row."""
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(row), np.int32), (row, image)), shape=(rows, images))


def _sums(values: Array) -> Array:
    """Return the sums of the first 0, 1, ... N values, int32 [N + 1]; torch adds up several times as fast as numpy."""
    sums = np.zeros(len(values) + 1, np.int32)
    torch.cumsum(torch.from_numpy(values), 0, dtype=torch.int32, out=torch.from_numpy(sums[1:]))
    return sums
