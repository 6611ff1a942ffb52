"""Pictures that are there more than once: the same bytes, the same picture stored anew, mirrored or cropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np

from visionkit.data.audit.alignment import Aligned, align, match, smoothed
from visionkit.data.audit.hashes import WHOLE, HashIndex, phash
from visionkit.data.audit.pictures import PictureFacts

__all__ = ["Duplicates", "Kind", "Pair", "find_duplicates"]

Array: TypeAlias = np.ndarray[Any, Any]
Kind = Literal["identical", "near", "flipped", "cropped"]

DISTANCE = 8  # bits of 64: no two of 2,300 photos of five sets that differ came closer than that by their whole
VALUES, EDGES = 0.93, 0.82  # correlations after alignment; copies of those photos had more, different ones less
_WINDOWS = (WHOLE, (0.05, 0.95), (0.0, 0.9), (0.1, 1.0), (0.1, 0.9))  # along an edge: what is left by a crop
_DEEP_WINDOWS = (WHOLE, (0.1, 0.9), (0.0, 0.8), (0.2, 1.0), (0.2, 0.8))
_LEAST = 0.7  # of an edge, that a part of a picture must have to be told from chance
_SAME_WINDOW = 0.02  # of an edge, by which a picture may be shifted and still be called the same
_FLAT = 2.0  # standard deviation of a thumbnail in gray values; the hash of less is noise
_MANY = 32  # pictures of a group, beyond which further pairs in it are not listed
_NEIGHBOURS = 8
_SLICE = 512  # pairs that are looked at together
_COARSE = np.packbits(np.add.outer(np.arange(8) // 4, np.arange(8) // 4) == 0).view(np.uint64)[0]
"""The bits of a hash that belong to the 4 x 4 lowest frequencies."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures of the same.

    Args:
        one: Position of the first of them.
        other: Position of the second, larger than ``one``.
        kind: ``identical``: the same bytes; ``near``: the same picture stored otherwise (size, quality, brightness) or
            the next frame; ``flipped``: its mirror image; ``cropped``: a part of it, or one that overlaps it.
        score: Correlation of their edges after alignment, 0.82..1.
    """

    one: int
    other: int
    kind: Kind
    score: float


@dataclass(frozen=True)
class Duplicates:
    """What is there more than once.

    Args:
        pairs: By position. In a group they connect all its pictures, but not each with each: of pictures with the same
            bytes or hash each is paired with the first, and in groups of more than 32 no more than that is listed.
        first: For each picture the first one of its group; its own position where it is alone. The same shape as
            ``first_twins`` has.
    """

    pairs: tuple[Pair, ...]
    first: tuple[int, ...]

    def groups(self) -> list[list[int]]:
        """Return the groups of two pictures or more, in order; the frames of a video are one group."""
        found: dict[int, list[int]] = {}
        for i, k in enumerate(self.first):
            found.setdefault(k, []).append(i)
        return [members for members in found.values() if len(members) > 1]


def find_duplicates(
    facts: Sequence[PictureFacts],
    *,
    features: Array | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Duplicates:
    """Find pictures of the same.

    Hashes propose pairs: each picture whole, against all pictures, their mirror images and their parts with up to a
    tenth cut off on each side. Thumbnails decide: one is laid over the other, and gray values and edges must match.
    Pictures of next to no contrast are compared by their bytes alone.

    Args:
        facts: As ``survey`` returns them.
        features: Of a network, [N, D], a row a picture: neighbours are proposed too, which finds smaller parts. The
            thumbnails decide as before, so that pictures that a network cannot tell apart are not called copies.
        progress: Called with (done, total) steps.
    """
    groups = _Groups(len(facts))
    for i, k in enumerate(_first_of_same_bytes(facts)):
        groups.join(k, i, "identical", 1.0)
    alone = (i for i in range(len(facts)) if groups.root[i] == i)
    usable = np.array([i for i in alone if (t := facts[i].thumbnail) is not None and t.std() >= _FLAT], np.int64)
    if not len(usable):
        return groups.result()
    thumbnails = np.stack([facts[i].thumbnail for i in usable])
    look = _Look(groups, usable, smoothed(thumbnails))
    hashes = phash(thumbnails)
    one, other = _same_hash(hashes)
    look.decide(one, other, _windows(WHOLE, WHOLE, len(one)))
    left = np.flatnonzero(groups.root[usable] == usable)
    index = HashIndex(hashes[left], DISTANCE)
    parts = list(product((False, True), _WINDOWS, _WINDOWS))
    for done, (mirrored, rows, columns) in enumerate(parts, 1):
        asked = phash(thumbnails[left], rows, columns, mirrored=mirrored)
        across = (1 - columns[1], 1 - columns[0]) if mirrored else columns  # in the mirror image
        for one, other in index.near(asked):
            look.decide(left[one], left[other], _windows(rows, across, len(one)), mirrored=mirrored)
        if done == 1 and len(thinned := left[groups.sparse(usable[left], hashes[left])]) < len(left):
            left, index = thinned, HashIndex(hashes[thinned], DISTANCE)
        if progress is not None:
            progress(done, len(parts))
    if features is not None:
        for one, other in _neighbours(np.asarray(features, np.float32)[usable]):
            for mirrored in (False, True):
                look.decide(one, other, None, mirrored=mirrored)
    return groups.result()


@dataclass
class _Look:
    """The decision by pixels.

    Args:
        groups: Where pairs are told.
        usable: Positions of the pictures that are looked at.
        smooth: As ``smoothed`` returns their thumbnails.
    """

    groups: _Groups
    usable: Array
    smooth: Array

    def decide(self, one: Array, other: Array, windows: Array | None, *, mirrored: bool = False) -> None:
        """Take those pairs of which the second shows a part of the first, or of its mirror image.

        Args:
            one: Which of those that are usable.
            other: The same, as many.
            windows: Part of the first (of its mirror image) that the second may show, [P, 4]; None where it is unknown.
            mirrored: Whether it is the mirror image.
        """
        for k in range(0, len(one), _SLICE):
            i, j = one[k : k + _SLICE], other[k : k + _SLICE]
            kept = self.groups.asks(self.usable[i], self.usable[j])
            if not kept.any():
                continue
            i, j = i[kept], j[kept]
            first = self.smooth[i][:, :, ::-1] if mirrored else self.smooth[i]
            second = self.smooth[j]
            found = align(first, second, _guessed(first, second) if windows is None else windows[k : k + _SLICE][kept])
            for at in np.flatnonzero(_same(found)):
                kind: Kind = "flipped" if mirrored else "near" if _is_whole(found.windows[at]) else "cropped"
                self.groups.join(int(self.usable[i[at]]), int(self.usable[j[at]]), kind, float(found.edges[at]))


class _Groups:
    """The pairs and groups found so far."""

    def __init__(self, count: int) -> None:
        self.root = np.arange(count)  # of each picture's group: its first picture
        self._sizes = np.ones(count, np.int64)
        self._members: dict[int, list[int]] = {}
        self._pairs: dict[tuple[int, int], Pair] = {}

    def asks(self, one: Array, other: Array) -> Array:
        """Return which pairs are still to be looked at."""
        together = self.root[one] == self.root[other]
        kept = (one != other) & ~(together & (self._sizes[self.root[one]] > _MANY))
        for k in np.flatnonzero(kept & together):
            kept[k] = _ordered(one[k], other[k]) not in self._pairs
        return np.asarray(kept)

    def sparse(self, pictures: Array, hashes: Array) -> Array:
        """Return which pictures are enough to find others by: of a large group one for each of its coarse looks."""
        roots = self.root[pictures]
        large = self._sizes[roots] > _MANY
        looks = np.stack((roots.astype(np.uint64), np.where(large, hashes & _COARSE, hashes)), axis=1)
        return np.sort(np.unique(looks, axis=0, return_index=True)[1])

    def join(self, one: int, other: int, kind: Kind, score: float) -> None:
        """Take a pair; nothing happens where it is one picture or known."""
        key = _ordered(one, other)
        if one == other or key in self._pairs:
            return
        self._pairs[key] = Pair(*key, kind, min(1.0, score))
        low, high = _ordered(self.root[one], self.root[other])
        if low != high:
            joined = self._members.pop(high, [high])
            self._members.setdefault(low, [low]).extend(joined)
            self.root[joined] = low
            self._sizes[low] += len(joined)

    def result(self) -> Duplicates:
        return Duplicates(tuple(self._pairs[k] for k in sorted(self._pairs)), tuple(self.root.tolist()))


def _ordered(one: Any, other: Any) -> tuple[int, int]:
    return (int(one), int(other)) if one < other else (int(other), int(one))


def _first_of_same_bytes(facts: Sequence[PictureFacts]) -> list[int]:
    first: dict[bytes, int] = {}
    return [first.setdefault(f.content, i) if f.file_size else i for i, f in enumerate(facts)]


def _same_hash(hashes: Array) -> tuple[Array, Array]:
    """Return the position of the first with the same hash for each that has one, and its own."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    leader = first[inverse]
    other = np.flatnonzero(leader != np.arange(len(hashes)))
    return leader[other], other


def _windows(rows: tuple[float, float], columns: tuple[float, float], count: int) -> Array:
    return np.broadcast_to(np.array((*rows, *columns)), (count, 4))


def _same(found: Aligned) -> Array:
    edges = found.windows[:, 1::2] - found.windows[:, ::2]  # [P, 2]
    return np.asarray((found.values >= VALUES) & (found.edges >= EDGES) & (edges >= _LEAST).all(axis=1))


def _is_whole(window: Array) -> bool:
    return bool(np.abs(window - np.array((*WHOLE, *WHOLE))).max() <= _SAME_WINDOW)


def _neighbours(features: Array) -> Iterator[tuple[Array, Array]]:
    """Yield each row with each of those nearest to it by angle, and the other way round, some at a time."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    count = min(_NEIGHBOURS, len(unit) - 1)
    if count < 1:
        return
    for start in range(0, len(unit), 512):
        alike = unit[start : start + 512] @ unit.T
        alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = -np.inf
        other = np.argpartition(-alike, count - 1, axis=1)[:, :count].ravel()
        one = np.repeat(np.arange(start, start + len(alike)), count)
        yield np.concatenate((one, other)), np.concatenate((other, one))


def _guessed(first: Array, second: Array) -> Array:
    """Return for each pair the window of the first picture, of some, in which it is most like the second, [P, 4]."""
    best, windows = np.full(len(first), -2.0), np.zeros((len(first), 4))
    for rows, columns in product(_DEEP_WINDOWS, _DEEP_WINDOWS):
        guess = _windows(rows, columns, len(first))
        values = match(first, second, guess)
        better = values > best
        best[better], windows[better] = values[better], guess[better]
    return windows
