"""The prediction of instance segmentation: boxes with classes and a mask in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.joining import Joining
from visionkit.core.prediction import Region, reading_record, recorded
from visionkit.core.sample import ImageInfo
from visionkit.data.labels.masks import ObjectMasks, encode_window, read_segmentation
from visionkit.tasks.detection.types import BOX_COLUMNS, BoxPrediction, boxes_to_original

__all__ = ["INSTANCE_COLUMNS", "InstancePrediction", "paste", "stretch"]

INSTANCE_COLUMNS = (*BOX_COLUMNS, "mask_area")
"""Keys of the rows of boxes with masks in the table."""
MIN_WEIGHT = 1e-6  # of a view in a mean

MASK_THRESHOLD = 0.5
"""Probability from which a pixel belongs to an object."""


@dataclass(frozen=True, kw_only=True)
class InstancePrediction(BoxPrediction):
    """What a detector with a mask branch says of an image: boxes with masks, the most certain first.

    Args:
        masks: float32 [N, M, M], probability 0..1 of each of M x M equal parts of a frame to be of the object.
        frames: float32 [N, 4], xyxy in pixels: where the masks lie. Unlike the boxes they are never cut off.
        outlines: The masks in the original picture, where they are known already: of predictions that were merged or
            read from a record. ``masks`` then are empty, [N, 0, 0].

    Raises:
        DataError: Shapes disagree.
    """

    masks: Tensor
    frames: Tensor
    outlines: ObjectMasks | None = None

    def __post_init__(self) -> None:
        """Check the shapes."""
        n, side = len(self.scores), self.masks.shape[-1]
        if self.masks.shape != (n, side, side) or self.frames.shape != (n, 4):
            raise DataError(f"masks {list(self.masks.shape)}, frames {list(self.frames.shape)} of {n} boxes must be "
                            f"[{n}, M, M] and [{n}, 4]")  # fmt: skip

    def restore(self, info: ImageInfo) -> Self:
        """Return boxes and masks in pixels of the original image; boxes are clipped to it, those outside dropped."""
        if self.outlines is not None:
            raise UsageError("masks that were merged or read from a record are in pixels of the original already")
        masks = self.masks.flip(2) if info.scale[1] < 0 else self.masks  # a mirror
        moved = replace(self, masks=masks, frames=boxes_to_original(self.frames, info))
        return super(InstancePrediction, moved).restore(info)

    @cached_property
    def pasted(self) -> ObjectMasks:
        """The masks in the original picture, a pixel belonging to an object from a probability of one half on.

        Work and memory go by the boxes, not by the picture.

        Raises:
            UsageError: The prediction is not restored, so the picture's size is not known.
        """
        if self.outlines is not None:
            return self.outlines
        if self.size is None:
            raise UsageError("masks are pasted into the original picture: call restore(info) first")
        masks, frames = self.masks.float().cpu().numpy(), self.frames.tolist()
        found = [paste(m, f, self.size) for m, f in zip(masks, frames, strict=True)]
        return ObjectMasks(tuple(encode_window(window, corner, self.size) for window, corner in found), self.size)

    def select(self, which: Tensor) -> Self:
        """Return some of the objects with all that is known of them: a bool mask [N] or int64 positions."""
        some = super().select(which)
        if self.outlines is None:
            return some
        rows = which.nonzero()[:, 0] if which.dtype == torch.bool else which
        return replace(some, outlines=self.outlines.select(rows.tolist()))

    @classmethod
    def merge(cls, parts: Sequence[Self], regions: Sequence[Region]) -> Self:
        """Return the objects of an image from those of several views: boxes as for boxes alone.

        A pixel belongs to an object from a mean probability of one half on, weighted by score, of the boxes that the
        object is made of and whose view shows the pixel. So parts of an object that windows cut add up. One object is
        in memory at a time; what is kept are run lengths.

        Args:
            parts: Each restored to the image.
            regions: The pixels of the image that each speaks of.

        Raises:
            UsageError: A part is not restored.
        """
        parts[0]._whole()
        seen = [part._within(region) for part, region in zip(parts, regions, strict=True)]
        return cls._fused(seen, regions)

    @classmethod
    def combine(cls, parts: Sequence[Self], joining: Joining) -> Self:
        """Return the objects of an image from those of several models: boxes as for boxes alone.

        A pixel belongs to an object from a mean probability of one half on, weighted by score and weight of the models
        that have it.

        Args:
            parts: That of each model, restored to the image.
            joining: The classes and weights of the models.

        Raises:
            UsageError: A part is not restored.
        """
        named = cls._named(parts, joining)
        return named[0] if len(named) == 1 else cls._fused(named, [named[0]._whole()] * len(named), joining.shares)

    @classmethod
    def _fused(cls, parts: Sequence[Self], regions: Sequence[Region], shares: Tensor | None = None) -> Self:
        """Return the objects of restored parts; ``shares`` says what each counts for each class, float [V, K]."""
        size = parts[0].size
        assert size is not None  # whoever calls asked for it
        clusters = cls._clusters(parts, regions, shares)
        counts = []
        for cluster in clusters:
            views = []
            for view, k in cluster.members:
                weight = 1.0 if shares is None else float(shares[view, cluster.label])
                views.append(parts[view]._soft(k, weight * float(parts[view].scores[k]), regions[view]))
            counts.append(encode_window(*average(views), size))
        return cls._outlined(cls._merged(parts, clusters), ObjectMasks(tuple(counts), size))

    @classmethod
    def from_record(cls, record: Mapping[str, Any], names: Sequence[str]) -> Self:
        """Return the prediction of which :meth:`record` makes this record; its masks are pixels, without probabilities.

        Args:
            record: What ``record`` returned.
            names: Class names, in the order of their ids.

        Raises:
            DataError: The record is no such record, or names another class.
        """
        read = cls._read(record, names)
        with reading_record():
            masks = [recorded(o, "mask") for o in record["objects"]]
            size = read["size"]
            outlines = tuple(read_segmentation(m, size, f"record: objects[{k}]")[0] for k, m in enumerate(masks))
            return cls._outlined(read, ObjectMasks(outlines, size))

    @classmethod
    def _outlined(cls, boxes: dict[str, Any], outlines: ObjectMasks) -> Self:
        n = len(outlines)
        return cls(**boxes, masks=boxes["boxes"].new_zeros(n, 0, 0), frames=boxes["boxes"], outlines=outlines)

    def _soft(self, k: int, weight: float, region: Region) -> SoftMask:
        """Return the probabilities of an object in the picture, as far as a region shows it."""
        assert self.size is not None  # merge asked for it
        if self.outlines is None:
            window, (top, left) = stretch(self.masks[k].float().cpu().numpy(), self.frames[k].tolist(), self.size)
        else:
            one = self.outlines.select([k])
            left, top, right, bottom = (int(v) for v in one.boxes()[0])
            window = one.dense()[0, top:bottom, left:right].astype(np.float32)
        first = (max(0, region[0] - top), max(0, region[1] - left))
        last = (max(0, region[2] - top), max(0, region[3] - left))
        seen = window[first[0] : last[0], first[1] : last[1]]
        return SoftMask(seen, (top + first[0], left + first[1]), region, max(weight, MIN_WEIGHT))

    def rles(self) -> list[dict[str, Any]]:
        """Return the masks in the original picture as COCO's run lengths, ``{"size": [H, W], "counts": bytes}``."""
        return self.pasted.rles()

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Draw the objects from ``drawn`` on, mask and box, onto a copy of the image, uint8 [3, H, W]."""
        from visionkit.prediction.draw import draw_masks

        shown = self.at_least(self.drawn)
        return super().draw(draw_masks(image, shown.pasted, shown.labels), names)

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the record of the boxes; each object has ``"mask": {"size": [H, W], "counts": text}`` (COCO), too."""
        record = super().record(names)
        for found, mask in zip(record["objects"], self.rles(), strict=True):
            found["mask"] = {"size": mask["size"], "counts": mask["counts"].decode("ascii")}
        return record

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of the boxes, each with the mask's number of pixels."""
        areas = self.pasted.areas().tolist()
        return [row | {"mask_area": round(a)} for row, a in zip(super().rows(names), areas, strict=True)]

    def overlaps(self, other: Self) -> Tensor:
        """Return the intersection over union of its N masks with the other's M, float32 [N, M]."""
        from faster_coco_eval.core import mask as coco

        found = coco.iou(self.rles(), other.rles(), [0] * len(other))
        return torch.from_numpy(np.asarray(found, np.float32)).to(self.scores.device)


class SoftMask(NamedTuple):
    """The probabilities of an object's pixels, as one view shows them."""

    window: NDArray[np.float32]
    """[h, w], within the region; around it they are 0."""
    corner: tuple[int, int]
    """Row and column of its first pixel."""
    region: Region
    """The pixels of the picture that the view shows."""
    weight: float
    """What the view counts, above 0."""


def average(views: Sequence[SoftMask]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Return the pixels whose mean probability, over the views that show them, reaches ``MASK_THRESHOLD``.

    Returns:
        The pixels around the object, [h, w], and row and column of the first one.
    """
    shown = [v for v in views if v.window.size]
    if not shown:
        return np.zeros((0, 0), bool), (0, 0)
    top, left = (min(v.corner[axis] for v in shown) for axis in (0, 1))
    bottom, right = (max(v.corner[axis] + v.window.shape[axis] for v in shown) for axis in (0, 1))
    total, weight = np.zeros((2, bottom - top, right - left), np.float32)
    for view in views:
        if view.window.size:
            y, x = view.corner[0] - top, view.corner[1] - left
            total[y : y + view.window.shape[0], x : x + view.window.shape[1]] += view.weight * view.window
        rows = slice(max(0, view.region[0] - top), max(0, view.region[2] - top))
        columns = slice(max(0, view.region[1] - left), max(0, view.region[3] - left))
        weight[rows, columns] += view.weight
    return (total >= MASK_THRESHOLD * weight) & (weight > 0), (top, left)


def paste(
    mask: NDArray[np.float32], frame: Sequence[float], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Return the pixels of an object: where the mask, stretched over its frame, reaches ``MASK_THRESHOLD``.

    Args and what is returned are those of :func:`stretch`, with pixels in place of probabilities.
    """
    window, corner = stretch(mask, frame, size)
    return window >= MASK_THRESHOLD, corner


def stretch(
    mask: NDArray[np.float32], frame: Sequence[float], size: tuple[int, int]
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Return the probabilities of an object's pixels: the mask, stretched over its frame bilinearly.

    A mask's values lie in the middles of its parts, and zeros around it (Wu et al., "Detectron2", 2019).

    Args:
        mask: [M, M], probabilities.
        frame: x1, y1, x2, y2 in pixels; it may reach out of the picture.
        size: Height and width of the picture.

    Returns:
        Those of the picture's pixels in the frame, [h, w], and row and column of the first one.
    """
    if not all(map(math.isfinite, frame)):
        return np.zeros((0, 0), np.float32), (0, 0)
    parts = np.arange(len(mask), dtype=np.float32)
    weights, corner = [], []
    for start, end, edge in ((frame[1], frame[3], size[0]), (frame[0], frame[2], size[1])):
        first = min(max(0, math.ceil(start - 0.5)), edge)  # pixels whose middles lie in the frame
        last = max(first, min(edge, math.ceil(end - 0.5)))
        place = ((np.arange(first, last) + 0.5 - start) * (len(mask) / max(end - start, 1e-6)) - 0.5).astype(np.float32)
        weights.append(np.maximum(1 - np.abs(place[:, None] - parts), 0))  # [pixels, M]
        corner.append(first)
    rows, columns = weights
    return rows @ mask @ columns.T, (corner[0], corner[1])
