"""Non-maximum suppression, class by class: of boxes that show the same object, the most certain one stays."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torchvision.ops import nms

from visionkit.models.ops.boxes import pairwise_iou

__all__ = ["NMS", "suppress"]

NMS: TypeAlias = Literal["hard", "soft", "none"]
SOFT_SIGMA = 0.5  # the paper's


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    kind: NMS = "hard",
    threshold: float = 0.6,
    limit: int = 100,
    min_score: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Choose the boxes of one image that stay; boxes of different classes leave each other alone.

    Args:
        boxes: float [N, 4], xyxy.
        scores: float [N].
        labels: int64 [N].
        kind: "hard" removes what overlaps a better box; "soft" lowers its score by the overlap instead (Bodla et al.,
            "Soft-NMS", ICCV 2017, the Gaussian penalty of equation 3 with sigma 0.5), which keeps crowded objects;
            "none" only sorts and limits.
        threshold: Intersection over union from which boxes show the same object; used by "hard".
        limit: Boxes to keep at most.
        min_score: Boxes whose lowered score falls to it or below are dropped; used by "soft".

    Returns:
        Positions, int64 [M], by falling score, and scores, float32 [M].
    """
    boxes, scores = boxes.float(), scores.float()  # on a CPU there is no bf16 kernel, and coordinates need the digits
    if kind == "none" or len(boxes) == 0:
        order = scores.argsort(descending=True, stable=True)[:limit]
        return order, scores[order]
    shift = labels.to(boxes) * (boxes.max() - boxes.min().clamp(max=0) + 1)  # classes lie apart
    apart = boxes + shift[:, None]
    if kind == "hard":
        kept = nms(apart, scores, threshold)[:limit]
        return kept, scores[kept]
    return _soft(apart, scores, limit, min_score)


def _soft(boxes: Tensor, scores: Tensor, limit: int, min_score: float) -> tuple[Tensor, Tensor]:
    penalty = torch.exp(-pairwise_iou(boxes, boxes).square() / SOFT_SIGMA)  # [N, N]
    left = scores.clone()
    kept: list[Tensor] = []
    values: list[Tensor] = []
    for _ in range(min(limit, len(boxes))):
        best = left.argmax()
        value = left[best]
        if value <= min_score:
            break
        kept.append(best)
        values.append(value)
        left = left * penalty[best]
        left[best] = -1.0  # stays negative from here on
    if not kept:
        return boxes.new_zeros(0, dtype=torch.int64), boxes.new_zeros(0)
    return torch.stack(kept), torch.stack(values)
