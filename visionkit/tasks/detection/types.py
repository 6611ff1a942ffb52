"""The truth and the prediction of detection: boxes with classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.joining import Joining
from visionkit.core.prediction import Agreement, Prediction, Region, ids_of, reading_record, recorded
from visionkit.core.sample import ImageInfo
from visionkit.core.tally import Tally
from visionkit.data.labels.masks import ObjectMasks
from visionkit.data.transforms.preprocessing import to_original
from visionkit.models.ops.boxes import area, clip, pairwise_iou
from visionkit.models.ops.nms import suppress
from visionkit.tasks.detection.merging import Cluster, merge_boxes

__all__ = ["BOX_COLUMNS", "DRAWN_SCORE", "BoxPrediction", "BoxTarget", "boxes_to_original"]

MIN_SIDE = 1.0  # pixels that the model sees; what is thinner teaches nothing and makes losses infinite
MIN_VISIBLE = 0.25  # of a box's area; what a cut leaves of less is neither learnt nor counted
DRAWN_SCORE = 0.3
"""Lowest score of the boxes that are drawn: a hundred weak ones would hide the picture."""
BOX_COLUMNS = ("label", "score", "x1", "y1", "x2", "y2", "width", "height")
"""Keys of the rows of boxes in the table."""
SAME_OVERLAP = 0.5  # intersection over union from which on two networks mean the same object


@dataclass(frozen=True)
class BoxTarget:
    """The objects of an image; none is legal.

    Args:
        boxes: float32 [N, 4], xyxy in pixels, ``x1 < x2`` and ``y1 < y2``.
        labels: int64 [N], class ids 0..K-1.
        crowd: bool [N], boxes around crowds and difficult objects: neither learnt nor counted, as COCO does it.
        areas: float32 [N], area of each object in pixels of the original image; COCO's sizes small, medium and large
            go by it. Where masks are known it is their area, else that of the box.
        masks: The mask of each object, or None where they are not known.
        original: The same objects in the original image, or None when this is it, or when there is none any more.

    Raises:
        DataError: Shapes disagree.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    areas: Tensor
    masks: ObjectMasks | None = None
    original: Self | None = None

    def __post_init__(self) -> None:
        """Check the shapes."""
        n = len(self.labels)
        if self.boxes.shape != (n, 4) or self.crowd.shape != (n,) or self.areas.shape != (n,):
            raise DataError(
                f"boxes {list(self.boxes.shape)}, labels {list(self.labels.shape)}, crowd {list(self.crowd.shape)} and "
                f"areas {list(self.areas.shape)} must be [N, 4], [N], [N] and [N]"
            )
        if self.masks is not None and len(self.masks) != n:
            raise DataError(f"{len(self.masks)} masks of {n} objects: give one an object, or None")

    @classmethod
    def make(
        cls, boxes: Any, labels: Any, crowd: Any = None, areas: Any = None, masks: ObjectMasks | None = None
    ) -> Self:
        """Make a target from lists, arrays or tensors.

        Args:
            boxes: [N, 4], xyxy in pixels.
            labels: [N], class ids.
            crowd: [N], whether it is a crowd or difficult; None for none.
            areas: [N], in pixels of the original; None for those of the boxes.
            masks: The N masks, or None where they are not known.
        """
        placed = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        n = len(placed)
        return cls(
            placed,
            torch.as_tensor(labels, dtype=torch.int64).reshape(-1),
            torch.zeros(n, dtype=torch.bool) if crowd is None else torch.as_tensor(crowd, dtype=torch.bool).reshape(-1),
            area(placed) if areas is None else torch.as_tensor(areas, dtype=torch.float32).reshape(-1),
            masks,
        )

    def __len__(self) -> int:
        """Return the number of boxes, N."""
        return len(self.labels)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the target with its tensors on ``device``; masks and the original stay where they are."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("boxes", "labels", "crowd", "areas")
        }
        return replace(self, **moved)

    def restore(self, info: ImageInfo) -> Self:
        """Return the objects in pixels of the original image."""
        return self if self.original is None else self.original

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Draw the objects with their masks, the smaller ones on top, onto a copy of the image, uint8 [3, H, W].

        Crowds are marked as "ignored": they are neither learnt nor counted.
        """
        from visionkit.prediction.draw import draw_boxes, draw_masks

        shown = self.select(area(self.boxes).argsort(stable=True))
        if shown.masks is not None:
            image = draw_masks(image, shown.masks, shown.labels)
        rows = zip(shown.labels.tolist(), shown.crowd.tolist(), strict=True)
        texts = [f"{names[k]} (ignored)" if crowd else names[k] for k, crowd in rows]
        return draw_boxes(image, shown.boxes, shown.labels, texts)

    def place(self, scale: tuple[float, float], offset: tuple[int, int], size: tuple[int, int]) -> Self:
        """Return the boxes after their image was resized, shifted and cut or padded.

        Boxes are clipped to the picture. Those that end up thinner than a pixel are dropped; those of which a cut
        leaves less than a quarter, or no pixel of the mask, become ``crowd``: neither learnt nor taken for background.
        """
        x, y = self.boxes[:, 0::2] * scale[1] + offset[1], self.boxes[:, 1::2] * scale[0] + offset[0]  # [N, 2] each
        whole = torch.stack([x, y], -1).flatten(1)
        clipped = clip(whole, size)
        crowd = self.crowd | (area(clipped) < MIN_VISIBLE * area(whole))
        placed = replace(self, boxes=clipped, crowd=crowd, original=self if self.original is None else self.original)
        thick = _thick(clipped)
        placed = placed if bool(thick.all()) else placed.select(thick)
        if placed.masks is None:
            return placed
        masks = placed.masks.place(scale, offset, size)
        gone = torch.from_numpy(masks.areas() == 0).to(crowd.device)
        return replace(placed, crowd=placed.crowd | gone, masks=masks)

    def join(self, others: Sequence[Self]) -> Self:
        """Return the boxes of several images that were pasted into one picture; the originals are gone.

        Masks are known where those of all objects are.
        """
        fields = ("boxes", "labels", "crowd", "areas")
        every = (self, *others)
        joined = {name: torch.cat([getattr(t, name) for t in every]) for name in fields}
        masks = [t.masks for t in every if t.masks is not None]
        known = bool(masks) and all(t.masks is not None or not len(t) for t in every)
        return replace(self, **joined, masks=masks[0].join(masks[1:]) if known else None, original=None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return boxes, float32 [N, 4], their positions, int64 [N], and any masks, uint8 [N, H, W]."""
        arrays: dict[str, NDArray[Any]] = {"bboxes": self.boxes.numpy(), "box_index": np.arange(len(self))}
        if self.masks is not None and len(self):  # albumentations fails on none
            arrays["masks"] = self.masks.dense()
        return arrays

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> Self:
        """Return the objects that are left after a random change; the original is gone.

        Boxes are clipped to the picture. Where masks are known, boxes are those around the changed masks, so a picture
        may be turned by any angle.
        """
        index = np.asarray(arrays["box_index"], np.int64).reshape(-1)
        boxes = clip(torch.from_numpy(np.asarray(arrays["bboxes"], np.float32).reshape(-1, 4)), size)
        masks = None
        if self.masks is not None:
            index = np.unique(index)  # some transforms return a box in parts
            dense = arrays["masks"][index] if len(index) else np.zeros((0, *size), np.uint8)
            masks = ObjectMasks.from_dense(dense)
            boxes = torch.from_numpy(masks.boxes())
        changed = replace(self, masks=None).select(torch.from_numpy(index))
        return replace(changed, boxes=boxes, masks=masks, original=None).select(_thick(boxes))

    def select(self, which: Tensor) -> Self:
        """Return some of the boxes: a bool mask [N] or int64 positions; the original stays whole."""
        masks = self.masks
        if masks is not None:
            masks = masks.select((which.nonzero()[:, 0] if which.dtype == torch.bool else which).tolist())
        return replace(
            self,
            boxes=self.boxes[which],
            labels=self.labels[which],
            crowd=self.crowd[which],
            areas=self.areas[which],
            masks=masks,
        )


P = TypeVar("P", bound="BoxPrediction")


@dataclass(frozen=True)
class BoxPrediction(Prediction):
    """What a detector says of an image: boxes, the most certain first.

    Args:
        boxes: float32 [N, 4], xyxy in pixels.
        scores: float32 [N], 0..1, falling.
        labels: int64 [N], class ids 0..K-1.
        size: Height and width of the original image; known once the prediction is restored to it.
        same: Intersection over union, 0..1, above which the head keeps but one of the boxes of a class: so it is with
            boxes that become alike where the image's edges cut them. None keeps all.
        drawn: Lowest score, 0..1, of the boxes that are drawn: of all, or float32 [N] of each.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    size: tuple[int, int] | None = None
    same: float | None = None
    drawn: float | Tensor = DRAWN_SCORE

    def __len__(self) -> int:
        """Return the number of boxes, N."""
        return len(self.scores)

    def restore(self, info: ImageInfo) -> Self:
        """Return the boxes in pixels of the original image, clipped to it; those outside of it are dropped."""
        moved = replace(self, boxes=boxes_to_original(self.boxes, info), size=info.size)
        return moved._within((0, 0, *info.size))

    def _within(self, region: Region) -> Self:
        """Return the boxes clipped to a part of the image; of those that differ outside of it alone the best stays."""
        top, left, bottom, right = region
        low, high = self.boxes.new_tensor([left, top] * 2), self.boxes.new_tensor([right, bottom] * 2)
        clipped = torch.minimum(torch.maximum(self.boxes, low), high)
        kept = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(1)
        changed = bool((clipped != self.boxes)[kept].any())
        found = replace(self, boxes=clipped).select(kept)
        if self.same is None or not changed:
            return found
        order, _ = suppress(found.boxes, found.scores, found.labels, threshold=self.same, limit=len(found))
        return found.select(order)

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Draw the boxes from ``drawn`` on, with class and score, onto a copy of the image, uint8 [3, H, W]."""
        from visionkit.prediction.draw import draw_boxes

        shown = self.at_least(self.drawn)
        texts = [f"{names[k]} {s:.0%}" for k, s in zip(shown.labels.tolist(), shown.scores.tolist(), strict=True)]
        return draw_boxes(image, shown.boxes, shown.labels, texts)

    def at_least(self, score: float | Tensor) -> Self:
        """Return the boxes alone that have at least this score, 0..1; or float32 [N], one for each."""
        return self.select(self.scores >= score)

    def over(self, thresholds: Mapping[str, float | None], names: Sequence[str]) -> Self:
        """Return the boxes alone that reach their class's threshold; they then are drawn.

        Of a class of which nothing is promised those from ``DRAWN_SCORE`` on stay: what would be drawn anyway. Of one
        without a threshold all stay, and are drawn from there on.

        Args:
            thresholds: Class name -> score, 0..1, or None; a class that is not named keeps all.
            names: Class names, in the order of the ids of this prediction.
        """
        if not any(name in thresholds for name in names):
            return self
        chosen = (thresholds.get(name, 0.0) for name in names)
        least = self.scores.new_tensor([DRAWN_SCORE if value is None else value for value in chosen])  # [K]
        drawn = self.scores.new_tensor([0.0 if name in thresholds else DRAWN_SCORE for name in names])
        return replace(self, drawn=drawn[self.labels]).at_least(least[self.labels])

    def select(self, which: Tensor) -> Self:
        """Return some of the objects with all that is known of them: a bool mask [N] or int64 positions."""
        parts: dict[str, Any] = {
            f.name: v[which] for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **parts)

    @classmethod
    def merge(cls, parts: Sequence[Self], regions: Sequence[Region]) -> Self:
        """Return the objects of an image from those of several views; what they show is one box an object.

        See :func:`visionkit.tasks.detection.merging.merge_boxes`. The head's limit on detections is one a view: many
        windows may show many objects.

        Args:
            parts: Each restored to the image.
            regions: The pixels of the image that each speaks of.
        """
        seen = [part._within(region) for part, region in zip(parts, regions, strict=True)]
        return cls(**cls._merged(seen, cls._clusters(seen, regions)))

    @classmethod
    def combine(cls, parts: Sequence[Self], joining: Joining) -> Self:
        """Return the objects of an image from those of several models, each with at most one box in an object.

        A score is the weighted mean over the models that know the class, 0 for those that have no such box. Each
        model's own suppression stands before it.

        Args:
            parts: That of each model, restored to the image.
            joining: The classes and weights of the models.

        Raises:
            UsageError: A part is not restored.
        """
        named = cls._named(parts, joining)
        if len(named) == 1:
            return named[0]
        regions = [named[0]._whole()] * len(named)
        return cls(**cls._merged(named, cls._clusters(named, regions, joining.shares)))

    @staticmethod
    def _named(parts: Sequence[P], joining: Joining) -> list[P]:
        """Return the objects of several models with the class ids of all."""
        pairs = zip(parts, joining.ids, strict=True)
        return [part._with_labels(part.labels.new_tensor(ids)) for part, ids in pairs]

    def _with_labels(self, new: Tensor) -> Self:
        """Return the same objects with other class ids, int64 [K]: that of each class."""
        return replace(self, labels=new[self.labels])

    def _whole(self) -> Region:
        """Return the region that is all of the image."""
        if self.size is None:
            raise UsageError("predictions are put together in the original picture: call restore(info) first")
        return (0, 0, *self.size)

    @staticmethod
    def _clusters(
        parts: Sequence[BoxPrediction], regions: Sequence[Region], shares: Tensor | None = None
    ) -> list[Cluster]:
        boxes, scores, labels = ([getattr(p, name) for p in parts] for name in ("boxes", "scores", "labels"))
        return merge_boxes(boxes, scores, labels, regions, shares)

    @staticmethod
    def _merged(parts: Sequence[BoxPrediction], clusters: Sequence[Cluster]) -> dict[str, Any]:
        """Return what is made of clusters, on the device of the parts."""
        like = parts[0].boxes
        return {
            "boxes": like.new_tensor([c.box for c in clusters], dtype=torch.float32).reshape(-1, 4),
            "scores": like.new_tensor([c.score for c in clusters], dtype=torch.float32),
            "labels": like.new_tensor([c.label for c in clusters], dtype=torch.int64),
            "size": parts[0].size,
        }

    def select_classes(self, names: Sequence[str], kept: Sequence[str]) -> Self:
        """Return the objects of some classes alone.

        Args:
            names: Class names, in the order of the ids of this prediction.
            kept: Those to keep, in the order of the ids that come out.

        Raises:
            UsageError: A class is not among ``names`` or stands there twice.
        """
        new = self.labels.new_full((len(names),), -1)
        new[ids_of(names, kept)] = torch.arange(len(kept), device=new.device)
        left = self._with_labels(new)
        return left.select(left.labels >= 0)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], names: Sequence[str]) -> Self:
        """Return the prediction of which :meth:`record` makes this record.

        Args:
            record: What ``record`` returned.
            names: Class names, in the order of their ids.

        Raises:
            DataError: The record is no such record, or names another class.
        """
        return cls(**cls._read(record, names))

    @staticmethod
    def _read(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Return what a record of boxes holds."""
        ids = {name: k for k, name in enumerate(names)}
        objects, height = recorded(record, "objects"), recorded(record, "height")
        with reading_record():
            boxes = [[float(v) for v in recorded(o, "box")] for o in objects]
            if odd := [len(box) for box in boxes if len(box) != 4]:
                raise ValueError(f"a box has {odd[0]} numbers, not the four x1, y1, x2, y2")
            return {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "scores": torch.tensor([float(recorded(o, "score")) for o in objects], dtype=torch.float32),
                "labels": torch.tensor([recorded(ids, recorded(o, "label")) for o in objects], dtype=torch.int64),
                "size": None if height is None else (int(height), int(recorded(record, "width"))),
            }

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return width, height and objects, each ``{"label": name, "score": 0..1, "box": [x1, y1, x2, y2]}``."""
        height, width = self.size if self.size is not None else (None, None)
        rows = zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        objects = [{"label": names[k], "score": s, "box": b} for k, s, b in rows]
        return {"width": width, "height": height, "objects": objects}

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row an object: label, score, x1, y1, x2, y2 in pixels, and the image's width and height."""
        height, width = self.size if self.size is not None else (None, None)
        rows = zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        return [dict(zip(BOX_COLUMNS, (names[k], s, *b, width, height), strict=True)) for k, s, b in rows]

    @classmethod
    def tally(cls, record: Mapping[str, Any], min_score: float | None = None) -> dict[str, Tally]:
        """Return the objects of a record by class; where none were left out, those from ``DRAWN_SCORE`` on."""
        least = DRAWN_SCORE if min_score is None else min_score
        counts = Counter(found["label"] for found in record["objects"] if found["score"] >= least)
        return {"objects": Tally.told(counts, which=f"from score {least:g} on")}

    def agreement(self, other: Self) -> Agreement:
        """Return how many of both predictions' objects, from ``DRAWN_SCORE`` on, the other one has, too.

        That is one of the same class and an overlap of at least one half. With it go the differences of the scores.
        """
        mine, yours = self.at_least(DRAWN_SCORE), other.at_least(DRAWN_SCORE)
        what = f"of the objects from a score of {DRAWN_SCORE} on are found by both"
        total = float(len(mine) + len(yours))
        if not len(mine) or not len(yours):
            return Agreement(what, 0, total)
        overlaps = mine.overlaps(yours) * (mine.labels[:, None] == yours.labels)  # [N, M]
        best, which = overlaps.max(1)
        again = best >= SAME_OVERLAP
        same = float(again.sum() + (overlaps.max(0).values >= SAME_OVERLAP).sum())
        difference = (mine.scores - yours.scores[which])[again].abs()
        return Agreement(what, same, total, float(difference.sum()), float(again.sum()))

    def overlaps(self, other: Self) -> Tensor:
        """Return the intersection over union of its N objects with the other's M, float32 [N, M]."""
        return pairwise_iou(self.boxes, other.boxes)


def boxes_to_original(boxes: Tensor, info: ImageInfo) -> Tensor:
    """Move boxes, float [N, 4] xyxy, from pixels that the model sees to those of the original image, float32 [N, 4]."""
    moved = to_original(boxes.float().reshape(-1, 2, 2), info).reshape(-1, 4)
    return moved[:, [2, 1, 0, 3]] if info.scale[1] < 0 else moved  # what was left is right in a mirror


def _thick(boxes: Tensor) -> Tensor:
    return ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(1)
