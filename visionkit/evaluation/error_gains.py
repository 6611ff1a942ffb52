"""What goes wrong, and what mending each kind of error would gain: the entry "errors" of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visionkit.data.labels.masks import IGNORE
from visionkit.evaluation.box_gains import box_gains, mean_gains
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.segmentation.metrics.boundary import boundary_band
from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget
from visionkit.training.metric import TaskMetric

__all__ = ["BoundaryBand", "error_gains"]

MAX_PAIRS = 10
"""Most pairs of classes that are told."""
_MENDS = {
    "missed": "finding the objects that are missed",
    "confused": "naming rightly what is taken for another class",
    "poorly_localised": "placing rightly the boxes that miss their object by a little",
    "both": "leaving out boxes of the wrong class beside an object",
    "duplicate": "leaving out second boxes of one object",
    "background": "leaving out boxes where nothing is",
}
_NOTHING = 5e-4  # a gain that three digits do not show


class BoundaryBand:
    """Counts which classes are confused near the true boundaries alone, beside the metric of segmentation.

    Args:
        classes: Class names, in the order of their ids.
        tolerance: How far from a boundary that is, as a share of the image's diagonal; at least a pixel, as in
            :class:`visionkit.tasks.segmentation.metrics.metric.SegmentationMetric`.
    """

    def __init__(self, classes: Sequence[str], *, tolerance: float = 0.0075) -> None:
        self.tolerance = tolerance
        self.confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        """Pixels near boundaries, int64 [K, K], rows truth, columns prediction."""

    def update(self, predictions: Sequence[MaskPrediction], targets: Sequence[MaskTarget]) -> None:
        """Add predictions and targets, both of length B, in pixels of the originals."""
        k = len(self.confusion)
        for prediction, target in zip(predictions, targets, strict=True):
            truth = target.mask.cpu()
            near = boundary_band(truth, max(1.0, self.tolerance * math.hypot(*truth.shape))) & (truth != IGNORE)
            pairs = truth[near].long() * k + prediction.labels.cpu()[near].long()
            self.confusion += torch.bincount(pairs, minlength=k * k).view(k, k)


def error_gains(metric: TaskMetric, band: BoundaryBand | None = None) -> dict[str, Any] | None:
    """Return the kinds of errors with what mending each alone would gain, most first.

    Detection: the six kinds of :func:`visionkit.evaluation.box_gains.box_gains`, over AP50 and, as ``gain_map``, over
    the mean AP; ``count`` are those from the metric's score threshold on, which its ``errors/<kind>`` tells, and
    ``count_all`` all that average precision counts. Boxes also where masks are compared.

    Classes: the pairs of classes that are taken for each other, over top-1; with several classes an image all mistakes
    of a class, over the mean AP. Pixels: the pairs of classes, and the band along the boundaries, over the mIoU.

    Args:
        metric: With all images.
        band: What was counted beside it, for pixels; None leaves the boundaries out.

    Returns:
        ``{"metric": key, "value": its value, "kinds": [{"kind", "count", "gain", "words", ...}], "sentence": str}``;
        None for a metric of another kind or without images.
    """
    values = metric.compute()
    if not values:
        return None
    if isinstance(metric, DetectionMetric):
        return _of_boxes(metric, values)
    if isinstance(metric, ClassificationMetric):
        return _of_labels(metric, values) if metric.multilabel else _of_classes(metric, values)
    if isinstance(metric, SegmentationMetric):
        return _of_pixels(metric, values, band)
    return None


def _of_boxes(metric: DetectionMetric, values: Mapping[str, Tensor]) -> dict[str, Any]:
    boxes, classes = metric.boxes(), len(metric.classes)
    at_50, mean = box_gains(boxes, classes), mean_gains(boxes, classes)
    kinds: list[dict[str, Any]] = []
    for kind, gain in at_50.gains.items():
        shown, every = int(values[f"errors/{kind}"]), at_50.counts[kind]
        score = f"score {metric.score_threshold:g}"
        when = f"at {score}" if kind == "missed" else f"from {score} on"
        when += f", {every:,} in all" if every and not shown else ""
        kinds.append(
            {
                "kind": kind, "count": shown, "count_all": every, "gain": gain, "gain_map": mean.gains[kind],
                "words": f"{_MENDS[kind]} ({shown:,} {when}): AP50 {gain:+.3f}",
            }
        )  # fmt: skip
    return _entry("map_50", at_50.value, kinds, "AP50")


def _of_classes(metric: ClassificationMetric, values: Mapping[str, Tensor]) -> dict[str, Any]:
    counts = values["confusion_matrix"].cpu().reshape(len(metric.classes), -1)
    total = max(1, int(counts.sum()))
    kinds: list[dict[str, Any]] = []
    for a, b, count in _pairs(counts):
        gain = count / total
        what = f"{metric.classes[a]} and {metric.classes[b]}"
        words = f"telling {what} apart ({_ways(counts, metric.classes, a, b)}): top-1 {gain:+.3f}"
        kinds.append({"kind": f"{what} confused", "count": count, "gain": gain, "words": words})
    return _entry("top1", float(values["top1"]), kinds, "top-1")


def _of_labels(metric: ClassificationMetric, values: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what each class costs where an image can have several: its average precision made 1."""
    present = {name: float(values[f"ap/{name}"]) for name in metric.classes if f"ap/{name}" in values}
    kinds: list[dict[str, Any]] = []
    for name, precision in present.items():
        gain = (1 - precision) / len(present)
        words = f"always ranking {name} rightly (AP {precision:.3f}): mean AP {gain:+.3f}"
        kinds.append({"kind": name, "count": None, "gain": gain, "words": words})
    return _entry("map", float(values["map"]), kinds, "mean AP")


def _of_pixels(metric: SegmentationMetric, values: Mapping[str, Tensor], band: BoundaryBand | None) -> dict[str, Any]:
    k = len(metric.classes)
    counts = values["confusion_matrix"].cpu().reshape(k, k)
    value = _miou(counts)
    gains = _pair_gains(counts)
    kinds: list[dict[str, Any]] = []
    for a, b, count in _pairs(counts, every=True):
        gain = max(0.0, float(gains[a, b]))
        what = f"{metric.classes[a]} and {metric.classes[b]}"
        words = f"telling {what} apart ({count:,} pixels): mIoU {gain:+.3f}"
        kinds.append({"kind": f"{what} confused", "count": count, "gain": gain, "words": words})
    kinds = sorted(kinds, key=lambda entry: -entry["gain"])[:MAX_PAIRS]
    if band is not None:
        wrong = band.confusion - band.confusion.diag().diag()
        gain = max(0.0, _miou(counts - wrong + wrong.sum(1).diag()) - value)
        every = int(counts.sum() - counts.diag().sum())
        share = f"{int(wrong.sum()):,} of the {every:,} wrong pixels"
        words = f"getting all pixels near the true boundaries right ({share}): mIoU {gain:+.3f}"
        kinds.append({"kind": "boundary", "count": int(wrong.sum()), "gain": gain, "words": words})
    return _entry("miou", value, kinds, "mIoU")


def _pairs(counts: Tensor, *, every: bool = False) -> list[tuple[int, int, int]]:
    """Return pairs of classes that are confused, a < b, with how often, the most first; ``MAX_PAIRS`` or all."""
    both = (counts + counts.T).triu(1)
    found = [(a, b, int(both[a, b])) for a, b in both.nonzero().tolist()]
    found.sort(key=lambda pair: -pair[2])
    return found if every else found[:MAX_PAIRS]


def _ways(counts: Tensor, classes: Sequence[str], a: int, b: int) -> str:
    ways = ((a, b, int(counts[a, b])), (b, a, int(counts[b, a])))
    return ", ".join(f"{n:,} {classes[one]} taken for {classes[other]}" for one, other, n in ways if n)


def _pair_gains(counts: Tensor) -> Tensor:
    """Return what the mIoU gains where two classes are told apart, float64 [K, K], symmetric.

    Of class a, pixels taken for b join its hits, and pixels of b taken for a leave its union; other classes stay as
    they are. A class that occurs no more leaves the mean.
    """
    exact = counts.double()
    hits, either = exact.diag(), exact.sum(0) + exact.sum(1) - exact.diag()  # [K] each
    occurs = either > 0
    iou = torch.where(occurs, hits / either, 0.0)
    union = either[:, None] - exact.T
    mended = torch.where(union > 0, (hits[:, None] + exact) / union, 0.0)
    gone = (occurs[:, None] & (union <= 0)).double()
    total = iou.sum() - iou[:, None] - iou + mended + mended.T
    return total / (occurs.sum() - gone - gone.T).clamp_min(1) - iou.sum() / occurs.sum().clamp_min(1)


def _miou(counts: Tensor) -> float:
    """Return the mean intersection over union of the classes that occur in truth or predictions."""
    exact = counts.double()
    hits, either = exact.diag(), exact.sum(0) + exact.sum(1) - exact.diag()
    occurs = either > 0
    return float((hits[occurs] / either[occurs]).mean()) if occurs.any() else 0.0


def _entry(key: str, value: float, kinds: list[dict[str, Any]], name: str) -> dict[str, Any]:
    ordered = sorted(kinds, key=lambda kind: -kind["gain"])
    first = ordered[0] if ordered else None
    if first is None or first["gain"] < _NOTHING:
        sentence = f"No kind of error alone costs {name} anything that shows ({name} {value:.3f})."
    else:
        after = value + first["gain"]
        sentence = f"Most would be gained by {first['words'].rpartition(':')[0]}: {name} {value:.3f} -> {after:.3f}."
    return {"metric": key, "value": value, "kinds": ordered, "sentence": sentence}
