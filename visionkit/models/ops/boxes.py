"""Geometry of boxes: areas, overlaps and their generalisations. Boxes are xyxy, float32, in any one unit."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

__all__ = ["BoxLoss", "BOX_LOSSES", "area", "box_loss", "clip", "iou", "pairwise_iou", "pad"]

BoxLoss: TypeAlias = Literal["iou", "giou", "diou", "ciou"]
BOX_LOSSES: tuple[BoxLoss, ...] = get_args(BoxLoss)
EPS = 1e-7  # keeps fractions finite where a box has no area; torchvision's own


def area(boxes: Tensor) -> Tensor:
    """Return the area of boxes [..., 4], 0 where one is turned inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return boxes [..., 4] cut off at a picture of (height, width)."""
    limit = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    return torch.minimum(boxes.clamp(min=0), limit)


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Return the common area of boxes [..., 4] that broadcast."""
    corner = torch.maximum(a[..., :2], b[..., :2])
    return (torch.minimum(a[..., 2:], b[..., 2:]) - corner).clamp(min=0).prod(-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of boxes [..., 4] that broadcast; 0 where both have no area."""
    common = intersection(a, b)
    return common / (area(a) + area(b) - common).clamp(min=EPS)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of each pair: [..., N, 4] and [..., M, 4] give [..., N, M]."""
    # one coordinate at a time: several times faster than [..., N, M, 2]
    ax1, ay1, ax2, ay2 = a[..., None].unbind(-2)  # [..., N, 1]
    bx1, by1, bx2, by2 = b[..., None, :, :].unbind(-1)  # [..., 1, M]
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    common = width * (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    return common / (area(a)[..., None] + area(b)[..., None, :] - common).clamp(min=EPS)


def box_loss(kind: BoxLoss, predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the loss of each box, >= 0: one minus an overlap that still has a slope where boxes are apart.

    Args:
        kind: "iou"; "giou" (Rezatofighi et al., CVPR 2019); "diou" and "ciou" (Zheng et al., AAAI 2020, equations 7
            and 10; the trade-off of "ciou" carries no gradient).
        predicted: float32 [..., 4].
        truth: float32 [..., 4].

    Returns:
        float32 [...].
    """
    common = intersection(predicted, truth)
    union = area(predicted) + area(truth) - common
    overlap = common / (union + EPS)
    if kind == "iou":
        return 1 - overlap
    hull = torch.maximum(predicted[..., 2:], truth[..., 2:]) - torch.minimum(predicted[..., :2], truth[..., :2])
    if kind == "giou":
        whole = hull.prod(-1)
        return 1 - overlap + (whole - union) / (whole + EPS)
    apart = ((predicted[..., :2] + predicted[..., 2:]) - (truth[..., :2] + truth[..., 2:])).square().sum(-1) / 4
    distance = apart / (hull.square().sum(-1) + EPS)
    if kind == "diou":
        return 1 - overlap + distance
    shape = (4 / math.pi**2) * (_angle(predicted) - _angle(truth)).square()
    with torch.no_grad():
        weight = shape / (1 - overlap + shape + EPS)
    return 1 - overlap + distance + weight * shape


def _angle(boxes: Tensor) -> Tensor:
    """Return the angle of each box's diagonal; its slope stays finite for flat boxes."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return torch.atan2(width.clamp(min=EPS), height.clamp(min=EPS))


def pad(tensors: list[Tensor], length: int, value: float = 0) -> Tensor:
    """Stack tensors [N_i, ...] of different lengths into [B, length, ...], filled up with ``value``."""
    stacked = tensors[0].new_full((len(tensors), length, *tensors[0].shape[1:]), value)
    for row, tensor in zip(stacked, tensors, strict=True):
        row[: len(tensor)] = tensor
    return stacked
