"""The truth and the prediction of classification: one number a class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from visionkit.core.joining import Joining
from visionkit.core.prediction import Agreement, Prediction, Region, ids_of, reading_record, recorded
from visionkit.core.sample import ImageInfo
from visionkit.core.tally import Tally

__all__ = ["ClassPrediction", "ClassTarget"]

SHOWN_SHARE = 0.005  # of a class in a blend, from which on it is named


@dataclass(frozen=True)
class ClassTarget:
    """The classes of an image.

    Args:
        scores: float32 [K]; one-hot for one label, multi-hot for several, a blend after MixUp or CutMix.
        weights: float32 [K], the loss weight of each class, or None for equal weights. All targets of a data set
            share one tensor.
    """

    scores: Tensor
    weights: Tensor | None = None

    @classmethod
    def make(cls, labels: int | Sequence[int], num_classes: int) -> Self:
        """Make a target from class ids.

        Args:
            labels: The class, 0..K-1, or the classes that are present.
            num_classes: Number of classes, K.
        """
        scores = torch.zeros(num_classes)
        scores[[labels] if isinstance(labels, int) else list(labels)] = 1.0
        return cls(scores)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the target with its tensors on ``device``."""
        weights = None if self.weights is None else self.weights.to(device, non_blocking=non_blocking)
        return type(self)(self.scores.to(device, non_blocking=non_blocking), weights)

    def restore(self, info: ImageInfo) -> Self:
        """Return itself: classes have no pixels."""
        return self

    def names(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the classes that are present."""
        return [classes[i] for i in (self.scores > 0.5).nonzero().flatten().tolist()]

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Write the classes onto a copy of the image, uint8 [3, H, W]; those of a blend with their shares."""
        from visionkit.prediction.draw import draw_text

        present = sorted(((v, k) for k, v in enumerate(self.scores.tolist()) if v >= SHOWN_SHARE), key=lambda p: -p[0])
        texts = [names[k] if v > 1 - SHOWN_SHARE else f"{names[k]} {v:.0%}" for v, k in present]
        return draw_text(image, ", ".join(texts) or "(none)")


@dataclass(frozen=True)
class ClassPrediction(Prediction):
    """What a classifier says of an image.

    Args:
        probabilities: float32 [K]; they sum to 1 for one label, each is independent for several.
        multilabel: Whether several classes can be present at once.
        threshold: Probability from which a class counts as present; used with several labels only.
    """

    probabilities: Tensor
    multilabel: bool = False
    threshold: float = 0.5

    def restore(self, info: ImageInfo) -> Self:
        """Return itself: classes have no pixels."""
        return self

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Write label and probability onto a copy of the image, uint8 [3, H, W]."""
        from visionkit.prediction.draw import draw_text

        record = self.record(names)
        if self.multilabel:
            text = ", ".join(f"{n} {record['probabilities'][n]:.0%}" for n in record["labels"]) or "(none)"
        else:
            text = f"{record['label']} {record['score']:.0%}"
        return draw_text(image, text)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], names: Sequence[str]) -> Self:
        """Return the prediction of which :meth:`record` makes this record.

        A record of several labels does not hold the threshold: it becomes the lowest probability of the labels.

        Args:
            record: What ``record`` returned.
            names: Class names, in the order of their ids.

        Raises:
            DataError: The record is no such record, or a class has no probability in it.
        """
        found = recorded(record, "probabilities")
        with reading_record():
            probabilities = torch.tensor([float(recorded(found, name)) for name in names])
            if "labels" not in record:
                return cls(probabilities)
            present = [float(recorded(found, name)) for name in record["labels"]]
            return cls(probabilities, True, min(present, default=math.inf))

    @classmethod
    def merge(cls, parts: Sequence[Self], regions: Sequence[Region]) -> Self:
        """Return the mean of the probabilities; it does not matter what each view shows of the image.

        Args:
            parts: The predictions.
            regions: Not used.
        """
        return replace(parts[0], probabilities=torch.stack([p.probabilities for p in parts]).mean(0))

    @classmethod
    def combine(cls, parts: Sequence[Self], joining: Joining) -> Self:
        """Return the weighted mean of the probabilities, that of each class over the models that know it.

        Where models know different classes, those of one label are brought to a sum of 1 again; of several labels each
        stays the mean that it is. The threshold of several labels is the weighted mean of the models'.

        Args:
            parts: That of each model.
            joining: The classes and weights of the models.
        """
        first = parts[0]
        mean = first.probabilities.new_zeros(len(joining.classes), dtype=torch.float32)
        for part, ids, share in zip(parts, joining.ids, joining.shares.to(mean.device), strict=True):
            place = torch.tensor(ids, device=mean.device)
            mean[place] += share[place] * part.probabilities
        if joining.differ and not first.multilabel:
            mean = mean / mean.sum()
        thresholds = {part.threshold for part in parts}
        pairs = zip(parts, joining.weights, strict=True)
        threshold = first.threshold if len(thresholds) == 1 else sum(p.threshold * w for p, w in pairs)
        return replace(first, probabilities=mean, threshold=threshold)

    def select_classes(self, names: Sequence[str], kept: Sequence[str]) -> Self:
        """Return the probabilities of some classes alone; of one label they sum to 1 again.

        Args:
            names: Class names, in the order of the ids of this prediction.
            kept: Those to keep, in the order of the ids that come out.

        Raises:
            UsageError: A class is not among ``names`` or stands there twice.
        """
        left = self.probabilities[ids_of(names, kept)]
        if not self.multilabel:
            total = left.sum()
            left = left / total if total > 0 else torch.full_like(left, 1 / len(left))
        return replace(self, probabilities=left)

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return label (or labels), score and the probability of each class by name.

        One label: ``{"label": str, "score": float, "probabilities": {name: float}}``. Several: ``"labels"`` is the list
        of classes at or above the threshold, ``"label"`` the most probable class whatever its probability.
        """
        values = self.probabilities.tolist()
        best = max(range(len(values)), key=values.__getitem__)
        record: dict[str, Any] = {"label": names[best], "score": values[best]}
        if self.multilabel:
            record["labels"] = [n for n, v in zip(names, values, strict=True) if v >= self.threshold]
        record["probabilities"] = dict(zip(names, values, strict=True))
        return record

    @classmethod
    def tally(cls, record: Mapping[str, Any], min_score: float | None = None) -> dict[str, Tally]:
        """Return the label, or the labels, of a record."""
        labels = record.get("labels", [record["label"]])
        said = ", ".join(f"{name} {record['probabilities'][name]:.2f}" for name in labels)
        return {"classes": Tally(dict.fromkeys(labels or ["(no label)"], 1), said or "(no label)")}

    def agreement(self, other: Self) -> Agreement:
        """Return whether the most probable class is the same, and how far probabilities differ.

        Where several classes can be present it is how many of those that one of the two calls present both do.
        """
        mine, yours = self.probabilities.float(), other.probabilities.float()
        difference, scores = float((mine - yours).abs().sum()), float(mine.numel())
        if self.multilabel:
            here, there = mine >= self.threshold, yours >= other.threshold
            same, total = float((here & there).sum()), float((here | there).sum())
            return Agreement("of the labels are given by both", same, total, difference, scores)
        same = float(mine.argmax() == yours.argmax())
        return Agreement("of the pictures keep their class", same, 1, difference, scores)
