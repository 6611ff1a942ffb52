"""The prediction of instance segmentation: boxes with classes and a mask in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.sample import ImageInfo
from visionkit.data.labels.masks import ObjectMasks, encode_window
from visionkit.prediction.writers import Format
from visionkit.tasks.detection.types import DRAWN_SCORE, BoxPrediction, boxes_to_original
from visionkit.tasks.detection.writers import CocoMaskWriter, YoloWriter

__all__ = ["InstancePrediction", "paste"]

MASK_THRESHOLD = 0.5
"""Probability from which a pixel belongs to an object."""


@dataclass(frozen=True, kw_only=True)
class InstancePrediction(BoxPrediction):
    """What a detector with a mask branch says of an image: boxes with masks, the most certain first.

    Args:
        masks: float32 [N, M, M], probability 0..1 of each of M x M equal parts of a frame to be of the object.
        frames: float32 [N, 4], xyxy in pixels: where the masks lie. Unlike the boxes they are never cut off.

    Raises:
        DataError: Shapes disagree.
    """

    masks: Tensor
    frames: Tensor

    columns: ClassVar[tuple[str, ...]] = (*BoxPrediction.columns, "mask_area")
    formats: ClassVar[Mapping[str, Format]] = {"coco": CocoMaskWriter, "yolo": YoloWriter}

    def __post_init__(self) -> None:
        """Check the shapes."""
        n, side = len(self.scores), self.masks.shape[-1]
        if self.masks.shape != (n, side, side) or self.frames.shape != (n, 4):
            raise DataError(f"masks {list(self.masks.shape)}, frames {list(self.frames.shape)} of {n} boxes must be "
                            f"[{n}, M, M] and [{n}, 4]")  # fmt: skip

    def restore(self, info: ImageInfo) -> Self:
        """Return boxes and masks in pixels of the original image; boxes are clipped to it, those outside dropped."""
        moved = replace(self, frames=boxes_to_original(self.frames, info))
        return super(InstancePrediction, moved).restore(info)

    @cached_property
    def pasted(self) -> ObjectMasks:
        """The masks in the original picture, a pixel belonging to an object from a probability of one half on.

        Work and memory go by the boxes, not by the picture.

        Raises:
            UsageError: The prediction is not restored, so the picture's size is not known.
        """
        if self.size is None:
            raise UsageError("masks are pasted into the original picture: call restore(info) first")
        masks, frames = self.masks.float().cpu().numpy(), self.frames.tolist()
        found = [paste(m, f, self.size) for m, f in zip(masks, frames, strict=True)]
        return ObjectMasks(tuple(encode_window(window, corner, self.size) for window, corner in found), self.size)

    def rles(self) -> list[dict[str, Any]]:
        """Return the masks in the original picture as COCO's run lengths, ``{"size": [H, W], "counts": bytes}``."""
        return self.pasted.rles()

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Draw the objects from ``DRAWN_SCORE`` on, mask and box, onto a copy of the image, uint8 [3, H, W]."""
        from visionkit.prediction.draw import draw_masks

        shown = self.at_least(DRAWN_SCORE)
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


def paste(
    mask: NDArray[np.float32], frame: Sequence[float], size: tuple[int, int]
) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """Return the pixels of an object: where the mask, stretched over its frame bilinearly, reaches ``MASK_THRESHOLD``.

    A mask's values lie in the middles of its parts, and zeros around it (Wu et al., "Detectron2", 2019).

    Args:
        mask: [M, M], probabilities.
        frame: x1, y1, x2, y2 in pixels; it may reach out of the picture.
        size: Height and width of the picture.

    Returns:
        The pixels of the picture in the frame, [h, w], and row and column of the first one.
    """
    if not all(map(math.isfinite, frame)):
        return np.zeros((0, 0), bool), (0, 0)
    parts = np.arange(len(mask), dtype=np.float32)
    weights, corner = [], []
    for start, end, edge in ((frame[1], frame[3], size[0]), (frame[0], frame[2], size[1])):
        first = min(max(0, math.ceil(start - 0.5)), edge)  # pixels whose middles lie in the frame
        last = max(first, min(edge, math.ceil(end - 0.5)))
        place = ((np.arange(first, last) + 0.5 - start) * (len(mask) / max(end - start, 1e-6)) - 0.5).astype(np.float32)
        weights.append(np.maximum(1 - np.abs(place[:, None] - parts), 0))  # [pixels, M]
        corner.append(first)
    rows, columns = weights
    return rows @ mask @ columns.T >= MASK_THRESHOLD, (corner[0], corner[1])
