"""How much each model of an ensemble shall count: fitted on labelled images, taken only where that is known to help.

Weights of a few models over a few hundred images are easily worse than equal ones, so three things hold them back.
Fitted weights are drawn towards equal ones by as much as the images say little. They are fitted on each half of the
images and judged on the other. And they are taken only where that gain is above zero with certainty.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import DataError
from visionkit.core.machine import choose_workers
from visionkit.core.prediction import Prediction
from visionkit.core.prefetch import prefetch_map
from visionkit.data.dataset import VisionDataset, load_sample
from visionkit.data.labels.masks import IGNORE
from visionkit.evaluation.intervals import expanded_percentile
from visionkit.evaluation.resampling import DRAWS, bootstrap_weights, resample
from visionkit.prediction.ensemble import Ensemble
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.segmentation.types import MaskPrediction

__all__ = ["FittedWeights", "equal", "fit_mixture", "fit_weights", "halves"]

Array = NDArray[Any]
Weights = tuple[float, ...]

PRIOR = 20.0
"""Images that say "all count the same" before the first one is looked at."""
LEAST = 20  # images or groups, from which on weights are fitted
NEARLY = 0.02  # from equal weights, which is not worth another one
MOST = 1000  # images that are looked at
MOST_BOXED = 200  # where boxes are put together anew for each weight that is tried
PIXELS = 500  # of an image
FLOOR = 1e-6  # least probability: a model that is wrong with certainty is not infinitely wrong
STEPS = 200  # of the fit of a mixture, at most
GRID = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Weights of the first of two models that are tried for boxes."""


@dataclass(frozen=True)
class FittedWeights:
    """What each model shall count.

    Args:
        weights: In the order of the models; they sum to 1.
        fitted: Whether they were fitted; else all are the same.
        reason: Why, in a line.
    """

    weights: Weights
    fitted: bool
    reason: str


def fit_weights(
    ensemble: Ensemble,
    dataset: VisionDataset[Any],
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    workers: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> FittedWeights:
    """Fit what each model of an ensemble counts on labelled images that they were not trained on.

    Probabilities of classes and pixels: the weights under which the truth is the most probable. Boxes: those of a few
    that give the highest average precision. At most ``MOST`` images are looked at, ``MOST_BOXED`` for boxes.

    Args:
        ensemble: The models.
        dataset: Images and truth with the ensemble's classes.
        groups: Of each image, what it belongs to, which stays together; None lets each stand alone.
        seed: Of the halves and the draws.
        workers: Threads that read images; None chooses by the machine.
        tell: Is told in a line that not all images are looked at.

    Raises:
        DataError: An image cannot be read.
    """
    kind = ensemble.head.prediction
    count = len(ensemble.names)
    fit: _Evidence
    if issubclass(kind, BoxPrediction):
        fit = _Boxes(ensemble)
    elif issubclass(kind, ClassPrediction | MaskPrediction):
        fit = _Mixture(ensemble)
    else:
        return FittedWeights(equal(count), False, "equal: they are not fitted for several heads")
    most = min(len(dataset), fit.most)
    chosen = [k * len(dataset) // most for k in range(most)]  # evenly spaced
    own = [k if groups is None else groups[k] for k in chosen]
    if len(set(own)) < LEAST:
        return FittedWeights(equal(count), False, f"equal: {len(set(own))} images are too few to fit others")
    if tell is not None and most < len(dataset):
        tell(f"weights of the models are fitted on {most} of {len(dataset)} images, evenly spaced")
    for target, parts in _predicted(ensemble, dataset, chosen, workers):
        fit.add(parts, target)
    sides = halves(own, seed)
    rows = [np.flatnonzero(sides == side) for side in (0, 1)]
    crossed = [fit.fit(rows[1 - side]) for side in (0, 1)]
    value, draws = fit.gain([crossed[side] for side in sides], list(bootstrap_weights(own, DRAWS, seed)))
    interval = expanded_percentile(draws, len(set(own)))
    said = f"{value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] {fit.unit}, cross-fitted on {len(chosen)} images"
    if interval.low <= 0:
        return FittedWeights(equal(count), False, f"equal: fitted ones are not shown to be better ({said})")
    weights = fit.fit(np.arange(len(chosen)))
    if max(abs(w - 1 / count) for w in weights) < NEARLY:
        return FittedWeights(equal(count), False, f"equal: fitted ones are nearly so ({said})")
    told = ", ".join(f"{name} {w:.2f}" for name, w in zip(ensemble.names, weights, strict=True))
    return FittedWeights(weights, True, f"{told}: better than equal ones by {said}")


def equal(count: int) -> Weights:
    """Return the same weight for so many models."""
    return (1 / count,) * count


def halves(groups: Sequence[Hashable], seed: int) -> NDArray[np.int64]:
    """Return for each image, int64 [N], the half 0 or 1 that it belongs to; groups stay whole."""
    numbers: dict[Hashable, int] = {}
    for group in groups:
        numbers[group] = numbers.get(group, 0) + 1
    order = list(numbers)
    side: dict[Hashable, int] = {}
    total = [0, 0]
    for k in np.random.default_rng(seed).permutation(len(order)).tolist():
        smaller = int(total[1] < total[0])
        side[order[k]] = smaller
        total[smaller] += numbers[order[k]]
    return np.array([side[group] for group in groups], np.int64)


def fit_mixture(chances: Array, counts: Array, prior: float = PRIOR) -> Weights:
    """Return the weights of M models under which answers are the most probable, drawn towards equal ones.

    It is the maximum of sum(counts * log(chances @ w)) + prior * mean(log(w)), a concave function, by expectation
    maximisation (Dempster, Laird and Rubin, 1977).

    Args:
        chances: float64 [N, M], the probability that each model gives the truth.
        counts: float64 [N], what each answer counts, in images.
        prior: What "all count the same" counts, in images, above 0.
    """
    models = chances.shape[1]
    weights: Array = np.full(models, 1 / models)
    for _ in range(STEPS):
        shares = chances * weights
        shares = shares / shares.sum(1, keepdims=True)
        new = (counts @ shares + prior / models) / (counts.sum() + prior)
        moved = np.abs(new - weights).max()
        weights = new
        if moved < 1e-7:
            break
    return tuple(weights.tolist())


def _predicted(
    ensemble: Ensemble, dataset: VisionDataset[Any], rows: Sequence[int], workers: int | None
) -> Iterator[tuple[Any, tuple[Prediction, ...]]]:
    """Yield the truth of each image, and what each model says of it."""
    targets: dict[str, Any] = {}
    scale = ensemble.scale()

    def read(row: int) -> Any:
        sample = load_sample(dataset, row, scale)
        targets[sample.info.id] = sample.target
        return ensemble.prepare(sample, keep=False)

    threads = choose_workers() if workers is None else workers
    items = prefetch_map(read, rows, threads=threads, depth=2 * ensemble.batch_size + threads)
    for found in ensemble.each(items):
        if isinstance(found, DataError):
            raise found
        sample, parts = found
        yield targets.pop(sample.info.id), parts


class _Evidence:
    """What images say of the weights."""

    most = MOST
    """Images that it looks at."""
    unit: str
    """Of the gain, in words."""

    def add(self, parts: Sequence[Prediction], target: Any) -> None:
        """Add an image."""
        raise NotImplementedError

    def fit(self, rows: Array) -> Weights:
        """Return the weights that some of the images want."""
        raise NotImplementedError

    def gain(self, weights: Sequence[Weights], draws: Sequence[Array]) -> tuple[float, Array]:
        """Return how much better weights of its own for each image are than equal ones, over all and for each draw."""
        raise NotImplementedError


class _Mixture(_Evidence):
    """Probabilities that the models give the truth, where all of them know it."""

    unit = "in the mean log-likelihood of the truth"

    def __init__(self, ensemble: Ensemble) -> None:
        joining = ensemble.members.joining
        self.common = [k for k, known in enumerate(joining.known.all(0).tolist()) if known]
        self.own = [[names.index(joining.classes[k]) for k in self.common] for names in joining.names]
        self.chances: list[Array] = []  # [R, M] of each image

    def add(self, parts: Sequence[Prediction], target: Any) -> None:
        """Add an image."""
        truth, several = self._truth(parts[0], target)
        columns = []
        for part, own in zip(parts, self.own, strict=True):
            if several:
                said = _probabilities(part)[own]  # [C] of the classes that all know
                columns.append(torch.where(truth, said, 1 - said))
                continue
            said = _probabilities(part, truth[0])[:, own]  # [R, C]
            said = said / said.sum(1, keepdim=True).clamp(min=FLOOR)
            columns.append(said.gather(1, truth[1][:, None])[:, 0])
        self.chances.append(torch.stack(columns, 1).double().clamp(FLOOR, 1.0).numpy())

    def _truth(self, part: Prediction, target: Any) -> tuple[Tensor, bool]:
        """Return bool [C] of several labels, else int64 [2, R]: pixel (0 of a class) and position of the class."""
        if isinstance(part, ClassPrediction) and part.multilabel:
            return target.scores[self.common] > 0.5, True
        place = torch.full((IGNORE + 1,), -1)
        if isinstance(part, ClassPrediction):
            place = torch.full((len(target.scores),), -1)
            ids = target.scores.argmax()[None]
        else:
            ids = target.mask.flatten().long()
        place[self.common] = torch.arange(len(self.common))
        where = (place[ids] >= 0).nonzero()[:, 0]
        if len(where) > PIXELS:
            generator = torch.Generator().manual_seed(len(self.chances))
            where = where[torch.randperm(len(where), generator=generator)[:PIXELS].sort().values]
        return torch.stack([where, place[ids[where]]]), False

    def fit(self, rows: Array) -> Weights:
        """Return the weights under which the truth of some images is the most probable."""
        some = [self.chances[k] for k in rows.tolist() if len(self.chances[k])]
        if not some:
            return equal(len(self.own))
        counts = np.concatenate([np.full(len(one), 1 / len(one)) for one in some])
        return fit_mixture(np.concatenate(some), counts)

    def gain(self, weights: Sequence[Weights], draws: Sequence[Array]) -> tuple[float, Array]:
        """Return the gain in mean log-likelihood, each image counting once."""
        same = np.full(len(self.own), 1 / len(self.own))
        pairs = zip(self.chances, weights, strict=True)
        each = np.array([np.log((c @ w) / (c @ same)).mean() if len(c) else 0.0 for c, w in pairs])
        drawn = np.array([float(each @ weight) / max(int(weight.sum()), 1) for weight in draws])
        return float(each.mean()), drawn


class _Boxes(_Evidence):
    """Boxes of the models, put together anew for each weight that is tried."""

    most = MOST_BOXED
    unit = "in mAP"

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self.parts: list[list[BoxPrediction]] = []
        self.targets: list[Any] = []
        self._tried: dict[Weights, DetectionMetric] = {}

    def add(self, parts: Sequence[Any], target: Any) -> None:
        """Add an image."""
        self.parts.append([BoxPrediction(p.boxes, p.scores, p.labels, p.size) for p in parts])
        self.targets.append(target)

    def fit(self, rows: Array) -> Weights:
        """Return the weights with the highest average precision of those tried, drawn towards equal ones."""
        models = len(self.ensemble.names)
        best = equal(models)
        for tried in _grid(models):
            if self._precision(tried, rows) > self._precision(best, rows):
                best = tried
        for model in range(models) if models > 2 else ():  # one after another, up and down
            for factor in (2.0, 0.5):
                tried = _scaled(best, model, factor)
                if self._precision(tried, rows) > self._precision(best, rows):
                    best = tried
        trust = len(rows) / (len(rows) + PRIOR)
        return tuple(trust * b + (1 - trust) * e for b, e in zip(best, equal(models), strict=True))

    def gain(self, weights: Sequence[Weights], draws: Sequence[Array]) -> tuple[float, Array]:
        """Return the gain in mean average precision."""
        metrics = (self._metric(weights), self._metric([equal(len(self.ensemble.names))] * len(self.parts)))
        ours, equals = (float(metric.compute()["map"]) for metric in metrics)
        drawn = [resample(metric, draws)["map"] for metric in metrics]
        return ours - equals, drawn[0] - drawn[1]

    def _precision(self, weights: Weights, rows: Array) -> float:
        if weights not in self._tried:
            self._tried[weights] = self._metric([weights] * len(self.parts))
        return float(self._tried[weights].redraw(rows.tolist())["map"])

    def _metric(self, weights: Sequence[Weights]) -> DetectionMetric:
        metric = DetectionMetric(self.ensemble.classes)
        for parts, target, own in zip(self.parts, self.targets, weights, strict=True):
            metric.update([self.ensemble.combine(parts, own)], [target])  # type: ignore[list-item]  # boxes give boxes
        return metric


def _grid(models: int) -> list[Weights]:
    return [(w, 1 - w) for w in GRID] if models == 2 else []


def _scaled(weights: Weights, model: int, factor: float) -> Weights:
    raised = [w * factor if k == model else w for k, w in enumerate(weights)]
    return tuple(w / sum(raised) for w in raised)


def _probabilities(part: Any, places: Tensor | None = None) -> Tensor:
    """Return the probabilities of the classes of an image [K], or of R rising pixels [R, K] (each 0 of a class).

    They are on the CPU. Those of all pixels of a photo would be gigabytes.
    """
    if places is not None and isinstance(part, MaskPrediction):
        found = part.probabilities_of(places)
    else:
        found = part.probabilities if places is None else part.probabilities[None].expand(len(places), -1)
    return found.detach().float().cpu()
