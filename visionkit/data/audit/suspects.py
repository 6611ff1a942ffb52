"""Labels that look wrong: what a simple classifier, trained without them, says of each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from visionkit.core.errors import UsageError

__all__ = ["Suspect", "label_suspects", "out_of_fold"]

Array: TypeAlias = np.ndarray[Any, Any]
_FOLDS = 5
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # of the ridge, beside the mean variance along an axis
_SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # by which the answers are multiplied before the softmax


@dataclass(frozen=True, slots=True)
class Suspect:
    """A picture whose label is doubted.

    Args:
        position: Of the picture.
        given: Its label.
        likelier: The label that is likelier by the other pictures.
        probability: Of the given label, 0..1.
        likelier_probability: Of the likelier one.
    """

    position: int
    given: int
    likelier: int
    probability: float
    likelier_probability: float


def label_suspects(features: Any, labels: Sequence[int], groups: Sequence[int] | None = None) -> list[Suspect]:
    """Return the pictures for which another label is likelier than their own, the least likely labels first.

    Args:
        features: As in :func:`out_of_fold`.
        labels: As in :func:`out_of_fold`.
        groups: As in :func:`out_of_fold`.

    Raises:
        UsageError: As in :func:`out_of_fold`.
    """
    given = np.asarray(labels, np.int64)
    chances = out_of_fold(features, given.tolist(), groups)
    everyone = np.arange(len(given))
    own = chances[everyone, given]
    likelier = chances.argmax(axis=1)
    return [
        Suspect(i, int(given[i]), int(likelier[i]), float(own[i]), float(chances[i, likelier[i]]))
        for i in np.argsort(own, kind="stable").tolist()
        if likelier[i] != given[i]
    ]


def out_of_fold(features: Any, labels: Sequence[int], groups: Sequence[int] | None = None) -> Array:
    """Return for each picture the probability of each label, by a classifier that was trained without the picture.

    A linear classifier by ridge regression on one column a label, in five folds. Its strength, and the scale by which
    its answers become probabilities, are those of some that make the given labels likeliest out of fold. The same each
    time.

    Args:
        features: Of a frozen network, finite, [N, D]; an array or a tensor.
        labels: Of each picture, 0 or more.
        groups: What must not be learned from and judged by, copies and frames of a video: one number a group. None
            where each picture stands alone.

    Returns:
        float64 [N, labels]. A label whose pictures are all in one fold is never learned there: it has few chances.

    Raises:
        UsageError: The lengths differ, or the features are not finite.
    """
    values = np.asarray(features.detach().cpu() if hasattr(features, "detach") else features, np.float32)
    given = np.asarray(labels, np.int64)
    if values.ndim != 2 or len(values) != len(given) or (groups is not None and len(groups) != len(given)):
        raise UsageError(f"features {list(values.shape)} for {len(given)} labels; give a row of them a picture")
    if not np.isfinite(values).all():
        raise UsageError("features: some are not finite; use another network or leave these pictures out")
    count = int(given.max(initial=0)) + 1
    if len(given) < 2:
        return np.full((len(given), count), 1 / count)
    folds = _folds(given, np.arange(len(given)) if groups is None else np.asarray(groups))
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    answers = _answers(values, given, folds, count)  # one a strength
    best, chances = -np.inf, np.zeros((len(given), count))
    for answer in answers:
        for scale in _SCALES:
            tried = _softmax(answer * scale)
            likely = float(np.log(np.maximum(tried[np.arange(len(given)), given], 1e-12)).mean())
            if likely > best:
                best, chances = likely, tried
    return chances


def _folds(labels: Array, groups: Array) -> Array:
    """Return the fold of each picture: groups stay whole, and each takes the fold that has least of its label."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, groups[order][1:] != groups[order][:-1]])
    members = np.split(order, starts[1:])
    held = np.zeros((int(labels.max()) + 1, _FOLDS), np.int64)
    folds = np.empty(len(labels), np.int64)
    for member in sorted(members, key=lambda m: (-len(m), m[0])):
        label = labels[member[0]]
        fold = min(range(_FOLDS), key=lambda k: (held[label, k], held[:, k].sum(), k))
        folds[member] = fold
        held[:, fold] += np.bincount(labels[member], minlength=len(held))
    return folds


def _answers(values: Array, labels: Array, folds: Array, count: int) -> Array:
    """Return what a ridge regression trained on the other folds answers, [strengths, N, labels].

    The products of all folds are computed once; those of a fold are taken off for the pictures in it.
    """
    products, sums, targets = [], [], []
    for fold in range(_FOLDS):
        inside = folds == fold
        x, hot = values[inside].astype(np.float64), np.eye(count)[labels[inside]]
        products.append(x.T @ x)
        targets.append(x.T @ hot)
        sums.append((len(x), x.sum(0), hot.sum(0)))
    total = sum(products), sum(targets), [sum(s) for s in zip(*sums, strict=True)]
    answers = np.zeros((len(_STRENGTHS), len(values), count))
    for fold in range(_FOLDS):
        inside = folds == fold
        number, x_sum, hot_sum = (a - b for a, b in zip(total[2], sums[fold], strict=True))
        if not inside.any() or number < 1:
            continue
        centre, shares = x_sum / number, hot_sum / number
        covariance = total[0] - products[fold] - number * np.outer(centre, centre)
        towards = total[1] - targets[fold] - number * np.outer(centre, shares)
        lengths, axes = np.linalg.eigh(covariance)
        seen = (values[inside] - centre) @ axes
        wanted = axes.T @ towards
        unit = max(float(lengths.sum()) / len(lengths), 1e-12)
        for k, strength in enumerate(_STRENGTHS):
            answers[k, inside] = seen @ (wanted / (np.maximum(lengths, 0) + strength * unit)[:, None]) + shares
    return answers


def _softmax(answers: Array) -> Array:
    raised = np.exp(answers - answers.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
