"""64 bits that hardly change where a picture is made smaller or compressed, and the search for those that are close."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any, TypeAlias

import numpy as np

__all__ = ["WHOLE", "HashIndex", "phash", "sampling"]

Array: TypeAlias = np.ndarray[Any, Any]
WHOLE = (0.0, 1.0)
"""The window along an edge that is the whole edge."""

_CHUNK = 2**21  # candidate pairs that are looked at together
_FEW = 4096  # hashes, up to which each is compared with each


def sampling(starts: Array, ends: Array, side: int) -> Array:
    """Return matrices that sample ``side`` values of a window of as many values, linearly interpolated.

    Args:
        starts: Where each window begins, [P], as a share of the edge; outside of 0..1 the outermost value is repeated.
        ends: Where each window ends, [P].
        side: Number of values.

    Returns:
        float32 [P, side, side]; the product with values [side] are the values in the window.
    """
    middles = (np.arange(side) + 0.5) / side
    at = np.clip((starts[:, None] + (ends - starts)[:, None] * middles) * side - 0.5, 0, side - 1)
    low = np.minimum(at.astype(np.int64), side - 2)
    matrices = np.zeros((len(starts), side, side), np.float32)
    np.put_along_axis(matrices, low[:, :, None], (1 - (at - low))[:, :, None], axis=2)
    np.put_along_axis(matrices, low[:, :, None] + 1, (at - low)[:, :, None], axis=2)
    return matrices


def phash(
    thumbnails: Array,
    rows: tuple[float, float] = WHOLE,
    columns: tuple[float, float] = WHOLE,
    *,
    mirrored: bool = False,
) -> Array:
    """Return the perceptual hash of each picture, or of a part of it.

    The signs of the 8 x 8 lowest frequencies of its cosine transform, less their median (pHash; Zauner 2010, section
    3.2.1). A window of the picture and its mirror image are linear maps of the thumbnail: no pixels are read again.

    Args:
        thumbnails: Gray values, uint8 [N, S, S].
        rows: Start and end of the part, as shares of the height.
        columns: Start and end of the part, as shares of the width.
        mirrored: Of the part's mirror image, left and right exchanged.

    Returns:
        uint64 [N].
    """
    side = thumbnails.shape[1]
    waves = np.cos(np.pi / side * np.outer(np.arange(8), np.arange(side) + 0.5)).astype(np.float32)  # [8, S]
    down, across = (waves @ sampling(np.array([a]), np.array([b]), side)[0] for a, b in (rows, columns))
    found = [np.zeros(0, np.uint64)]
    for start in range(0, len(thumbnails), 4096):
        lowest = down @ thumbnails[start : start + 4096].astype(np.float32) @ across.T  # [n, 8, 8]
        if mirrored:
            lowest = lowest * np.array([1, -1] * 4, np.float32)
        flat = lowest.reshape(-1, 64)
        bits = flat > np.median(flat[:, 1:], axis=1, keepdims=True)  # without the mean
        found.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
    return np.concatenate(found)


class HashIndex:
    """Hashes of 64 bits that can be asked for those within some distance: exact, whatever their number.

    A multi-index (Norouzi, Punjani, Fleet 2012): where two hashes differ in d bits, there is one of b bands in which
    they differ in d // b bits at most; for each way to change so many bits of a band its table is looked up.

    Args:
        hashes: uint64 [N].
        distance: Number of bits in which those that are found differ at most, 0..11.
    """

    def __init__(self, hashes: Array, distance: int) -> None:
        self.hashes = np.ascontiguousarray(hashes, np.uint64)
        self.distance = distance
        bands = 4 if distance < 4 else 3
        self._flips = distance // bands
        edges = [64 * k // bands for k in range(bands + 1)]
        self._bands = [(np.uint64(a), np.uint64((1 << (b - a)) - 1), b - a) for a, b in pairwise(edges)]
        self._tables: list[tuple[Array, Array, Array]] = []  # hashes by key, where each key begins, which are there
        for band in self._bands if len(hashes) > _FEW else ():
            keys = _key(self.hashes, band)
            starts = np.zeros(2 ** band[2] + 1, np.int64)
            np.cumsum(np.bincount(keys, minlength=2 ** band[2]), out=starts[1:])
            self._tables.append((np.argsort(keys, kind="stable"), starts, starts[1:] > starts[:-1]))

    def near(self, queries: Array) -> Iterator[tuple[Array, Array]]:
        """Yield all pairs of a query and a hash within the distance, some at a time, each pair once.

        Args:
            queries: uint64 [Q].

        Yields:
            Positions of queries and those of hashes, int64 [K] each.
        """
        queries = np.ascontiguousarray(queries, np.uint64)
        if not self._tables:
            rows = max(1, _CHUNK // max(1, len(self.hashes)))
            for start in range(0, len(queries), rows):
                far = np.bitwise_count(queries[start : start + rows, None] ^ self.hashes)
                one, other = np.nonzero(far <= self.distance)
                if len(one):
                    yield one + start, other
            return
        for number, (band, (order, starts, there)) in enumerate(zip(self._bands, self._tables, strict=True)):
            keys = _key(queries, band)
            by_key = np.argsort(keys, kind="stable")  # neighbours in the table are looked up one after the other
            keys = keys[by_key]
            for mask in _masks(band[2], self._flips):
                asked = keys ^ mask
                asking = np.flatnonzero(there[asked])
                begins = starts[asked[asking]]
                for one, place in _expanded(asking, begins, starts[asked[asking] + 1] - begins):
                    i, j = by_key[one], order[place]
                    differ = queries[i] ^ self.hashes[j]
                    kept = np.bitwise_count(differ) <= self.distance
                    i, j, differ = i[kept], j[kept], differ[kept]
                    first = np.ones(len(i), bool)  # whether no band before this one has found the pair
                    for before in self._bands[:number]:
                        first &= np.bitwise_count(_key(differ, before)) > self._flips
                    if first.any():
                        yield i[first], j[first]


def _key(hashes: Array, band: tuple[np.uint64, np.uint64, int]) -> Array:
    return ((hashes >> band[0]) & band[1]).astype(np.int64)


def _masks(width: int, most: int) -> list[int]:
    """Return all ways to change up to so many bits of a band."""
    return [sum(1 << bit for bit in bits) for k in range(most + 1) for bits in combinations(range(width), k)]


def _expanded(asking: Array, begins: Array, counts: Array) -> Iterator[tuple[Array, Array]]:
    """Yield each one that asks with each place from its first on, about ``_CHUNK`` of them at a time."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(asking):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        n = counts[start:stop]
        first = np.repeat(begins[start:stop] - (ends[start:stop] - n - done), n)
        yield np.repeat(asking[start:stop], n), first + np.arange(ends[stop - 1] - done)
        start = stop
