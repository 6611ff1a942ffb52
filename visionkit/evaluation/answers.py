"""What a model answered, class by class: with which score, whether it was right, and what there was to find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from visionkit.core.errors import UsageError
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.metrics.average_precision import ALL
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget

__all__ = ["Answers", "Certainty", "Evidence"]

Array = NDArray[Any]

PIXELS = 100
"""Pixels of a picture that are kept, drawn at random with a seed: neighbours say the same."""
IGNORE = 255
LEAST = float(np.finfo(np.float32).tiny)  # of a probability, whose logarithm is taken


@dataclass(frozen=True)
class Answers:
    """All answers of one class: detections of it, pictures that were given it, pictures that may have it.

    Args:
        scores: float64 [N], falling.
        right: bool [N].
        unit: int64 [N], which of the U units each belongs to: pictures, or groups of them, that know nothing of each
            other.
        truths: int64 [U], how many things of the class each unit has.
    """

    scores: Array
    right: Array
    unit: Array
    truths: Array

    @classmethod
    def make(cls, scores: Array, right: Array, unit: Array, truths: Array) -> Answers:
        """Return answers that come in any order; of equal scores the order stays."""
        order = np.argsort(-scores, kind="stable")
        return cls(scores[order].astype(np.float64), right[order], unit[order], truths)

    def within(self, units: Array) -> Answers:
        """Return those of some units alone, a bool mask [U]; the others then are empty."""
        kept = units[self.unit]
        return Answers(self.scores[kept], self.right[kept], self.unit[kept], np.where(units, self.truths, 0))

    def things(self) -> tuple[Array, Array]:
        """Return of each thing of the class the score it was found with, -inf where it was not, and its unit.

        float64 [M], falling, and int64 [M]: as right answers of so many things.
        """
        scores, unit = self.scores[self.right], self.unit[self.right]
        missed = np.maximum(self.truths - np.bincount(unit, minlength=len(self.truths)), 0)
        left = np.repeat(np.arange(len(missed)), missed)
        return np.concatenate([scores, np.full(len(left), -np.inf)]), np.concatenate([unit, left])


@dataclass(frozen=True)
class Certainty:
    """How sure a model was of its answers, and what was true.

    Args:
        logs: float32 [N, C], logarithms of the probabilities of C possible answers; of yes and no, no comes first.
        truth: int64 [N], the true one.
        unit: int64 [N], as in :class:`Answers`.
        label: int64 [N], the class that is spoken of.
        what: What is answered: "pictures", "labels", "boxes", "masks" or "pixels".
    """

    logs: Array
    truth: Array
    unit: Array
    label: Array
    what: str

    @property
    def yes_no(self) -> bool:
        """Whether the certainty told is that of a yes, not that of the most probable one of several answers."""
        return self.what not in ("pictures", "pixels")

    def select(self, which: Array) -> Certainty:
        """Return some of the answers: a bool mask [N]."""
        return Certainty(self.logs[which], self.truth[which], self.unit[which], self.label[which], self.what)


class Evidence:
    """Keeps what thresholds and calibration are found from, beside a metric.

    Args:
        classes: Class names, in the order of their ids.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.images = 0
        self._unit: list[int] = []  # of each image
        self._known: dict[tuple[str, object], int] = {}
        self._kept: _Kept | None = None

    def update(
        self, predictions: Sequence[Any], targets: Sequence[Any], groups: Sequence[str | None] | None = None
    ) -> None:
        """Add the predictions and targets of a batch, both of length B, in pixels of the originals.

        Args:
            predictions: As the model says them, before any threshold; all of one kind.
            targets: The truth.
            groups: What pictures that belong together have in common, such as their video; None for a picture that is
                alone.

        Raises:
            UsageError: Such predictions have no certainty, as those of several heads.
        """
        if not predictions:
            return
        for place, group in enumerate(groups or [None] * len(predictions), self.images):
            key = ("image", place) if group is None else ("group", group)
            self._unit.append(self._known.setdefault(key, len(self._known)))
        self.images += len(predictions)
        if self._kept is None:
            self._kept = _kept(predictions[0], self.classes)
        self._kept.update(predictions, targets)

    @property
    def kind(self) -> str | None:
        """What is answered: "pictures", "labels", "boxes", "masks" or "pixels"; None before anything is."""
        return None if self._kept is None else self._kept.what

    @property
    def units(self) -> int:
        """Number of pictures, or groups of them, that know nothing of each other."""
        return len(self._known)

    @property
    def grouped(self) -> bool:
        """Whether some pictures belong together."""
        return self.units < self.images

    def answers(self) -> dict[str, Answers]:
        """Return all answers, by class.

        Raises:
            UsageError: Pixels are answered: their classes stand beside each other, without thresholds.
        """
        return {} if self._kept is None else self._kept.answers(np.array(self._unit))

    def certainty(self) -> Certainty | None:
        """Return how sure the model was; None without any answer."""
        found = None if self._kept is None else self._kept.certainty(np.array(self._unit))
        return found if found is not None and len(found.truth) else None


class _Kept(Protocol):
    """What is kept of one kind of predictions; ``unit`` is that of each image, int64 [images]."""

    what: str

    def update(self, predictions: Sequence[Any], targets: Sequence[Any]) -> None: ...

    def answers(self, unit: Array) -> dict[str, Answers]: ...

    def certainty(self, unit: Array) -> Certainty: ...


def _kept(prediction: Any, classes: tuple[str, ...]) -> _Kept:
    if isinstance(prediction, ClassPrediction):
        return _Classes(classes, several=prediction.multilabel)
    if isinstance(prediction, BoxPrediction):
        return _Objects(classes, masks=isinstance(prediction, InstancePrediction))
    if isinstance(prediction, MaskPrediction):
        return _Pixels()
    raise UsageError(
        f"thresholds and calibration: not of a {type(prediction).__name__}; of several heads take each out first "
        "(visionkit heads take)"
    )


class _Classes:
    def __init__(self, classes: tuple[str, ...], *, several: bool) -> None:
        self.classes = classes
        self.what = "labels" if several else "pictures"
        self._parts: list[tuple[Array, Array]] = []

    def update(self, predictions: Sequence[ClassPrediction], targets: Sequence[ClassTarget]) -> None:
        probabilities = torch.stack([p.probabilities for p in predictions]).detach().float().cpu().numpy()
        scores = torch.stack([t.scores for t in targets]).cpu().numpy()
        self._parts.append((probabilities, scores > 0.5 if self.what == "labels" else scores.argmax(1)))

    def _joined(self) -> tuple[Array, Array, Array]:
        """Return probabilities [N, K], truth, and which pictures have an answer, bool [N]."""
        probabilities, truth = (np.concatenate(values) for values in zip(*self._parts, strict=True))
        return probabilities, truth, np.isfinite(probabilities).all(1)

    def answers(self, unit: Array) -> dict[str, Answers]:
        probabilities, truth, answered = self._joined()
        units = int(unit.max()) + 1
        found = {}
        best = probabilities.argmax(1)
        for k, name in enumerate(self.classes):
            there = truth[:, k] if self.what == "labels" else truth == k
            asked = answered if self.what == "labels" else answered & (best == k)
            truths = np.bincount(unit[there], minlength=units)
            found[name] = Answers.make(probabilities[asked, k], there[asked], unit[asked], truths)
        return found

    def certainty(self, unit: Array) -> Certainty:
        probabilities, truth, answered = self._joined()
        probabilities, truth, unit = probabilities[answered], truth[answered], unit[answered]
        if self.what == "pictures":
            return Certainty(_logs(probabilities), truth, unit, probabilities.argmax(1), self.what)
        label = np.tile(np.arange(len(self.classes)), len(unit))
        unit = np.repeat(unit, len(self.classes))
        return _yes_no(probabilities.reshape(-1), truth.reshape(-1), unit, label, self.what)


class _Objects:
    def __init__(self, classes: tuple[str, ...], *, masks: bool) -> None:
        self.classes = classes
        self.what = "masks" if masks else "boxes"
        self._metric = DetectionMetric(classes, masks=masks)

    def update(self, predictions: Sequence[Any], targets: Sequence[Any]) -> None:
        self._metric.update(predictions, targets)

    def _matched(self, unit: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Return label, score, whether it is right, and unit of each detection that counts, and things [K, U]."""
        matches = self._metric.matches()
        right = (matches.right & np.uint64(1)) > 0  # of the lowest overlap, one half, and any area
        counted = right | ((matches.hits & np.uint64(1)) == 0)  # others lie in crowds
        kept = matches.truth_inside[ALL]
        things = np.zeros((len(self.classes), int(unit.max()) + 1), np.int64)
        np.add.at(things, (matches.truth_labels[kept], unit[matches.truth_image[kept]]), 1)
        return matches.labels[counted], matches.scores[counted], right[counted], unit[matches.image[counted]], things

    def answers(self, unit: Array) -> dict[str, Answers]:
        labels, scores, right, unit, things = self._matched(unit)
        found = {}
        for k, name in enumerate(self.classes):
            own = labels == k
            found[name] = Answers.make(scores[own], right[own], unit[own], things[k])
        return found

    def certainty(self, unit: Array) -> Certainty:
        label, scores, right, unit, _ = self._matched(unit)
        return _yes_no(scores, right, unit, label, self.what)


class _Pixels:
    what = "pixels"

    def __init__(self) -> None:
        self._parts: list[tuple[Array, Array, int]] = []
        self._images = 0

    def update(self, predictions: Sequence[MaskPrediction], targets: Sequence[MaskTarget]) -> None:
        for prediction, target in zip(predictions, targets, strict=True):
            truth = target.mask.reshape(-1).cpu().numpy()
            random = np.random.default_rng(self._images)
            places = np.sort(random.choice(len(truth), min(PIXELS, len(truth)), replace=False))
            places = places[truth[places] != IGNORE]
            if len(places):
                probabilities = prediction.probabilities_of(torch.from_numpy(places)).cpu().numpy()  # [P, K]
                self._parts.append((probabilities, truth[places].astype(np.int64), self._images))
            self._images += 1

    def answers(self, unit: Array) -> dict[str, Answers]:
        raise UsageError(
            "--choose: pixels take the most probable class and have no threshold; to find more of a rare class, train "
            "with --data.balance loss (or crops)"
        )

    def certainty(self, unit: Array) -> Certainty:
        if not self._parts:
            none = np.zeros(0, np.int64)
            return Certainty(np.zeros((0, 2), np.float32), none, none, none, self.what)
        probabilities, truth, images = zip(*self._parts, strict=True)
        said = np.concatenate(probabilities)
        image = np.repeat(np.array(images), [len(part) for part in truth])
        return Certainty(_logs(said), np.concatenate(truth), unit[image], said.argmax(1), self.what)


def _logs(probabilities: Array) -> Array:
    """Return logarithms, float32."""
    logs: Array = np.log(np.maximum(probabilities.astype(np.float64), LEAST)).astype(np.float32)
    return logs


def _yes_no(scores: Array, right: Array, unit: Array, label: Array, what: str) -> Certainty:
    wide = scores.astype(np.float64).clip(0, 1)
    return Certainty(_logs(np.stack([1 - wide, wide], 1)), right.astype(np.int64), unit, label, what)
