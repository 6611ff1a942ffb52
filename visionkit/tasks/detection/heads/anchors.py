"""Anchors: boxes of a few shapes around every cell of a feature map, and boxes written as offsets from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["cell_anchors", "decode_offsets", "encode_offsets", "grid_anchors"]

MAX_GROWTH = math.log(1000 / 16)  # of a side, as a logarithm; keeps exp finite (Detectron's value)
MIN_SIDE = 1e-6  # pixels; keeps the offsets of boxes without area finite


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Return the anchors of one cell around the origin, one a ratio and size, rounded to whole half-sides.

    Args:
        sizes: Square roots of the anchors' areas, in pixels.
        ratios: Heights over widths.

    Returns:
        float32 [len(ratios) * len(sizes), 4], xyxy in pixels, in torchvision's order: sizes run fastest.
    """
    side, root = torch.tensor(sizes, dtype=torch.float32), torch.tensor(ratios, dtype=torch.float32).sqrt()
    width = ((1 / root)[:, None] * side).flatten()
    height = (root[:, None] * side).flatten()
    return (torch.stack([-width, -height, width, height], dim=1) / 2).round()


def grid_anchors(shapes: Sequence[tuple[int, int]], strides: Sequence[int], cells: Sequence[Tensor]) -> list[Tensor]:
    """Return the anchors of each level.

    Cell (i, j) of a level lies at pixel (i * stride, j * stride), as in torchvision.

    Args:
        shapes: Height and width of each level, in cells.
        strides: Pixels per cell of each level.
        cells: Anchors of one cell of each level, [A, 4].

    Returns:
        A float32 tensor [H_l * W_l * A, 4] a level, xyxy in pixels, on the device of ``cells``: rows outermost, then
        columns, then anchors.
    """
    levels = []
    for (height, width), stride, cell in zip(shapes, strides, cells, strict=True):
        x = torch.arange(width, device=cell.device, dtype=torch.float32) * stride
        y = torch.arange(height, device=cell.device, dtype=torch.float32) * stride
        shift = torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1).repeat(1, 2)
        levels.append((shift[:, None] + cell).reshape(-1, 4))
    return levels


def encode_offsets(
    boxes: Tensor, anchors: Tensor, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Write boxes as offsets from anchors (Girshick et al., CVPR 2014, appendix C).

    Args:
        boxes: float32 [..., 4], xyxy.
        anchors: float32 [..., 4], xyxy in the same unit.
        weights: Factors of the offsets of x, y, width and height.

    Returns:
        float32 [..., 4]: moves of the centre in sides of the anchor, and logarithms of the sides' growth.
    """
    side = (anchors[..., 2:] - anchors[..., :2]).clamp(min=MIN_SIDE)
    target = (boxes[..., 2:] - boxes[..., :2]).clamp(min=MIN_SIDE)
    move = (boxes[..., :2] + 0.5 * target - anchors[..., :2] - 0.5 * side) / side
    return torch.cat([move, (target / side).log()], dim=-1) * move.new_tensor(weights)


def decode_offsets(
    offsets: Tensor, anchors: Tensor, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Return the boxes that offsets from anchors describe; the inverse of :func:`encode_offsets`.

    Args:
        offsets: float32 [..., 4].
        anchors: float32 [..., 4], xyxy.
        weights: The factors they were encoded with.

    Returns:
        float32 [..., 4], xyxy in the unit of the anchors. A side grows 62.5-fold at most.
    """
    offsets = offsets / offsets.new_tensor(weights)
    side = anchors[..., 2:] - anchors[..., :2]
    centre = offsets[..., :2] * side + anchors[..., :2] + 0.5 * side
    half = 0.5 * (offsets[..., 2:].clamp(max=MAX_GROWTH).exp() * side)
    return torch.cat([centre - half, centre + half], dim=-1)
