"""RoIAlign over a feature pyramid: a small map of features from under each box, fast on a CPU too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import roi_align as torchvision_roi_align

from visionkit.models.ops.boxes import area

__all__ = ["pyramid_level", "roi_align"]

EPS = 1e-6  # torchvision's: keeps a box of exactly the canonical size on the canonical level


def roi_align(
    features: Sequence[Tensor],
    rois: Sequence[Tensor] | Tensor,
    strides: Sequence[int],
    *,
    output_size: int = 7,
    sampling_ratio: int = 2,
    canonical_scale: float = 224,
    canonical_level: int = 4,
) -> Tensor:
    """Sample the features under each box on a regular grid (He et al., "Mask R-CNN", ICCV 2017, section 3).

    Numbers and gradients are those of torchvision's ``MultiScaleRoIAlign`` (``aligned=False``). On a CPU the sampling
    is a product with a sparse matrix: each bin is a weighted sum of ``(2 * sampling_ratio)**2`` cells, and the
    gradient is the product with the matrix transposed. Both run on all threads, unlike torchvision's gradient.

    Args:
        features: One float tensor [B, C, H_l, W_l] a level, fine to coarse; channels_last memory order is the fast one.
        rois: Boxes of each image, B tensors [N_i, 4], xyxy in pixels of the network's input; or all of them in one
            [R, 5] whose first column is the position of the image in the batch.
        strides: Pixels per cell of each level, powers of two.
        output_size: Bins along each side, S.
        sampling_ratio: Sampling points along each side of a bin, from 1 on.
        canonical_scale: Side of the boxes, in pixels, that belong to the canonical level.
        canonical_level: That level; level n has cells of 2**n pixels (Lin et al., CVPR 2017, equation 1).

    Returns:
        [R, C, S, S] in the type of the features; on a CPU in channels_last memory order. Boxes without area count as
        boxes with a side of one cell.
    """
    boxes, image = _flat(rois)
    boxes = boxes.to(features[0].device, torch.float32)
    image = image.to(features[0].device)
    level = pyramid_level(boxes, strides, canonical_scale=canonical_scale, canonical_level=canonical_level)
    if features[0].device.type != "cpu":
        return _by_torchvision(features, boxes, image, level, strides, output_size, sampling_ratio)
    shapes = [tuple(x.shape[-2:]) for x in features]
    index, weight = _taps(boxes, image, level, strides, shapes, len(features[0]), output_size, sampling_ratio)
    channels = features[0].shape[1]
    exact = torch.promote_types(features[0].dtype, torch.float32)
    cells = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, channels) for x in features]).to(exact)  # [sum B*H*W, C]
    taps = (2 * sampling_ratio) ** 2
    bins: Tensor = _WeightedSum.apply(cells, index, weight.to(exact), taps)
    bins = bins.view(len(boxes), output_size, output_size, channels)
    return bins.to(features[0].dtype).permute(0, 3, 1, 2)


def pyramid_level(
    boxes: Tensor, strides: Sequence[int], *, canonical_scale: float = 224, canonical_level: int = 4
) -> Tensor:
    """Return the position in ``strides`` of the level that each box belongs to (Lin et al. 2017, equation 1).

    Args:
        boxes: float32 [N, 4], xyxy in pixels.
        strides: Pixels per cell of each level, powers of two.
        canonical_scale: Side in pixels of the boxes that belong to the canonical level.
        canonical_level: That level.

    Returns:
        int64 [N].
    """
    first, last = round(math.log2(strides[0])), round(math.log2(strides[-1]))
    level = torch.floor(canonical_level + torch.log2(area(boxes).sqrt() / canonical_scale) + EPS)
    return level.nan_to_num(first).clamp(first, last).to(torch.int64) - first


def _flat(rois: Sequence[Tensor] | Tensor) -> tuple[Tensor, Tensor]:
    """Return all boxes [R, 4] and the position of each one's image, int64 [R]."""
    if isinstance(rois, Tensor):
        return rois[:, 1:], rois[:, 0].to(torch.int64)
    counts = torch.tensor([len(x) for x in rois])
    return torch.cat(list(rois)), torch.arange(len(rois)).repeat_interleave(counts)


def _by_torchvision(
    features: Sequence[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    strides: Sequence[int],
    output_size: int,
    sampling_ratio: int,
) -> Tensor:
    rois = torch.cat([image[:, None].to(boxes), boxes], dim=1)
    first = features[0]
    result = first.new_zeros(len(rois), first.shape[1], output_size, output_size)
    for k, (x, stride) in enumerate(zip(features, strides, strict=True)):
        chosen = torch.where(level == k)[0]
        exact = torch.promote_types(x.dtype, torch.float32)  # it has no kernel for bfloat16
        part = torchvision_roi_align(x.to(exact), rois[chosen].to(exact), output_size, 1 / stride, sampling_ratio)
        result = result.index_copy(0, chosen, part.to(result.dtype))
    return result


def _taps(
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    strides: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
    batch: int,
    bins: int,
    samples: int,
) -> tuple[Tensor, Tensor]:
    """Return rows, int32, and weights, float32, of the cells that each bin sums up, both [R * bins**2 * taps]."""
    size = torch.tensor(shapes, dtype=torch.int32)  # [L, 2], height and width
    cells = size.prod(1) * batch
    start = (cells.cumsum(0) - cells)[level] + image * size.prod(1)[level]  # [R], first row of the image and level
    height, width = size[level].unbind(1)
    scaled = boxes * (1 / torch.tensor(strides, dtype=torch.float32))[level, None]
    extent = (scaled[:, 2:] - scaled[:, :2]).clamp(min=1)
    x, x_weight = _axis(scaled[:, 0], extent[:, 0], width, bins, samples)  # [R, bins, 2 * samples]
    y, y_weight = _axis(scaled[:, 1], extent[:, 1], height, bins, samples)
    row = start.to(torch.int32)[:, None, None] + y * width[:, None, None]
    index = row[:, :, None, :, None] + x[:, None, :, None, :]  # [R, bins, bins, 2 * samples, 2 * samples]
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    return index.flatten(), weight.flatten()


def _axis(start: Tensor, extent: Tensor, size: Tensor, bins: int, samples: int) -> tuple[Tensor, Tensor]:
    """Return cells and weights along one axis, both [R, bins, 2 * samples], by torchvision's rules at the border."""
    step = (extent / bins)[:, None, None]
    point = torch.arange(samples) + 0.5
    place = start[:, None, None] + torch.arange(bins)[:, None] * step + point * step / samples  # [R, bins, samples]
    last = size[:, None, None] - 1
    inside = (place >= -1) & (place <= last + 1)  # what lies further out counts as zero
    place = torch.where(inside, place, 0.0).clamp(min=0)
    low = torch.minimum(place.to(torch.int32), last)
    high = torch.minimum(low + 1, last)
    part = torch.where(low < last, place - low, 0.0)
    share = inside / samples
    cells = torch.stack([low, high], -1).flatten(2)
    return cells, torch.stack([(1 - part) * share, part * share], -1).flatten(2)


class _WeightedSum(torch.autograd.Function):
    """Rows summed up in groups of equal length: a product with a sparse matrix, and with its transpose as gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor, group: int) -> Tensor:
        """Return [len(index) / group, C] from rows [N, C], the positions of the summands and their weights."""
        ctx.save_for_backward(index, weight)
        ctx.count, ctx.group = len(rows), group
        return _bags(rows, index, torch.arange(0, len(index) + 1, group, dtype=index.dtype), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Collect, for each row, the gradients of the groups that it went into."""
        index, weight = ctx.saved_tensors
        ordered, order = torch.sort(index)  # a radix sort on all threads
        ends = torch.searchsorted(ordered, torch.arange(ctx.count + 1, dtype=index.dtype), out_int32=True)
        group = (order // ctx.group).to(index.dtype)
        return _bags(gradient.contiguous(), group, ends, weight[order]), None, None, None


def _bags(rows: Tensor, index: Tensor, ends: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted sum of rows in each bag, [len(ends) - 1, C]."""
    if len(index) == 0:
        return rows.new_zeros(len(ends) - 1, rows.shape[1])
    result = torch.embedding_bag(rows, index, ends, False, 0, False, weight, True)  # mode 0 sums
    return result[0]
