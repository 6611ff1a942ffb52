"""Which detection belongs to which object, for a whole data set at once: pairs, their overlaps, and greedy matching.

Detections and objects of all images lie in flat arrays, image after image. Only pairs that overlap enough are kept, and
matching goes in turns: in each turn one detection of every group chooses, so that the number of steps goes by the
largest group and not by the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DataSetBoxes", "Pairs", "box_pairs", "match_greedily", "starts_of"]

Array = NDArray[Any]
CHUNK = 1 << 17  # pairs whose overlap is computed at once: a few megabytes, which stay in the cache


class DataSetBoxes(NamedTuple):
    """What is predicted and what is true in a data set, image after image; boxes are xyxy in pixels of the originals.

    Args:
        images: Number of images.
        boxes: float32 [N, 4], predicted.
        scores: float32 [N].
        labels: int64 [N], class ids.
        image: int64 [N], positions of their images; never falling.
        truth: float32 [M, 4].
        truth_labels: int64 [M].
        truth_image: int64 [M]; never falling.
        crowd: bool [M], boxes that are neither asked for nor wrong to find.
        areas: float32 [M], pixels of the original.
    """

    images: int
    boxes: Array
    scores: Array
    labels: Array
    image: Array
    truth: Array
    truth_labels: Array
    truth_image: Array
    crowd: Array
    areas: Array


class Pairs(NamedTuple):
    """Pairs of a detection (row) and an object (column) that overlap.

    Args:
        row: int64 [P], never falling.
        column: int64 [P].
        overlap: float64 [P].
    """

    row: Array
    column: Array
    overlap: Array

    def select(self, which: Array) -> Pairs:
        """Return some of the pairs: a bool mask [P] or positions."""
        return Pairs(self.row[which], self.column[which], self.overlap[which])

    def best_first(self, *, last: bool) -> Pairs:
        """Return them with each row's columns by falling overlap; of equal ones the ``last`` or the first leads."""
        return self.select(np.lexsort((-self.column if last else self.column, -self.overlap, self.row)))


def starts_of(values: Array) -> Array:
    """Return where a new value starts among values that lie side by side, int64."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])


def box_pairs(boxes: Array, truth: Array, crowd: Array, first: Array, count: Array, least: float) -> Pairs:
    """Return the pairs that overlap by ``least`` or more, by row, then by column.

    The overlap is intersection over union, with a crowd the part of the detection that lies in it; computed as COCO's
    own code does it, in float64 and from corners and sides. Memory goes by the pairs that are kept.

    Args:
        boxes: [N, 4], xyxy.
        truth: [M, 4], xyxy.
        crowd: bool [M].
        first: int64 [N], the first of the objects that each row is compared with.
        count: int64 [N], how many follow.
        least: Above 0.
    """
    a, b = _sided(boxes), _sided(truth)
    parts = [_overlapping(a, b, crowd, *rows, least) for rows in _chunks(first, count)]
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(p) for p in zip(*parts, strict=True)))


def match_greedily(
    pairs: Pairs, group: Array, columns: int, allowed: Array, ignored: Array | None = None, shared: Array | None = None
) -> Array:
    """Give each row, in order, its first pair whose column is free; in up to 64 independent worlds at once.

    Worlds are the bits of the masks, such as thresholds of overlap and ranges of area. A row takes a column that it may
    ignore in a world only where none of the others is free, and none but ``shared`` columns are taken twice.

    Args:
        pairs: Columns of a row in the order in which it wants them. Rows of a group lie side by side, in the order in
            which they choose; pairs of different groups have no column in common.
        group: int64 [N], the group of each row.
        columns: Number of columns, M.
        allowed: uint64 [P], worlds in which the pair may match.
        ignored: uint64 [M], worlds in which the column is ignored; None for none.
        shared: bool [M], columns that may be taken by many; None for none.

    Returns:
        uint64 [P], worlds in which the pair is matched.
    """
    matched = np.zeros(len(pairs.row), np.uint64)
    if not len(matched):
        return matched
    first = starts_of(pairs.row)
    line = np.zeros(len(matched), np.int64)  # position of a pair's row among those that have pairs
    line[first[1:]] = 1
    line = line.cumsum()
    place = np.arange(len(matched)) - first[line]  # of a pair in its row
    groups = group[pairs.row[first]]
    begin = starts_of(groups)
    turn = (np.arange(len(first)) - np.repeat(begin, np.diff(begin, append=len(first))))[line]
    order = np.lexsort((place, turn))
    line, column, permitted = line[order], pairs.column[order], allowed[order]
    key = turn[order] * (place.max() + 1) + place[order]
    begin = starts_of(key)
    steps = list(
        zip(begin.tolist(), [*begin[1:].tolist(), len(key)], strict=True)
    )  # a row and a column occur once each
    leading = np.flatnonzero(place[order][begin] == 0).tolist()  # steps that start a turn
    taken, done = np.zeros(columns, np.uint64), np.zeros(len(first), np.uint64)
    open_to_all = np.where(shared, ~np.uint64(0), np.uint64(0)) if shared is not None else None
    result = np.zeros(len(key), np.uint64)
    wanted = permitted if ignored is None else permitted & ~ignored[column]
    second = None if ignored is None else permitted & ignored[column]
    for start, end in zip(leading, [*leading[1:], len(steps)], strict=True):
        for low, high in steps[start:end]:
            rows, picked = line[low:high], column[low:high]
            gained = wanted[low:high] & ~(taken[picked] | done[rows])
            taken[picked] |= gained
            done[rows] |= gained
            result[low:high] = gained
        if second is None or not second[steps[start][0] : steps[end - 1][1]].any():
            continue
        for low, high in steps[start:end]:
            rows, picked = line[low:high], column[low:high]
            busy = taken[picked] if open_to_all is None else taken[picked] & ~open_to_all[picked]
            gained = second[low:high] & ~(busy | done[rows])
            taken[picked] |= gained
            done[rows] |= gained
            result[low:high] |= gained
    matched[order] = result
    return matched


def _sided(boxes: Array) -> Array:
    """Return x, y, width, height and area, float64 [5, N], of boxes xyxy [N, 4]."""
    x1, y1, x2, y2 = np.asarray(boxes, np.float64).T
    width, height = x2 - x1, y2 - y1
    return np.stack([x1, y1, width, height, width * height])


def _chunks(first: Array, count: Array) -> Iterator[tuple[Array, Array]]:
    """Yield rows and columns of all pairs, about ``CHUNK`` at a time."""
    rows = np.flatnonzero(count)
    ends = np.concatenate([[0], count[rows].cumsum()])
    start = 0
    while start < len(rows):
        end = max(start + 1, int(np.searchsorted(ends, ends[start] + CHUNK, "right")) - 1)
        some = rows[start:end]
        number = count[some]
        offset = first[some] - (ends[start:end] - ends[start])
        yield np.repeat(some, number), np.repeat(offset, number) + np.arange(ends[end] - ends[start])
        start = end


def _overlapping(a: Array, b: Array, crowd: Array, row: Array, column: Array, least: float) -> Pairs:
    """Return those of the pairs that overlap enough; ``a`` and ``b`` are what ``_sided`` returns."""
    x, y = a[0][row], b[0][column]
    width = np.minimum(a[2][row] + x, b[2][column] + y) - np.maximum(x, y)
    near = np.flatnonzero(width > 0)
    row, column, width = row[near], column[near], width[near]
    x, y = a[1][row], b[1][column]
    height = np.minimum(a[3][row] + x, b[3][column] + y) - np.maximum(x, y)
    near = np.flatnonzero(height > 0)
    row, column = row[near], column[near]
    common = width[near] * height[near]
    own = a[4][row]
    overlap = common / np.where(crowd[column], own, own + b[4][column] - common)
    kept = np.flatnonzero(overlap >= least)
    return Pairs(row[kept], column[kept], overlap[kept])
