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

__all__ = ["NOT_SURE", "ClassPrediction", "ClassTarget"]

NOT_SURE = "(not sure)"
"""What pictures count as whose label does not reach its threshold."""

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
        thresholds: The same for each class, float32 [K], where each has its own; None where all have ``threshold``.
        sure: Whether the label reaches its class's threshold; None where there are no thresholds, and with several
            labels.
    """

    probabilities: Tensor
    multilabel: bool = False
    threshold: float = 0.5
    thresholds: Tensor | None = None
    sure: bool | None = None

    def present(self) -> Tensor:
        """Return which classes count as present, bool [K]; used with several labels only."""
        return self.probabilities >= (self.threshold if self.thresholds is None else self.thresholds)

    def over(self, thresholds: Mapping[str, float | None], names: Sequence[str]) -> Self:
        """Return the prediction with each class's threshold: of one label it says whether that is sure.

        Of a class of which nothing is promised a label is never sure; of several labels it keeps ``threshold``.

        Args:
            thresholds: Class name -> probability, 0..1, or None; a class that is not named has none.
            names: Class names, in the order of their ids.
        """
        if not any(name in thresholds for name in names):
            return self
        if self.multilabel:
            chosen = [thresholds.get(name) for name in names]
            least = [self.threshold if value is None else value for value in chosen]
            return replace(self, thresholds=self.probabilities.new_tensor(least))
        score, best = self.probabilities.max(0)
        wanted = thresholds.get(names[int(best)], 0.0)
        return replace(self, sure=wanted is not None and bool(score >= wanted))

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
            text = f"{record['label']} {record['score']:.0%}" + (f" {NOT_SURE}" if self.sure is False else "")
        return draw_text(image, text)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], names: Sequence[str]) -> Self:
        """Return the prediction of which :meth:`record` makes this record.

        A record of several labels does not hold thresholds: they become what makes these labels of the probabilities.

        Args:
            record: What ``record`` returned.
            names: Class names, in the order of their ids.

        Raises:
            DataError: The record is no such record, or a class has no probability in it.
        """
        found = recorded(record, "probabilities")
        with reading_record():
            values = {name: float(recorded(found, name)) for name in names}
            probabilities = torch.tensor(list(values.values()))
            if "labels" not in record:
                sure = record.get("sure")
                if not (sure is None or isinstance(sure, bool)):
                    raise ValueError(f"sure is {sure!r:.60}, neither true nor false")
                return cls(probabilities, sure=sure)
            present = {name: recorded(values, name) for name in record["labels"]}
            threshold = min(present.values(), default=math.inf)
            if all(value < threshold for name, value in values.items() if name not in present):
                return cls(probabilities, True, threshold)
            own = torch.tensor([present.get(name, math.inf) for name in names])  # each class had a threshold of its own
            return cls(probabilities, True, threshold, own)

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
        ids = ids_of(names, kept)
        left = self.probabilities[ids]
        if not self.multilabel:
            total = left.sum()
            left = left / total if total > 0 else torch.full_like(left, 1 / len(left))
        own = None if self.thresholds is None else self.thresholds[ids]
        sure = self.sure if int(self.probabilities.argmax()) in ids else None  # it spoke of a label that is gone
        return replace(self, probabilities=left, thresholds=own, sure=sure)

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return label (or labels), score and the probability of each class by name.

        One label: ``{"label": str, "score": float, "probabilities": {name: float}}``; where there are thresholds,
        ``"sure": bool`` says whether the label reaches that of its class. Several: ``"labels"`` is the list of classes
        at or above the threshold, ``"label"`` the most probable class whatever its probability.
        """
        values = self.probabilities.tolist()
        best = max(range(len(values)), key=values.__getitem__)
        record: dict[str, Any] = {"label": names[best], "score": values[best]}
        if self.multilabel:
            record["labels"] = [n for n, there in zip(names, self.present().tolist(), strict=True) if there]
        elif self.sure is not None:
            record["sure"] = self.sure
        record["probabilities"] = dict(zip(names, values, strict=True))
        return record

    @classmethod
    def tally(cls, record: Mapping[str, Any], min_score: float | None = None) -> dict[str, Tally]:
        """Return the label, or the labels, of a record."""
        labels = record.get("labels", [record["label"]])
        said = ", ".join(f"{name} {record['probabilities'][name]:.2f}" for name in labels)
        if record.get("sure") is False:
            return {"classes": Tally({NOT_SURE: 1}, f"{said} {NOT_SURE}")}
        return {"classes": Tally(dict.fromkeys(labels or ["(no label)"], 1), said or "(no label)")}

    def agreement(self, other: Self) -> Agreement:
        """Return whether the most probable class is the same, and how far probabilities differ.

        Where several classes can be present it is how many of those that one of the two calls present both do.
        """
        mine, yours = self.probabilities.float(), other.probabilities.float()
        difference, scores = float((mine - yours).abs().sum()), float(mine.numel())
        if self.multilabel:
            here, there = self.present(), other.present()
            same, total = float((here & there).sum()), float((here | there).sum())
            return Agreement("of the labels are given by both", same, total, difference, scores)
        same = float(mine.argmax() == yours.argmax())
        return Agreement("of the pictures keep their class", same, 1, difference, scores)
