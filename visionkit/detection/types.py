"""The truth and the prediction of detection: boxes with classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.detection.writers import CocoWriter, YoloWriter
from visionkit.errors import DataError
from visionkit.ops.boxes import area, clip
from visionkit.records import Format
from visionkit.sample import ImageInfo

__all__ = ["DRAWN_SCORE", "BoxPrediction", "BoxTarget"]

MIN_SIDE = 1.0  # pixels that the model sees; what is thinner teaches nothing and makes losses infinite
MIN_VISIBLE = 0.25  # of a box's area; what a cut leaves of less is neither learnt nor counted
DRAWN_SCORE = 0.3
"""Lowest score of the boxes that are drawn: a hundred weak ones would hide the picture."""


@dataclass(frozen=True)
class BoxTarget:
    """The objects of an image; none is legal.

    Args:
        boxes: float32 [N, 4], xyxy in pixels, ``x1 < x2`` and ``y1 < y2``.
        labels: int64 [N], class ids 0..K-1.
        crowd: bool [N], boxes around crowds and difficult objects: neither learnt nor counted, as COCO does it.
        areas: float32 [N], area of each object in pixels of the original image; COCO's sizes small, medium and large
            go by it. Where masks are known it is their area, else that of the box.
        original: The same objects in the original image, or None when this is it, or when there is none any more.

    Raises:
        DataError: Shapes disagree.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    areas: Tensor
    original: Self | None = None

    def __post_init__(self) -> None:
        """Check the shapes."""
        n = len(self.labels)
        if self.boxes.shape != (n, 4) or self.crowd.shape != (n,) or self.areas.shape != (n,):
            raise DataError(
                f"boxes {list(self.boxes.shape)}, labels {list(self.labels.shape)}, crowd {list(self.crowd.shape)} and "
                f"areas {list(self.areas.shape)} must be [N, 4], [N], [N] and [N]"
            )

    @classmethod
    def make(cls, boxes: Any, labels: Any, crowd: Any = None, areas: Any = None) -> Self:
        """Make a target from lists, arrays or tensors.

        Args:
            boxes: [N, 4], xyxy in pixels.
            labels: [N], class ids.
            crowd: [N], whether it is a crowd or difficult; None for none.
            areas: [N], in pixels of the original; None for those of the boxes.
        """
        placed = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        n = len(placed)
        return cls(
            placed,
            torch.as_tensor(labels, dtype=torch.int64).reshape(-1),
            torch.zeros(n, dtype=torch.bool) if crowd is None else torch.as_tensor(crowd, dtype=torch.bool).reshape(-1),
            area(placed) if areas is None else torch.as_tensor(areas, dtype=torch.float32).reshape(-1),
        )

    def __len__(self) -> int:
        """Return the number of boxes, N."""
        return len(self.labels)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the target with its tensors on ``device``; those of the original stay where they are."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("boxes", "labels", "crowd", "areas")
        }
        return replace(self, **moved)

    def restore(self, info: ImageInfo) -> Self:
        """Return the objects in pixels of the original image."""
        return self if self.original is None else self.original

    def place(self, scale: tuple[float, float], offset: tuple[int, int], size: tuple[int, int]) -> Self:
        """Return the boxes after their image was resized, shifted and cut or padded.

        Boxes are clipped to the picture. Those that end up thinner than a pixel are dropped; those of which a cut
        leaves less than a quarter become ``crowd``: neither learnt nor taken for background.
        """
        x, y = self.boxes[:, 0::2] * scale[1] + offset[1], self.boxes[:, 1::2] * scale[0] + offset[0]  # [N, 2] each
        whole = torch.stack([x, y], -1).flatten(1)
        clipped = clip(whole, size)
        crowd = self.crowd | (area(clipped) < MIN_VISIBLE * area(whole))
        placed = replace(self, boxes=clipped, crowd=crowd, original=self if self.original is None else self.original)
        thick = _thick(clipped)
        return placed if bool(thick.all()) else placed.take(thick)

    def join(self, others: Sequence[Self]) -> Self:
        """Return the boxes of several images that were pasted into one picture; the originals are gone."""
        fields = ("boxes", "labels", "crowd", "areas")
        joined = {name: torch.cat([getattr(t, name) for t in (self, *others)]) for name in fields}
        return replace(self, **joined, original=None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return boxes, float32 [N, 4], and their positions, int64 [N], for albumentations."""
        return {"bboxes": self.boxes.numpy(), "box_index": np.arange(len(self))}

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> Self:
        """Return the boxes that are left after a random change, clipped to the picture; the original is gone."""
        index = torch.from_numpy(np.asarray(arrays["box_index"], np.int64).reshape(-1))
        boxes = torch.from_numpy(np.asarray(arrays["bboxes"], np.float32).reshape(-1, 4))
        changed = replace(self.take(index), boxes=clip(boxes, size), original=None)
        return changed.take(_thick(changed.boxes))

    def take(self, which: Tensor) -> Self:
        """Return some of the boxes: a bool mask [N] or int64 positions; the original stays whole."""
        return replace(
            self, boxes=self.boxes[which], labels=self.labels[which], crowd=self.crowd[which], areas=self.areas[which]
        )


@dataclass(frozen=True)
class BoxPrediction:
    """What a detector says of an image: boxes, the most certain first.

    Args:
        boxes: float32 [N, 4], xyxy in pixels.
        scores: float32 [N], 0..1, falling.
        labels: int64 [N], class ids 0..K-1.
        size: Height and width of the original image; known once the prediction is restored to it.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    size: tuple[int, int] | None = None

    columns: ClassVar[tuple[str, ...]] = ("label", "score", "x1", "y1", "x2", "y2", "width", "height")
    """Keys of :meth:`rows`."""
    formats: ClassVar[Mapping[str, Format]] = {"coco": CocoWriter, "yolo": YoloWriter}
    """Further formats that predictions are written in."""

    def __len__(self) -> int:
        """Return the number of boxes, N."""
        return len(self.scores)

    def restore(self, info: ImageInfo) -> Self:
        """Return the boxes in pixels of the original image, clipped to it; those outside of it are dropped."""
        boxes = self.boxes.float()
        scale = boxes.new_tensor([info.scale[1], info.scale[0], info.scale[1], info.scale[0]])
        shift = boxes.new_tensor([info.offset[1], info.offset[0], info.offset[1], info.offset[0]])
        clipped = clip((boxes - shift) / scale, info.size)
        kept = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(1)
        return replace(self, boxes=clipped[kept], scores=self.scores[kept], labels=self.labels[kept], size=info.size)

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Draw the boxes from ``DRAWN_SCORE`` on, with class and score, onto a copy of the image, uint8 [3, H, W]."""
        from visionkit.transforms.draw import draw_boxes

        shown = self.at_least(DRAWN_SCORE)
        texts = [f"{names[k]} {s:.0%}" for k, s in zip(shown.labels.tolist(), shown.scores.tolist(), strict=True)]
        return draw_boxes(image, shown.boxes, shown.labels, texts)

    def at_least(self, score: float) -> Self:
        """Return the boxes alone that have at least this score, 0..1."""
        kept = self.scores >= score
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept])

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return width, height and objects, each ``{"label": name, "score": 0..1, "box": [x1, y1, x2, y2]}``."""
        height, width = self.size if self.size is not None else (None, None)
        rows = zip(self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        objects = [{"label": names[k], "score": s, "box": b} for k, s, b in rows]
        return {"width": width, "height": height, "objects": objects}

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row an object: label, score, x1, y1, x2, y2 in pixels, and the image's width and height."""
        record = self.record(names)
        return [
            dict(zip(self.columns, (o["label"], o["score"], *o["box"], record["width"], record["height"]), strict=True))
            for o in record["objects"]
        ]


def _thick(boxes: Tensor) -> Tensor:
    return ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(1)
