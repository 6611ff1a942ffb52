"""The metric of detection: COCO's average precision, a confusion matrix and the kinds of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.metrics.average_precision import (
    ALL,
    LARGE,
    LAST_NUMBER,
    MEDIUM,
    SMALL,
    ImageMasks,
    Matches,
    match_coco,
)
from visionkit.tasks.detection.metrics.batch import Batch
from visionkit.tasks.detection.metrics.draws import AveragePrecisionDraws
from visionkit.tasks.detection.metrics.error_types import ERROR_TYPES, ErrorCounts, count_errors, error_table
from visionkit.tasks.detection.metrics.matching import DataSetBoxes
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget
from visionkit.training.plots import write_confusion_matrix
from visionkit.training.redraw import Counted, ImageCounts, RedrawnMetric, taken

__all__ = ["DetectionMetric"]

Array = NDArray[Any]

BOX_ALONE = ("mar_1", "mar_10", "mar_small", "mar_medium", "mar_large")  # not told of masks: a table has its limits


class _Ready(NamedTuple):
    """What values are computed from."""

    images: int
    errors: ImageCounts
    boxes: Matches
    masks: Matches | None


class DetectionMetric(RedrawnMetric[Batch, _Ready]):
    """Compares boxes with the truth over a whole data set, in pixels of the original images.

    COCO's twelve numbers (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the rules of its
    evaluation code): "map", "map_50", "map_75", "map_small", "map_medium", "map_large" and "mar_1", "mar_10",
    "mar_100", "mar_small", "mar_medium", "mar_large". The best 100 boxes of a class count in each image. "ap/<class>"
    and "ap_50/<class>" stand for each class that occurs in the truth. Sizes that do not occur are left out.

    At one score threshold: "precision", "recall" and "f1" over all objects; "errors/<kind>", the number of errors of
    each kind; "confusion_matrix", int64 [K + 1, K + 1] counts, rows truth, columns prediction, the last of both
    background. See :func:`visionkit.tasks.detection.metrics.error_types.count_errors`.

    "pr_curve", float32 [K, 101], is the precision at IoU 0.5 over the recalls of "recall_grid", float32 [101]; nan for
    classes that do not occur in the truth.

    With masks, "mask_map", "mask_map_50", "mask_map_75", "mask_map_small", "mask_map_medium", "mask_map_large",
    "mask_mar_100" and "mask_ap/<class>" are the same of masks; all else stays that of boxes.

    Without any image ``compute`` returns an empty dict; with images but without any object "map" ("mask_map") is 0. All
    values are the same, bit by bit, on any number of processes.

    Args:
        classes: Class names, in the order of their ids.
        score_threshold: Lowest score of the detections that confusion matrix, errors, precision and recall count.
        iou_threshold: Overlap from which these take a detection to be where an object is, in (0, 1].
        masks: Whether masks are compared, too; "mask_map" then says which checkpoint is the best.

    Raises:
        UsageError: A threshold is out of range.
    """

    settings: ClassVar[tuple[str, ...]] = ("score_threshold", "iou_threshold")

    def __init__(
        self,
        classes: Sequence[str],
        *,
        score_threshold: float = 0.3,
        iou_threshold: float = 0.5,
        masks: bool = False,
    ) -> None:
        super().__init__(classes)
        if not 0 <= score_threshold <= 1:
            raise UsageError(f"score_threshold={score_threshold}: a number from 0 to 1")
        if not 0.1 < iou_threshold <= 1:
            raise UsageError(f"iou_threshold={iou_threshold}: a number above 0.1, up to 1")
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.masks = masks
        self.monitor = "mask_map" if masks else "map"

    def update(self, predictions: Sequence[BoxPrediction], targets: Sequence[BoxTarget]) -> None:
        """Add the predictions and targets of a batch, both of length B, in pixels of the originals.

        Boxes and scores that are not finite are left out.

        Raises:
            UsageError: The number of predictions, targets or classes does not fit, or masks are missing.
        """
        if len(predictions) != len(targets):
            raise UsageError(f"{len(predictions)} predictions for {len(targets)} targets")
        if not predictions:
            return
        found = _rows(predictions, ("boxes", "scores", "labels"))  # [N, 6]
        truth = _rows(targets, ("boxes", "labels", "crowd", "areas"))  # [M, 7]
        highest = max(found[:, 5].max(initial=-1), truth[:, 4].max(initial=-1))
        if highest >= len(self.classes):
            raise UsageError(f"the metric has {len(self.classes)} classes, a box has class id {int(highest)}")
        counts = np.array([len(p) for p in predictions])
        finite = np.asarray(np.isfinite(found).all(1))
        masks: list[ImageMasks] = []
        if self.masks:
            parts = np.split(finite, counts.cumsum()[:-1])
            masks = [_masks(p, t, f) for p, t, f in zip(predictions, targets, parts, strict=True)]
        if not finite.all():
            image = np.repeat(np.arange(len(counts)), counts)[finite]
            found, counts = found[finite], np.bincount(image, minlength=len(counts))
        self.keep(len(counts), Batch(found, counts, truth, np.array([len(t) for t in targets]), masks))

    def boxes(self) -> DataSetBoxes:
        """Return what was predicted and what is true, of the images of this process in their order.

        Raises:
            UsageError: There are no images.
        """
        if not self._parts:
            raise UsageError("a metric that has no images has no boxes: update it first")
        return self.join(self._parts).in_order(np.arange(self._held))[0]

    def matches(self) -> Matches:
        """Return the detections of all classes, also of those without an object, of the images of this process.

        They are matched by their masks where these are compared, else by their boxes.
        """
        boxes, masks = self.join(self._parts).in_order(np.arange(self._held))
        return match_coco(boxes, len(self.classes), masks if self.masks else None, every=True)

    def join(self, parts: Sequence[Batch]) -> Batch:
        """Return one batch of all, which is quicker to send."""
        return Batch.of(parts)

    def prepare(self, part: Batch, order: Array) -> _Ready:
        """Match what is found with the truth, in all images."""
        boxes, masks = part.in_order(order)
        thresholds = {"score_threshold": self.score_threshold, "iou_threshold": self.iou_threshold}
        errors = count_errors(boxes, len(self.classes), **thresholds)
        of_masks = match_coco(boxes, len(self.classes), masks) if self.masks else None
        return _Ready(len(order), errors, match_coco(boxes, len(self.classes)), of_masks)

    def pack(self, part: Batch) -> dict[str, Array]:
        """Return a part as plain arrays, and the thresholds."""
        return {**part.arrays(), "thresholds": np.array([self.score_threshold, self.iou_threshold])}

    def unpack(self, arrays: Mapping[str, Array], images: int) -> Batch:
        """Return the part of so many images that :meth:`pack` told, and take over the thresholds.

        Raises:
            DataError: These are no such arrays, or they do not fit the classes.
        """
        score, overlap = taken(arrays, "thresholds", (2,), "f").tolist()
        if not (0 <= score <= 1 and 0.1 < overlap <= 1):
            raise DataError(f"the array 'thresholds' holds {score} and {overlap}, which are none")
        part = Batch.recalled(arrays, images, len(self.classes), masks=self.masks)
        self.score_threshold, self.iou_threshold = score, overlap
        return part

    def values(self, ready: _Ready, weight: Array) -> dict[str, Tensor]:
        """Return the values when each image counts as often as its weight says."""
        counts = ErrorCounts.over(ready.errors, len(self.classes), weight)
        precision, recall = ready.boxes.evaluate(weight)
        scalars = {"map": 0.0} | _coco_values(precision, recall) | self._class_values(precision, ("ap", "ap_50"))
        if ready.masks is not None:
            of_masks = ready.masks.evaluate(weight)
            values_of_masks = {"map": 0.0} | _coco_values(*of_masks)
            scalars |= {f"mask_{k}": v for k, v in values_of_masks.items() if k not in BOX_ALONE}
            scalars |= self._class_values(of_masks[0], ("mask_ap",))
        found = counts.confusion
        scalars |= _rates(np.trace(found[:-1, :-1]), found[:, :-1].sum(), found[:-1].sum())
        scalars |= {f"errors/{kind}": float(n) for kind, n in counts.errors.items()}
        values = torch.tensor(list(scalars.values()), dtype=torch.float32, device=self.device).unbind()
        curve = np.where(precision[0, :, :, ALL] < 0, np.nan, precision[0, :, :, ALL]).T  # [K, 101]
        return {
            **dict(zip(scalars, values, strict=True)),
            "confusion_matrix": torch.from_numpy(counts.confusion).to(self.device),
            "pr_curve": torch.tensor(curve, dtype=torch.float32, device=self.device),
            "recall_grid": torch.tensor(np.linspace(0, 1, curve.shape[1]), dtype=torch.float32, device=self.device),
        }

    def drawer(self, ready: _Ready) -> Callable[[Array], dict[str, float]]:
        """Return what gives the numbers for weights of the images, without tables and curves.

        Of images without any object there is no "map": it is 0 for no more than the whole of a data set.
        """
        table = error_table(ready.errors, len(self.classes), ready.images)
        boxes = AveragePrecisionDraws(ready.boxes, ready.images)
        masks = None if ready.masks is None else AveragePrecisionDraws(ready.masks, ready.images)

        def draw(weight: Array) -> dict[str, float]:
            drawn = boxes(weight)
            scalars = drawn.values() | drawn.of_classes(self.classes, ("ap", "ap_50"))
            if masks is not None:
                drawn = masks(weight)
                scalars |= {f"mask_{k}": v for k, v in drawn.values().items() if k not in BOX_ALONE}
                scalars |= drawn.of_classes(self.classes, ("mask_ap",))
            hits, predicted, truths, *kinds = (weight @ table).tolist()
            scalars |= _rates(hits, predicted, truths)
            return scalars | {f"errors/{kind}": float(n) for kind, n in zip(ERROR_TYPES, kinds, strict=True)}

        return draw

    def count(self, ready: _Ready, images: int) -> Iterator[tuple[str, Counted]]:
        """Yield precision and recall, shares of boxes and objects, and what stands of a class or size: its objects."""
        hits, predicted, truths = error_table(ready.errors, len(self.classes), images)[:, :3].T
        yield "precision", Counted(predicted, hits, "detections")
        yield "recall", Counted(truths, hits, "objects")
        boxes = ready.boxes
        for key, area in (("small", SMALL), ("medium", MEDIUM), ("large", LARGE)):
            of = np.bincount(boxes.truth_image[boxes.truth_inside[area]], minlength=images)
            for kind in ("map", "mar", "mask_map"):
                yield f"{kind}_{key}", Counted(of, None, f"{key} objects")
        counted = boxes.truth_inside[ALL]
        place, label = boxes.truth_image[counted], boxes.truth_labels[counted]
        for c, name in enumerate(self.classes):
            of = np.bincount(place[label == c], minlength=images)
            for kind in ("ap", "ap_50", "mask_ap"):
                yield f"{kind}/{name}", Counted(of, None, "objects of the class")

    def find_faults(self, ready: _Ready, images: int) -> Array:
        """Return how many predicted boxes are wrong and objects missed in each image, at the score threshold."""
        hits, predicted, truths = error_table(ready.errors, len(self.classes), images)[:, :3].T
        faults: Array = (predicted + truths - 2 * hits).astype(np.float64)
        return faults

    def plot(self, values: dict[str, Tensor], folder: Path, prefix: str) -> list[Path]:
        """Write the confusion matrix as .png and .csv, and precision-recall curves and kinds of errors as .png."""
        if not values:
            return []
        from visionkit.tasks.detection.metrics.plots import write_curves, write_errors

        counts = values["confusion_matrix"]
        objects, right = int(counts[:-1].sum()), int(counts[:-1, :-1].diag().sum())
        title = f"{objects} objects, {right / max(objects, 1):.1%} right"
        title += f" (score ≥ {self.score_threshold:g}, IoU ≥ {self.iou_threshold:g})"
        written = write_confusion_matrix(counts, self.classes, folder, prefix, title=title)
        precisions = {n: float(values[f"ap_50/{n}"]) for n in self.classes if f"ap_50/{n}" in values}
        if precisions:
            curves = {n: c for n, c in zip(self.classes, values["pr_curve"].cpu(), strict=True) if n in precisions}
            frequency = {n: k for n, k in zip(self.classes, counts.sum(1).tolist(), strict=False) if n in precisions}
            written += write_curves(curves, values["recall_grid"].cpu(), precisions, frequency, folder, prefix)
        errors = {kind: int(values[f"errors/{kind}"]) for kind in ERROR_TYPES}
        return written + write_errors(errors, folder, prefix, score=self.score_threshold)

    def _class_values(self, precision: Array, keys: Sequence[str]) -> dict[str, float]:
        """Return the average precision of each class that occurs, over all overlaps and, as a second key, at 0.5."""
        values: dict[str, float] = {}
        for k, name in enumerate(self.classes):
            if (precision[:, :, k, ALL] >= 0).all():  # else it does not occur
                both = (precision[:, :, k, ALL].mean(), precision[0, :, k, ALL].mean())
                values |= {f"{key}/{name}": float(v) for key, v in zip(keys, both, strict=False)}
        return values


def _masks(prediction: BoxPrediction, target: BoxTarget, finite: NDArray[np.bool_]) -> ImageMasks:
    """Return the masks of an image, those of predictions that are finite."""
    if not isinstance(prediction, InstancePrediction):
        raise UsageError("the metric compares masks and the predictions have none: use a head such as MaskRCNNHead")
    if target.masks is None and len(target):
        raise UsageError("the metric compares masks and the truth has none: set --data.masks true")
    found = prediction.pasted.select(np.flatnonzero(finite).tolist())
    truth = found.select([]) if target.masks is None else target.masks.encoded()
    if truth.size != found.size:
        raise UsageError(f"masks of {truth.size} (truth) and of {found.size} pixels (prediction): restore both first")
    return ImageMasks(found, truth)


def _coco_values(precision: Array, recall: Array) -> dict[str, float]:
    """Return COCO's twelve numbers, without those that do not occur."""
    means = {
        "map": precision[:, :, :, ALL],
        "map_50": precision[0, :, :, ALL],
        "map_75": precision[5, :, :, ALL],
        "map_small": precision[:, :, :, SMALL],
        "map_medium": precision[:, :, :, MEDIUM],
        "map_large": precision[:, :, :, LARGE],
        "mar_1": recall[:, :, ALL, 0],
        "mar_10": recall[:, :, ALL, 1],
        "mar_100": recall[:, :, ALL, LAST_NUMBER],
        "mar_small": recall[:, :, SMALL, LAST_NUMBER],
        "mar_medium": recall[:, :, MEDIUM, LAST_NUMBER],
        "mar_large": recall[:, :, LARGE, LAST_NUMBER],
    }
    return {name: float(part[part >= 0].mean()) for name, part in means.items() if (part >= 0).any()}


def _rates(hits: float, predicted: float, truths: float) -> dict[str, float]:
    """Return precision, recall and F1 over all objects; 0 where there is nothing to count."""
    return {
        "precision": float(hits / max(predicted, 1)),
        "recall": float(hits / max(truths, 1)),
        "f1": float(2 * hits / max(predicted + truths, 1)),
    }


def _rows(items: Sequence[Any], fields: Sequence[str]) -> Array:
    """Put fields of a batch side by side, float32 [N, C], on the CPU in one copy; class ids are exact up to 2^24."""
    columns = [torch.cat([getattr(item, name) for item in items]).float() for name in fields]
    rows: Array = torch.column_stack(columns).detach().cpu().numpy()
    return rows
