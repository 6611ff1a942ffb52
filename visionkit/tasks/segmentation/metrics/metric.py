"""The metric of segmentation: overlap of classes over all pixels, and how well boundaries are met."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.data.labels.masks import IGNORE
from visionkit.tasks.segmentation.metrics.boundary import boundary_counts
from visionkit.tasks.segmentation.types import MAX_CLASSES, MaskPrediction, MaskTarget
from visionkit.training.plots import write_confusion_matrix
from visionkit.training.redraw import Counted, ImageCounts, RedrawnMetric, taken

__all__ = ["SegmentationMetric"]

Array = NDArray[Any]
Part = tuple[Array, Array]  # int32 [E, 2], cells and their pixels; int64 [B], how many of them each image has


class SegmentationMetric(RedrawnMetric[Part, ImageCounts]):
    """Compares the class of each pixel with the truth over a whole data set, in pixels of the original images.

    Pixels that the truth ignores (255) are not counted. All others are counted over the data set, each once, whatever
    the sizes of the images: no value is a mean of images or batches. With t pixels of a class in the truth, p in the
    predictions and h in both:

    "miou" and "mdice", the means of h / (t + p - h) and 2 h / (t + p) over the classes that occur in truth or
    predictions; "pixel_accuracy", the share of pixels that are right; "mean_accuracy", the mean of h / t over the
    classes that occur in the truth. "iou/<class>" and "dice/<class>" stand for each class that occurs in either; the
    others are left out.

    "boundary_f1/<class>", the harmonic mean of the share of predicted boundary pixels that have a true one of the class
    near them, and the share of true ones that have a predicted one, for each class with boundary pixels in either;
    "boundary_f1" is their mean, left out where there are no boundaries at all. See
    :func:`visionkit.tasks.segmentation.metrics.boundary.boundary_counts`.

    "confusion_matrix", int64 [K, K] pixels, rows truth, columns prediction.

    Without any image ``compute`` returns an empty dict; with images whose pixels are all ignored, the values without
    classes are 0, "boundary_f1" left out. All values are the same, bit by bit, in any order and batches and on any
    number of processes.

    Args:
        classes: Class names, in the order of their ids.
        boundary_tolerance: How far a boundary may be off, as a share of the image's diagonal from 0 to 1; at least a
            pixel.

    Raises:
        UsageError: The tolerance is out of range, or there are more than 255 classes.
    """

    settings: ClassVar[tuple[str, ...]] = ("boundary_tolerance",)

    def __init__(self, classes: Sequence[str], *, boundary_tolerance: float = 0.0075) -> None:
        super().__init__(classes)
        if not 0 <= boundary_tolerance <= 1:
            raise UsageError(f"boundary_tolerance={boundary_tolerance}: a share of the diagonal from 0 to 1, as 0.0075")
        if len(self.classes) > MAX_CLASSES:
            raise UsageError(f"{len(self.classes)} classes: a mask holds {MAX_CLASSES} at most")
        self.boundary_tolerance = boundary_tolerance
        self.monitor = "miou"

    def update(self, predictions: Sequence[MaskPrediction], targets: Sequence[MaskTarget]) -> None:
        """Add the predictions and targets of a batch, both of length B, in pixels of the originals.

        Raises:
            UsageError: The number of predictions, targets or classes does not fit, or the size of a mask.
        """
        if len(predictions) != len(targets):
            raise UsageError(f"{len(predictions)} predictions for {len(targets)} targets")
        if not predictions:
            return
        counts = torch.stack([self._count(p, t) for p, t in zip(predictions, targets, strict=True)])  # [B, K * K + 4 K]
        image, cell = counts.nonzero(as_tuple=True)
        filled = torch.stack([cell, counts[image, cell]], 1).int().cpu().numpy()
        self.keep(len(counts), (filled, np.bincount(image.cpu().numpy(), minlength=len(counts))))

    def join(self, parts: Sequence[Part]) -> Part:
        """Return the cells of all images, one after another."""
        cells, lengths = zip(*parts, strict=True)
        return np.concatenate(cells), np.concatenate(lengths)

    def prepare(self, part: Part, order: Array) -> ImageCounts:
        """Return the pixels of each cell by image."""
        cells, lengths = part
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return ImageCounts.make(np.repeat(place, lengths), cells[:, 0], cells[:, 1])

    def pack(self, part: Part) -> dict[str, Array]:
        """Return a part as plain arrays, and the tolerance of boundaries."""
        return {"boundary_tolerance": np.array(self.boundary_tolerance), "cells": part[0], "lengths": part[1]}

    def unpack(self, arrays: Mapping[str, Array], images: int) -> Part:
        """Return the part of so many images that :meth:`pack` told, and take over the tolerance of boundaries.

        Raises:
            DataError: These are no such arrays, or they do not fit the classes.
        """
        tolerance = float(taken(arrays, "boundary_tolerance", (), "f"))
        lengths = taken(arrays, "lengths", (images,), "iu", below=len(self.classes) ** 2 + 4 * len(self.classes) + 1)
        cells = taken(arrays, "cells", (int(lengths.sum()), 2), "i", below=2**31)
        taken({"cells": cells[:, 0]}, "cells", (len(cells),), "i", below=len(self.classes) * (len(self.classes) + 4))
        if not 0 <= tolerance <= 1:
            raise DataError(f"the array 'boundary_tolerance' holds {tolerance}, outside of 0 to 1")
        self.boundary_tolerance = tolerance
        return cells.astype(np.int32), lengths.astype(np.int64)

    def values(self, ready: ImageCounts, weight: Array) -> dict[str, Tensor]:
        """Return the values when each image counts as often as its weight says."""
        k = len(self.classes)
        total = ready.total(weight, k * k + 4 * k)
        confusion, boundaries = total[: k * k].view(k, k), total[k * k :].view(k, 4)
        counts = confusion.double()
        hits, truth, predicted = counts.diag(), counts.sum(1), counts.sum(0)  # [K] each
        both = truth + predicted
        iou, dice, recall = _ratio(hits, both - hits), _ratio(2 * hits, both), _ratio(hits, truth)
        scalars = {
            "miou": _mean(iou, both > 0),
            "mdice": _mean(dice, both > 0),
            "pixel_accuracy": _ratio(hits.sum(), truth.sum()),
            "mean_accuracy": _mean(recall, truth > 0),
        }
        found, all_found, met, all_true = boundaries.double().unbind(1)  # [K] each
        precision, met_share = _ratio(found, all_found), _ratio(met, all_true)
        f1, bounded = _ratio(2 * precision * met_share, precision + met_share), all_found + all_true > 0
        if bounded.any():
            scalars["boundary_f1"] = _mean(f1, bounded)
        for kind, values, which in (("iou", iou, both > 0), ("dice", dice, both > 0), ("boundary_f1", f1, bounded)):
            scalars |= {f"{kind}/{self.classes[i]}": values[i] for i in which.nonzero().flatten().tolist()}
        rounded = torch.stack(list(scalars.values())).float().to(self.device).unbind()
        return {**dict(zip(scalars, rounded, strict=True)), "confusion_matrix": confusion.to(self.device)}

    def count(self, ready: ImageCounts, images: int) -> Iterator[tuple[str, Counted]]:
        """Yield "iou", "dice" and "boundary_f1" of each class: the pictures in which it is true or predicted."""
        k = len(self.classes)
        cell, image = ready.cell.numpy(), ready.image.numpy()
        inner = cell < k * k
        seen = np.zeros((k, images), bool)
        seen[cell[inner] // k, image[inner]] = True
        seen[cell[inner] % k, image[inner]] = True
        for name, of in zip(self.classes, seen.astype(np.int64), strict=True):
            for kind in ("iou", "dice", "boundary_f1"):
                yield f"{kind}/{name}", Counted(of, None, "pictures of the class")

    def find_faults(self, ready: ImageCounts, images: int) -> Array:
        """Return the share of wrong pixels among those that count, 0..1, of each image."""
        k, cell = len(self.classes), ready.cell
        inner = cell < k * k
        pixels = ready.by_image(inner, images)
        wrong = ready.by_image(inner & (cell % k != cell // k), images)
        return wrong / np.maximum(pixels, 1)

    def plot(self, values: dict[str, Tensor], folder: Path, prefix: str) -> list[Path]:
        """Write the confusion matrix as .png and .csv, and the IoU of each class as .png."""
        if not values:
            return []
        from visionkit.tasks.segmentation.metrics.plots import write_class_iou

        counts = values["confusion_matrix"].cpu().view(len(self.classes), -1)  # torchmetrics makes [1, 1] a scalar
        total, right = int(counts.sum()), int(counts.diag().sum())
        title = f"{total:,} pixels, {right / max(total, 1):.1%} right, mIoU {float(values['miou']):.3f}"
        written = write_confusion_matrix(counts, self.classes, folder, prefix, title=title)
        shown = [n for n in self.classes if f"iou/{n}" in values]
        if not shown:
            return written
        scores = {n: (float(values[f"iou/{n}"]), float(values[f"dice/{n}"])) for n in shown}
        shares = dict(zip(self.classes, (counts.sum(1) / total).tolist(), strict=True))
        return written + write_class_iou(scores, shares, folder, prefix, mean=float(values["miou"]))

    def _count(self, prediction: MaskPrediction, target: MaskTarget) -> Tensor:
        """Return the confusion matrix [K, K] and the boundary counts [K, 4] of an image, int64 [K * K + 4 K]."""
        labels, k = prediction.labels.detach(), len(self.classes)
        truth = target.mask.to(labels.device)
        if labels.shape != truth.shape:
            raise UsageError(
                f"a prediction of {_size(labels)} pixels for a truth of {_size(truth)}; compare both in the original's"
            )
        if not all(view.scores.isfinite().all() for view in prediction.views):  # no answer, and so never right
            labels = torch.where(truth == IGNORE, labels, (truth + 1) % k)
        pairs = truth.int() * 256 + labels  # [H, W]
        table = torch.bincount(pairs.flatten(), minlength=256 * 256).view(256, 256)
        _check(table[:IGNORE].sum(1), k, "truth")
        _check(table.sum(0), k, "prediction")
        tolerance = max(1.0, self.boundary_tolerance * math.hypot(*truth.shape))
        boundaries = boundary_counts(labels, truth, k, tolerance)
        return torch.cat([table[:k, :k].flatten(), boundaries.flatten()])


def _check(pixels: Tensor, classes: int, what: str) -> None:
    """Refuse class ids that the metric does not know; ``pixels`` of each id, int64 [N]."""
    unknown = pixels[classes:].nonzero()
    if len(unknown):
        raise UsageError(f"the metric has {classes} classes, a {what} has class id {classes + int(unknown[0])}")


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole; 0 where there is nothing."""
    return torch.where(whole > 0, part / whole, 0.0)


def _mean(values: Tensor, which: Tensor) -> Tensor:
    """Return the mean of some of the values; 0 where there are none."""
    return values[which].sum() / which.sum().clamp_min(1)


def _size(mask: Tensor) -> str:
    return f"{mask.shape[0]} x {mask.shape[1]}"
