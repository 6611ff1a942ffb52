"""Whether two small pictures show the same: one is laid over the other, then values and edges are compared."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from visionkit.data.audit.hashes import sampling

__all__ = ["Aligned", "align", "match", "smoothed"]

Array: TypeAlias = np.ndarray[Any, Any]
_TURNS = 6
_STEP = 0.04  # of an edge, by which a side of the window moves at most in a turn
_OUTSIDE = 0.13  # of an edge, by which a window may leave the picture: where two pictures overlap
_BATCH = 512


@dataclass(frozen=True)
class Aligned:
    """How well pairs of pictures match after the one was laid over the other.

    Args:
        windows: Part of the first picture that the second one shows: top, bottom, left, right as shares, [P, 4].
        values: Correlation of gray values there, -1..1, [P].
        edges: Correlation of their changes along rows and columns, -1..1, [P]: pictures that merely are smooth alike,
            sky above a field, match in values but not in these.
    """

    windows: Array
    values: Array
    edges: Array


def smoothed(thumbnails: Array) -> Array:
    """Return float32 [N, S, S] without the finest detail, which a shift of half a pixel changes, of uint8 [N, S, S]."""
    padded = np.pad(thumbnails.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16)


def align(first: Array, second: Array, windows: Array) -> Aligned:
    """Find the part of each first picture that the second one shows, beginning from a guess.

    Least squares over the four sides of the window, brightness and contrast, by Gauss-Newton (Lucas and Kanade
    1981; Baker and Matthews 2004, section 3.4.1); guesses that are off by a twentieth of an edge are good enough.

    Args:
        first: As :func:`smoothed` returns them, [P, S, S].
        second: The same.
        windows: Guesses: top, bottom, left, right as shares of the first picture, [P, 4].
    """
    parts = [
        _align(first[k : k + _BATCH], second[k : k + _BATCH], windows[k : k + _BATCH])
        for k in range(0, max(1, len(first)), _BATCH)
    ]
    return Aligned(*(np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(Aligned)))


def match(first: Array, second: Array, windows: Array) -> Array:
    """Return the correlation of gray values of parts of each first picture with the second, [P].

    Args:
        first: As in :func:`align`.
        second: As in :func:`align`.
        windows: Parts of the first pictures, [P, 4].
    """
    rows, columns = _views(windows, first.shape[1])
    return _correlation(rows @ first @ columns, second)


def _views(windows: Array, side: int) -> tuple[Array, Array]:
    """Return the matrices [P, S, S] by which pictures are multiplied from the left and the right to see windows."""
    return sampling(windows[:, 0], windows[:, 1], side), sampling(windows[:, 2], windows[:, 3], side).transpose(0, 2, 1)


def _align(first: Array, second: Array, windows: Array) -> Aligned:
    side = first.shape[1]
    slopes = np.gradient(first, axis=1) * side, np.gradient(first, axis=2) * side
    windows = windows.astype(np.float64)
    best = windows.copy()
    values = edges = np.full(len(first), -2.0)
    for _ in range(_TURNS + 1):  # the last turn looks at what the one before it has found
        rows, columns = _views(windows, side)
        seen = rows @ first @ columns  # [P, S, S]
        found = _correlation(seen, second)
        better = found > values
        best[better] = windows[better]
        edges = np.where(better, _edges(seen, second), edges)
        values = np.where(better, found, values)
        step = _step(seen, rows @ slopes[0] @ columns, rows @ slopes[1] @ columns, second)
        windows = np.clip(windows + step, -_OUTSIDE, 1 + _OUTSIDE)
    return Aligned(best, values, edges)


def _step(seen: Array, down: Array, across: Array, wanted: Array) -> Array:
    """Return by how much each side of the windows should move, [P, 4].

    Args:
        seen: Pictures in the windows, [P, S, S].
        down: Their slopes along the columns, a whole edge as unit, [P, S, S].
        across: Their slopes along the rows.
        wanted: What they should look like, but for brightness and contrast, [P, S, S].
    """
    count, side = len(seen), seen.shape[1]
    along = ((np.arange(side) + 0.5) / side).astype(np.float32)
    sides = (down * (1 - along)[:, None], down * along[:, None], across * (1 - along), across * along)
    by = np.stack((*sides, seen, np.ones_like(seen)), axis=1).reshape(count, 6, -1)
    normal = (by @ by.transpose(0, 2, 1)).astype(np.float64)
    normal += np.eye(6) * (1e-6 * np.trace(normal, axis1=1, axis2=2) + 1e-6)[:, None, None]
    solved = np.linalg.solve(normal, (by @ wanted.reshape(count, -1, 1)).astype(np.float64))[:, :, 0]
    contrast = np.where(np.abs(solved[:, 4]) < 0.1, 0.1, solved[:, 4])
    return np.asarray(np.clip(solved[:, :4] / contrast[:, None], -_STEP, _STEP))


def _edges(one: Array, other: Array) -> Array:
    """Return the correlation of the changes along columns and rows of two pictures [P, S, S], [P]."""
    a, b = (np.concatenate((np.gradient(x, axis=1), np.gradient(x, axis=2)), axis=1) for x in (one, other))
    return _cosine(a, b)


def _correlation(one: Array, other: Array) -> Array:
    return _cosine(one - one.mean(axis=(1, 2), keepdims=True), other - other.mean(axis=(1, 2), keepdims=True))


def _cosine(one: Array, other: Array) -> Array:
    """Return the cosine of the angle between two pictures [P, H, W], [P]."""
    squares = np.einsum("pij,pij->p", one, one) * np.einsum("pij,pij->p", other, other)
    return np.asarray(np.einsum("pij,pij->p", one, other) / np.sqrt(squares + 1e-6))
