"""Scores of cells read at the pixels of an image, through the views that a network had of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visionkit.core.prediction import Region

__all__ = ["MIN_VIEW_WEIGHT", "View", "common", "sample", "taper"]

MIN_VIEW_WEIGHT = 1e-3
"""Least weight of a view within its region."""


@dataclass(frozen=True)
class View:
    """What the network says of an image, or of a part of it.

    A pixel (y, x) of the image lies at ``(y * scale[0] + offset[0], x * scale[1] + offset[1])`` of what the network
    saw; a negative scale is a mirror.

    Args:
        scores: Float [K, h, w], logits of cells of ``stride`` pixels.
        stride: Side of a cell in pixels of what the network saw.
        scale: Vertical and horizontal factor.
        offset: Vertical and horizontal shift in pixels.
        region: Top, left, bottom and right of the pixels that it speaks of, or None for all.
    """

    scores: Tensor
    stride: int
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    region: Region | None = None


def sample(view: View, rows: range, columns: range) -> Tensor:
    """Return the scores of some pixels of the image, float32 [K, rows, columns], bilinear between centres of cells."""
    y0, y1, fy = _neighbours(view, rows, 0)
    x0, x1, fx = _neighbours(view, columns, 1)
    first, last = int(torch.minimum(y0[0], y0[-1])), int(torch.maximum(y1[0], y1[-1])) + 1
    seen = view.scores[:, first:last].float()
    lines = torch.lerp(seen.index_select(2, x0), seen.index_select(2, x1), fx)  # [K, h, columns]
    return torch.lerp(lines.index_select(1, y0 - first), lines.index_select(1, y1 - first), fy[:, None])


def _neighbours(view: View, pixels: range, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each pixel the two cells around its centre, int64 [n] each, and the second's share, float32 [n]."""
    last = view.scores.shape[1 + axis] - 1
    centre = torch.arange(pixels.start, pixels.stop, device=view.scores.device, dtype=torch.float64) + 0.5
    place = ((centre * view.scale[axis] + view.offset[axis]) / view.stride - 0.5).clamp(0, last)
    low = place.floor().to(torch.int64)
    return low, (low + 1).clamp(max=last), (place - low).float()


def common(first: Region | None, second: Region) -> Region:
    """Return the pixels of both regions; None stands for all."""
    if first is None:
        return second
    return (*map(max, first[:2], second[:2]), *map(min, first[2:], second[2:]))  # type: ignore[return-value]  # four


def taper(pixels: range, region: tuple[int, int], length: int) -> Tensor:
    """Return the weight of pixels of a region along one axis: falling towards ends that other regions may overlap."""
    place = torch.arange(pixels.start, pixels.stop) + 0.5
    half = (region[1] - region[0]) / 2
    weight = torch.ones(len(pixels))
    if region[0] > 0:
        weight = torch.minimum(weight, (place - region[0]) / half)
    if region[1] < length:
        weight = torch.minimum(weight, (region[1] - place) / half)
    return weight.clamp(MIN_VIEW_WEIGHT, 1.0)
