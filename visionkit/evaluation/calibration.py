"""Whether a model is as sure as it is right: reliability by score, and what one temperature would mend.

Nothing of it is applied by itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.evaluation.answers import Certainty, Evidence
from visionkit.evaluation.intervals import wilson

__all__ = ["calibration_error", "calibration_of", "negative_log_likelihood", "temperature_of"]

Array = NDArray[Any]

BINS = 15
LARGEST = 20.0  # temperatures lie between 1 over this and this
MOST_VALUES = 20_000_000  # logarithms that a temperature is found from
LIKELY = 0.5  # score from which on a yes counts in the sentence: what is hardly believed says little


def calibration_of(evidence: Evidence) -> dict[str, Any] | None:
    """Return the "calibration" entry of an evaluation: how sure the model is, and how often it is right then.

    The calibration error is that of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3, of
    the most probable class; with several labels that of every yes; of boxes that of "there is such an object here, at
    an overlap of one half" (Küppers et al., "Multivariate Confidence Calibration for Object Detection", CVPR Workshops
    2020, by score alone). One temperature (Guo et al., section 4.2) is found by Newton's method; what it would change
    is told of halves of the pictures, found on one and told on the other.

    Args:
        evidence: What the model answered.

    Returns:
        ``{"kind", "n", "bins": [{"low", "high", "count", "confidence", "accuracy", "accuracy_low", "accuracy_high"}],
        "ece", "nll", "temperature", "ece_after", "nll_after", "says", "is", "is_low", "is_high", "verdict", "words",
        "classes": {name: {"says", ..., "words"}}}``; what comes after is null of one picture alone. None where nothing
        was answered, or where answers come without certainty.
    """
    found = evidence.certainty()
    if found is None:
        return None
    sure, right = _sure(found, 1.0)
    if sure.min() == sure.max():  # read from files without scores
        return None
    temperature = temperature_of(found.logs, found.truth)
    after = _cross_fitted(found)
    entry = {
        "kind": found.what,
        "n": len(sure),
        "bins": _bins(sure, right),
        "ece": calibration_error(sure, right),
        "nll": negative_log_likelihood(found.logs, found.truth, 1.0),
        "temperature": temperature,
        "ece_after": None if after is None else after[0],
        "nll_after": None if after is None else after[1],
    }
    classes = {}
    for k, name in enumerate(evidence.classes):
        own = found.label == k
        if own.any():
            classes[name] = _said(found.select(own), sure[own], right[own])
    return {**entry, **_said(found, sure, right), "classes": classes}


def calibration_error(sure: Array, right: Array, bins: int = BINS) -> float:
    """Return the mean distance of certainty and share that is right, over bins of equal width.

    Args:
        sure: [N], 0..1.
        right: bool [N].
        bins: Number of bins (0, 1/bins], (1/bins, 2/bins], ...
    """
    place = _place(sure, bins)
    gaps = np.bincount(place, right, bins) - np.bincount(place, sure, bins)
    return float(np.abs(gaps).sum() / len(sure))


def negative_log_likelihood(logs: Array, truth: Array, temperature: float) -> float:
    """Return the mean of -log of the probability of what is true, at a temperature.

    Args:
        logs: [N, C], logarithms of probabilities.
        truth: int64 [N].
        temperature: Above 0; 1 leaves them as they are.
    """
    return float(-_scaled(logs, 1 / temperature)[np.arange(len(truth)), truth].mean())


def temperature_of(logs: Array, truth: Array) -> float:
    """Return the temperature at which what is true is the most likely: above 1 the model is too sure.

    With b = 1 / temperature the mean of -log softmax(b logs)[truth] is convex: Newton's method, within bounds that are
    halved where it leaves them.

    Args:
        logs: [N, C], logarithms of probabilities.
        truth: int64 [N].
    """
    step = max(1, -(-logs.size // MOST_VALUES))
    logs, truth = logs[::step].astype(np.float64), truth[::step]
    low, high, b = 1 / LARGEST, LARGEST, 1.0
    own = logs[np.arange(len(truth)), truth]
    for _ in range(60):
        probabilities = np.exp(_scaled(logs, b))
        mean = (probabilities * logs).sum(1)
        slope = float((mean - own).mean())
        bend = float(((probabilities * logs**2).sum(1) - mean**2).mean())
        if slope > 0:
            high = b
        else:
            low = b
        following = b - slope / bend if bend > 0 else math.inf
        following = following if low < following < high else math.sqrt(low * high)
        if abs(following - b) <= 1e-9 * b:
            break
        b = following
    return 1 / b


def _scaled(logs: Array, b: float) -> Array:
    """Return log softmax(b logs), float64 [N, C]."""
    scaled = logs.astype(np.float64) * b
    scaled -= scaled.max(1, keepdims=True)
    scaled -= np.log(np.exp(scaled).sum(1, keepdims=True))
    return scaled


def _sure(found: Certainty, temperature: float) -> tuple[Array, Array]:
    """Return how sure each answer is at a temperature, float64 [N], and whether it is right, bool [N]."""
    probabilities = np.exp(_scaled(found.logs, 1 / temperature))
    if found.yes_no:
        return probabilities[:, 1], found.truth == 1
    return probabilities.max(1), probabilities.argmax(1) == found.truth


def _cross_fitted(found: Certainty) -> tuple[float, float] | None:
    """Return calibration error and likelihood at temperatures that were found on the other half of the pictures."""
    units = np.unique(found.unit)
    first = np.zeros(int(units.max()) + 1, bool)
    first[np.random.default_rng(0).permutation(units)[: len(units) // 2]] = True
    here = first[found.unit]
    if not here.any() or here.all():
        return None
    sure, right, total = [], [], 0.0
    for half in (here, ~here):
        temperature = temperature_of(found.logs[half], found.truth[half])
        other = found.select(~half)
        parts = _sure(other, temperature)
        sure.append(parts[0])
        right.append(parts[1])
        total += negative_log_likelihood(other.logs, other.truth, temperature) * len(other.truth)
    return calibration_error(np.concatenate(sure), np.concatenate(right)), total / len(found.truth)


def _place(sure: Array, bins: int) -> Array:
    place: Array = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    return place


def _bins(sure: Array, right: Array) -> list[dict[str, Any]]:
    """Return the bins that hold something."""
    place = _place(sure, BINS)
    found = []
    for k in range(BINS):
        own = place == k
        count, hits = int(own.sum()), int(right[own].sum())
        if count:
            interval = wilson(hits, count)
            found.append({
                "low": k / BINS, "high": (k + 1) / BINS, "count": count, "confidence": float(sure[own].mean()),
                "accuracy": hits / count, "accuracy_low": interval.low, "accuracy_high": interval.high,
            })  # fmt: skip
    return found


def _said(found: Certainty, sure: Array, right: Array) -> dict[str, Any]:
    """Return how sure the model is on average beside how often it is right, with a verdict, and all in a sentence."""
    likely = sure >= LIKELY if found.yes_no else np.ones(len(sure), bool)
    what = found.what
    if not likely.any():
        words = f"no {what} from a score of {LIKELY} on: whether the model is as sure as it is right cannot be said"
        return {"says": None, "is": None, "is_low": None, "is_high": None, "verdict": None, "words": words}
    n, hits, says = int(likely.sum()), int(right[likely].sum()), float(sure[likely].mean())
    interval = _interval(right[likely], found.unit[likely])
    verdict = "too sure" if says > interval[1] else "not sure enough" if says < interval[0] else "about right"
    part = f" from a score of {LIKELY} on" if found.yes_no else ""
    told = verdict if verdict != "about right" else "as sure as it should be, as far as these tell"
    words = f"says {says:.2f} where {hits / n:.2f} is right: {told} ({n:,} {what}{part})"
    return {
        "says": says,
        "is": hits / n,
        "is_low": interval[0],
        "is_high": interval[1],
        "verdict": verdict,
        "words": words,
    }


def _interval(right: Array, unit: Array) -> tuple[float, float]:
    """Return the interval of a share, of fewer things than there are where those of a picture are alike."""
    share = float(right.mean())
    _, place = np.unique(unit, return_inverse=True)
    effect = 1.0
    if 0 < share < 1:
        deviation = np.bincount(place, right - share)
        effect = max(1.0, float((deviation**2).sum() / (len(right) * share * (1 - share))))
    n = max(1.0, len(right) / effect)
    interval = wilson(share * n, n)
    return interval.low, interval.high
