"""The metric of classification: accuracy, F1, calibration, and average precision for several labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget
from visionkit.training.metric import TaskMetric
from visionkit.training.plots import write_confusion_matrix

__all__ = ["ClassificationMetric", "average_precision"]

FIXED_POINT = 2**30
"""Confidences are summed as whole numbers of this fraction: the sum is the same in any order and on any processes."""


class ClassificationMetric(TaskMetric):
    """Compares class probabilities with the truth over a whole data set.

    One label: "top1"; "top5" with more than 5 classes; "macro_f1" over the classes that occur in truth or predictions;
    "ece"; "accuracy/<class>" (recall) of each class that occurs in the truth; "confusion_matrix", int64 [K, K] counts,
    rows truth, columns prediction.

    Several labels: "map", the mean average precision over the classes that occur in the truth; "micro_f1" and
    "macro_f1" at the predictions' threshold, 0.5 by default, the latter over the classes that occur in truth or
    predictions; "ece" over all yes/no answers; "ap/<class>" of each class that occurs in the truth.

    The calibration error is Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3. Without any
    image ``compute`` returns an empty dict.

    Args:
        classes: Class names, in the order of their ids.
        multilabel: Whether several classes can be present at once.
        bins: Number of equally wide bins of the calibration error, from 1 on.
    """

    counts: Tensor
    confusion: Tensor
    top5_hits: Tensor
    bin_sizes: Tensor
    bin_hits: Tensor
    bin_confidence: Tensor
    probabilities: list[Tensor] | Tensor
    truth: list[Tensor] | Tensor

    def __init__(self, classes: Sequence[str], *, multilabel: bool = False, bins: int = 15) -> None:
        super().__init__(classes)
        if bins < 1:
            raise UsageError(f"bins={bins}: a whole number from 1 on")
        self.multilabel = multilabel
        self.monitor = "map" if multilabel else "top1"
        k = len(self.classes)
        if multilabel:
            self.add_state("counts", torch.zeros(3, k, dtype=torch.int64), dist_reduce_fx="sum")  # tp, fp, fn
            self.add_state("probabilities", [], dist_reduce_fx="cat")  # float32 [B, K] a batch
            self.add_state("truth", [], dist_reduce_fx="cat")  # uint8 [B, K] a batch
        else:
            self.add_state("confusion", torch.zeros(k, k, dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state("top5_hits", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("bin_sizes", "bin_hits", "bin_confidence"):
            self.add_state(name, torch.zeros(bins, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[ClassPrediction], targets: Sequence[ClassTarget]) -> None:
        """Add the predictions and targets of a batch, both of length B.

        Raises:
            UsageError: The number of predictions, targets or classes does not fit.
        """
        if len(predictions) != len(targets):
            raise UsageError(f"{len(predictions)} predictions for {len(targets)} targets")
        if not predictions:
            return
        probabilities = torch.stack([p.probabilities for p in predictions]).detach().to(self.device, torch.float32)
        scores = torch.stack([t.scores for t in targets]).to(self.device)  # [B, K] each
        shape = (len(targets), len(self.classes))
        if probabilities.shape != shape or scores.shape != shape:
            raise UsageError(
                f"the metric has {shape[1]} classes, the predictions have {probabilities.shape[1]}, "
                f"the targets {scores.shape[1]}"
            )
        if self.multilabel:
            thresholds = torch.tensor([[p.threshold] for p in predictions], device=self.device)  # [B, 1]
            self._update_several(probabilities, scores > 0.5, probabilities >= thresholds)
        else:
            self._update_one(probabilities, scores.argmax(1))

    def compute(self) -> dict[str, Tensor]:
        """Return the values over all updates since the last reset; an empty dict without any image."""
        if not self.bin_sizes.sum():
            return {}
        return self._compute_several() if self.multilabel else self._compute_one()

    def plot(self, values: dict[str, Tensor], folder: Path, prefix: str) -> list[Path]:
        """Write the confusion matrix as .png and .csv, or with several labels the average precisions as .png."""
        from visionkit.tasks.classification.plots import write_average_precision

        if "confusion_matrix" in values:
            counts = values["confusion_matrix"]
            images = int(counts.sum())
            title = f"{images} images, {int(counts.diag().sum()) / max(images, 1):.1%} right"
            return write_confusion_matrix(counts, self.classes, folder, prefix, title=title)
        if "map" in values:
            precisions = {n: float(values[f"ap/{n}"]) for n in self.classes if f"ap/{n}" in values}
            return write_average_precision(precisions, folder, prefix)
        return []

    # ---- one label

    def _update_one(self, probabilities: Tensor, truth: Tensor) -> None:
        k = len(self.classes)
        confidence, predicted = probabilities.max(1)  # [B] each
        self.confusion.view(-1).index_add_(0, truth * k + predicted, torch.ones_like(truth))
        if k > 5:
            self.top5_hits += (probabilities.topk(5).indices == truth[:, None]).sum()
        self._update_bins(confidence, predicted == truth)

    def _compute_one(self) -> dict[str, Tensor]:
        hits, truths, predicted = self.confusion.diag(), self.confusion.sum(1), self.confusion.sum(0)  # [K] each
        total = truths.sum()
        values = {"top1": hits.sum() / total}
        if len(self.classes) > 5:
            values["top5"] = self.top5_hits / total
        values["macro_f1"] = _f1(hits, predicted - hits, truths - hits)
        values["ece"] = self._calibration_error()
        recalls = (hits / truths.clamp_min(1)).unbind()
        for name, recall, count in zip(self.classes, recalls, truths.tolist(), strict=True):
            if count:
                values[f"accuracy/{name}"] = recall
        values["confusion_matrix"] = self.confusion.clone()
        return values

    # ---- several labels

    def _update_several(self, probabilities: Tensor, truth: Tensor, predicted: Tensor) -> None:
        self.counts += torch.stack(
            [(truth & predicted).sum(0), (~truth & predicted).sum(0), (truth & ~predicted).sum(0)]
        )
        cast("list[Tensor]", self.probabilities).append(probabilities)
        cast("list[Tensor]", self.truth).append(truth.to(torch.uint8))
        self._update_bins(probabilities.flatten(), truth.flatten())

    def _compute_several(self) -> dict[str, Tensor]:
        precisions = average_precision(_joined(self.probabilities), _joined(self.truth).bool()).to(self.device)
        present = ~precisions.isnan()
        values = {
            "map": precisions[present].mean() if present.any() else precisions.new_zeros(()),
            "micro_f1": _f1(*self.counts.sum(1, keepdim=True)),
            "macro_f1": _f1(*self.counts),
            "ece": self._calibration_error(),
        }
        for name, precision, is_present in zip(self.classes, precisions.unbind(), present.tolist(), strict=True):
            if is_present:
                values[f"ap/{name}"] = precision
        return values

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any | None = None) -> None:
        """Let a process without images take part with empty tensors of the right shape and type."""
        if self.multilabel and isinstance(self.probabilities, list) and not self.probabilities:
            empty = torch.empty(0, len(self.classes), device=self.device)
            self.probabilities, self.truth = [empty], [empty.to(torch.uint8)]
        if dist_sync_fn is None:
            super()._sync_dist(process_group=process_group)
        else:
            super()._sync_dist(dist_sync_fn, process_group)

    # ---- calibration

    def _update_bins(self, confidence: Tensor, hits: Tensor) -> None:
        """Count probabilities [N] and whether they came true, bool [N], in bins (0, 1/bins], (1/bins, 2/bins], ..."""
        confidence = confidence.nan_to_num(0.0)
        bins = len(self.bin_sizes)
        index = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
        self.bin_sizes.index_add_(0, index, torch.ones_like(index))
        self.bin_hits.index_add_(0, index, hits.long())
        self.bin_confidence.index_add_(0, index, (confidence * FIXED_POINT).round().long())

    def _calibration_error(self) -> Tensor:
        gaps = (self.bin_hits * FIXED_POINT - self.bin_confidence).abs().sum()
        return gaps / (self.bin_sizes.sum() * FIXED_POINT)


def average_precision(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Return the average precision of each class, float32 [K] on the CPU.

    It is the sum over thresholds of precision times gain in recall. Equal probabilities share one threshold, as in
    scikit-learn. A class without positives gets nan.

    Args:
        probabilities: float32 [N, K].
        truth: bool [N, K].
    """
    step = max(1, 2_000_000 // len(truth))  # classes at a time, to bound the memory
    parts = zip(probabilities.cpu().split(step, dim=1), truth.cpu().split(step, dim=1), strict=True)
    return torch.cat([_average_precision(p, t) for p, t in parts])


def _average_precision(probabilities: Tensor, truth: Tensor) -> Tensor:
    n = len(truth)
    ranked, order = probabilities.sort(dim=0, descending=True)
    hits = truth.gather(0, order)  # [N, K]
    rank = torch.arange(n)[:, None]
    is_last = torch.ones_like(hits)
    is_last[:-1] = ranked[:-1] != ranked[1:]
    last = torch.where(is_last, rank, n).flip(0).cummin(0).values.flip(0)  # rank of the last one of equal probability
    precision = (hits.cumsum(0) / (rank + 1.0).double()).gather(0, last)
    return ((precision * hits).sum(0) / hits.sum(0)).float()  # 0 / 0 is nan


def _f1(hits: Tensor, false: Tensor, missed: Tensor) -> Tensor:
    """Return the mean of 2 hits / (2 hits + false + missed) over the classes that occur at all; 0 if none does."""
    weight = 2 * hits + false + missed
    occurs = weight > 0
    return (2 * hits / weight.clamp_min(1)).sum() / occurs.sum().clamp_min(1)


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    return state if isinstance(state, Tensor) else torch.cat(state)  # a synchronised state is joined already
