"""The metric of detection: COCO's average precision, a confusion matrix and the kinds of errors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.detection.error_types import ImageBoxes, count_errors
from visionkit.detection.instances import InstancePrediction
from visionkit.detection.types import BoxPrediction, BoxTarget
from visionkit.errors import UsageError
from visionkit.masks import ObjectMasks
from visionkit.metric import TaskMetric
from visionkit.ops.distributed import gather_objects
from visionkit.plots import write_confusion_matrix

__all__ = ["DetectionMetric"]

Array = NDArray[Any]

ALL, SMALL, MEDIUM, LARGE = range(4)  # COCO's areas: any, below 32², up to 96², above
MOST = 2  # position of 100 in COCO's numbers of detections 1, 10, 100
BOX_ALONE = ("mar_1", "mar_10", "mar_small", "mar_medium", "mar_large")  # not told of masks: a table has its limits


class ImageMasks(NamedTuple):
    """The masks of an image, all as run lengths, which are small."""

    found: ObjectMasks
    """Of the N predictions."""
    truth: ObjectMasks
    """Of the M objects."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.found.size


class DetectionMetric(TaskMetric):
    """Compares boxes with the truth over a whole data set, in pixels of the original images.

    COCO's twelve numbers (Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the rules of its
    evaluation code): "map", "map_50", "map_75", "map_small", "map_medium", "map_large" and "mar_1", "mar_10",
    "mar_100", "mar_small", "mar_medium", "mar_large". The best 100 boxes of a class count in each image. "ap/<class>"
    and "ap_50/<class>" stand for each class that occurs in the truth. Sizes that do not occur are left out.

    At one score threshold: "precision", "recall" and "f1" over all objects; "errors/<kind>", the number of errors of
    each kind; "confusion_matrix", int64 [K + 1, K + 1] counts, rows truth, columns prediction, the last of both
    background. See :func:`visionkit.detection.error_types.count_errors`.

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
        self.sync_on_compute = False  # processes hold different numbers of images: compute gathers by itself
        self.compute_with_cache = False  # else a process with new images would wait for one without
        # float32 [N, 6] predictions and [M, 7] truth of each image, and their masks
        self._images: list[tuple[Array, Array, ImageMasks | None]] = []

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
        predicted = [torch.column_stack([p.boxes, p.scores, p.labels]).float() for p in predictions]  # exact up to 2^24
        truth = [torch.column_stack([t.boxes, t.labels, t.crowd, t.areas]).float() for t in targets]
        arrays = zip(_to_arrays(predicted), _to_arrays(truth), predictions, targets, strict=True)
        for rows, true_rows, prediction, target in arrays:
            highest = max(rows[:, 5].max(initial=-1), true_rows[:, 4].max(initial=-1))
            if highest >= len(self.classes):
                raise UsageError(f"the metric has {len(self.classes)} classes, a box has class id {int(highest)}")
            finite = np.asarray(np.isfinite(rows).all(1))
            masks = _masks(prediction, target, finite) if self.masks else None
            self._images.append((rows[finite], true_rows, masks))

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._images = []

    def compute(self) -> dict[str, Tensor]:
        """Return the values over all updates since the last reset; an empty dict without any image."""
        seen = _interleave(gather_objects(self._images))
        images = [_image(*rows) for *rows, _ in seen]
        if not images:
            return {}
        counts = count_errors(
            images, len(self.classes), score_threshold=self.score_threshold, iou_threshold=self.iou_threshold
        )
        precision, recall = _evaluate_coco(images, len(self.classes))
        scalars = {"map": 0.0} | _coco_values(precision, recall) | self._class_values(precision, ("ap", "ap_50"))
        if self.masks:
            of_masks = _evaluate_coco(images, len(self.classes), [masks for *_, masks in seen])
            values_of_masks = {"map": 0.0} | _coco_values(*of_masks)
            scalars |= {f"mask_{k}": v for k, v in values_of_masks.items() if k not in BOX_ALONE}
            scalars |= self._class_values(of_masks[0], ("mask_ap",))
        scalars |= _rates(counts.confusion) | {f"errors/{kind}": float(n) for kind, n in counts.errors.items()}
        values = torch.tensor(list(scalars.values()), dtype=torch.float32, device=self.device).unbind()
        curve = np.where(precision[0, :, :, ALL, MOST] < 0, np.nan, precision[0, :, :, ALL, MOST]).T  # [K, 101]
        return {
            **dict(zip(scalars, values, strict=True)),
            "confusion_matrix": torch.from_numpy(counts.confusion).to(self.device),
            "pr_curve": torch.tensor(curve, dtype=torch.float32, device=self.device),
            "recall_grid": torch.tensor(np.linspace(0, 1, curve.shape[1]), dtype=torch.float32, device=self.device),
        }

    def plot(self, values: dict[str, Tensor], folder: Path, prefix: str) -> list[Path]:
        """Write the confusion matrix as .png and .csv, and precision-recall curves and kinds of errors as .png."""
        if not values:
            return []
        from visionkit.detection.error_types import ERROR_TYPES
        from visionkit.detection.plots import write_curves, write_errors

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
            if (precision[:, :, k, ALL, MOST] >= 0).all():  # else it does not occur
                both = (precision[:, :, k, ALL, MOST].mean(), precision[0, :, k, ALL, MOST].mean())
                values |= {f"{key}/{name}": float(v) for key, v in zip(keys, both, strict=False)}
        return values


def _masks(prediction: BoxPrediction, target: BoxTarget, finite: NDArray[np.bool_]) -> ImageMasks:
    """Return the masks of an image, those of predictions that are finite."""
    if not isinstance(prediction, InstancePrediction):
        raise UsageError("the metric compares masks and the predictions have none: use a head such as MaskRCNNHead")
    if target.masks is None and len(target):
        raise UsageError("the metric compares masks and the truth has none: set --data.masks true")
    found = prediction.pasted.take(np.flatnonzero(finite).tolist())
    truth = found.take([]) if target.masks is None else target.masks.encoded()
    if truth.size != found.size:
        raise UsageError(f"masks of {truth.size} (truth) and of {found.size} pixels (prediction): restore both first")
    return ImageMasks(found, truth)


def _evaluate_coco(
    images: Sequence[ImageBoxes], classes: int, masks: Sequence[ImageMasks] | None = None
) -> tuple[Array, Array]:
    """Return COCO's precision [10, 101, K, 4, 3] and recall [10, K, 4, 3] by IoU, recall, class, area and number.

    The overlap is that of the boxes, or of the masks where they are given. By COCO's rules, the area of an object is
    the one that its file tells, and that of a prediction the one of its box or of its mask.

    -1 stands where the truth holds no such object.
    """
    precision, recall = np.full((10, 101, classes, 4, 3), -1.0), np.full((10, classes, 4, 3), -1.0)
    present = np.unique(np.concatenate([i.truth_labels[~i.crowd] for i in images]))
    if not len(present):
        return precision, recall
    from faster_coco_eval import COCO, COCOeval_faster

    known: dict[str, Any] = {"images": [{"id": i} for i in range(1, len(images) + 1)]}
    known["categories"] = [{"id": k + 1} for k in present.tolist()]
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images, start=1):
        own = masks[number - 1] if masks is not None else None
        if own is not None:
            known["images"][number - 1] |= {"height": own.size[0], "width": own.size[1]}
        rows = _rows(image.truth, image.truth_labels, number, None if own is None else own.truth)
        for row, is_crowd, area in zip(rows, image.crowd.tolist(), image.areas.tolist(), strict=True):
            truth.append({**row, "id": len(truth) + 1, "iscrowd": int(is_crowd), "area": area})
        kept = np.flatnonzero(np.isin(image.labels, present))  # others find nothing and cost time
        drawn = None if own is None else own.found.take(kept.tolist())
        rows = _rows(image.boxes[kept], image.labels[kept], number, drawn)
        areas = [row["bbox"][2] * row["bbox"][3] for row in rows] if drawn is None else drawn.areas().tolist()
        for row, score, area in zip(rows, image.scores[kept].tolist(), areas, strict=True):
            found.append({**row, "id": len(found) + 1, "score": score, "area": area})
    evaluation = COCOeval_faster(
        COCO({**known, "annotations": truth}),
        COCO({**known, "annotations": found}),
        "bbox" if masks is None else "segm",
        print_function=_silent,
    )
    evaluation.evaluate()
    evaluation.accumulate()
    precision[:, :, present] = np.asarray(evaluation.eval["precision"]).reshape(10, 101, len(present), 4, 3)
    recall[:, present] = np.asarray(evaluation.eval["recall"]).reshape(10, len(present), 4, 3)
    return precision, recall


def _rows(boxes: Array, labels: Array, number: int, masks: ObjectMasks | None) -> list[dict[str, Any]]:
    """Return COCO's annotations of boxes [N, 4] xyxy of an image, with masks where they are given."""
    sized = boxes.astype(np.float64)
    sized[:, 2:] -= sized[:, :2]
    pairs = zip(labels.tolist(), sized.tolist(), strict=True)
    rows = [{"image_id": number, "category_id": k + 1, "bbox": b} for k, b in pairs]
    if masks is None:
        return rows
    return [{**row, "segmentation": r} for row, r in zip(rows, masks.rles(), strict=True)]


def _coco_values(precision: Array, recall: Array) -> dict[str, float]:
    """Return COCO's twelve numbers, without those that do not occur."""
    means = {
        "map": precision[:, :, :, ALL, MOST],
        "map_50": precision[0, :, :, ALL, MOST],
        "map_75": precision[5, :, :, ALL, MOST],
        "map_small": precision[:, :, :, SMALL, MOST],
        "map_medium": precision[:, :, :, MEDIUM, MOST],
        "map_large": precision[:, :, :, LARGE, MOST],
        "mar_1": recall[:, :, ALL, 0],
        "mar_10": recall[:, :, ALL, 1],
        "mar_100": recall[:, :, ALL, MOST],
        "mar_small": recall[:, :, SMALL, MOST],
        "mar_medium": recall[:, :, MEDIUM, MOST],
        "mar_large": recall[:, :, LARGE, MOST],
    }
    return {name: float(part[part >= 0].mean()) for name, part in means.items() if (part >= 0).any()}


def _rates(confusion: Array) -> dict[str, float]:
    """Return precision, recall and F1 over all objects; 0 where there is nothing to count."""
    hits, predicted, truths = np.trace(confusion[:-1, :-1]), confusion[:, :-1].sum(), confusion[:-1].sum()
    return {
        "precision": float(hits / max(predicted, 1)),
        "recall": float(hits / max(truths, 1)),
        "f1": float(2 * hits / max(predicted + truths, 1)),
    }


def _image(predicted: Array, truth: Array) -> ImageBoxes:
    return ImageBoxes(
        predicted[:, :4], predicted[:, 4], predicted[:, 5].astype(np.int64),
        truth[:, :4], truth[:, 4].astype(np.int64), truth[:, 5] > 0, truth[:, 6],
    )  # fmt: skip


def _interleave(parts: list[list[Any]]) -> list[Any]:
    """Return the items in the order of a single process; process r of W held r, r + W, r + 2W, ..."""
    return [item for row in zip_longest(*parts) for item in row if item is not None]


def _to_arrays(rows: list[Tensor]) -> list[Array]:
    """Bring tensors [N_i, C] to the CPU, all in one copy."""
    joined = torch.cat(rows).detach().cpu().numpy()
    return np.split(joined, np.cumsum([len(r) for r in rows])[:-1])


def _silent(*_: object) -> None:
    """Print nothing."""
