"""Which location of a dense detector learns which object: for a whole batch at once, in shapes that do not vary.

B images, A locations of all levels, M objects (padded), K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visionkit.models.ops.boxes import area, pad, pairwise_iou
from visionkit.tasks.detection.types import BoxTarget

__all__ = ["Assignment", "Objects", "Points", "assign_by_centre", "assign_by_task", "crowded", "pad_objects"]

NO_AREA = 1e8  # larger than any box


class Points(NamedTuple):
    """The locations of all levels, fine to coarse.

    Args:
        centres: float32 [A, 2], x and y in pixels.
        strides: float32 [A], edge of a location's cell in pixels.
    """

    centres: Tensor
    strides: Tensor


class Objects(NamedTuple):
    """The objects of a batch, padded to one number.

    Args:
        boxes: float32 [B, M, 4], xyxy in pixels; zeros where padded.
        labels: int64 [B, M].
        learnt: bool [B, M], real objects; neither padding nor crowds.
        crowd: bool [B, M].
    """

    boxes: Tensor
    labels: Tensor
    learnt: Tensor
    crowd: Tensor


class Assignment(NamedTuple):
    """What each location has to learn.

    Args:
        positive: bool [B, A], whether an object is learnt here.
        boxes: float32 [B, A, 4], the object's box; anything where not positive.
        labels: int64 [B, A], the object's class; anything where not positive.
        quality: float32 [B, A], how certain the class should be, 0..1; 0 where not positive.
    """

    positive: Tensor
    boxes: Tensor
    labels: Tensor
    quality: Tensor


def pad_objects(targets: Sequence[BoxTarget], *, multiple: int = 8) -> Objects:
    """Put the objects of a batch into one tensor, their number rounded up so that few different shapes occur.

    Args:
        targets: One an image, B.
        multiple: What M is a multiple of.
    """
    most = max(len(t) for t in targets)
    length = max(1, -(-most // multiple)) * multiple
    crowd = pad([t.crowd for t in targets], length)
    real = pad([torch.ones_like(t.crowd) for t in targets], length)
    boxes = pad([t.boxes.float() for t in targets], length)
    return Objects(boxes, pad([t.labels for t in targets], length), real & ~crowd, crowd)


def crowded(points: Points, objects: Objects) -> Tensor:
    """Return which locations lie in a crowd, bool [B, A]: what is found there is neither right nor wrong."""
    x, y = points.centres.unbind(-1)  # [A]
    left, top, right, bottom = objects.boxes[..., None].unbind(2)  # [B, M, 1]
    inside = (x > left) & (x < right) & (y > top) & (y < bottom) & objects.crowd[..., None]  # [B, M, A]
    return inside.any(1)


def assign_by_centre(points: Points, objects: Objects, *, radius: float = 1.5) -> Assignment:
    """Give each location the smallest object whose centre is near and whose size fits the level.

    Tian et al., "FCOS", ICCV 2019, with the centre sampling of its later version: a location lies in the box,
    within ``radius`` cells of its centre along both axes, and the largest distance to an edge is 4 to 8 cells of the
    location's level; the finest level has no lower limit, the coarsest no upper one.

    Args:
        points: The locations.
        objects: The objects.
        radius: In cells of the location's level, > 0.
    """
    centres, strides = points
    sides = _sides(centres, objects.boxes)  # [B, A, M, 4]
    middle = (objects.boxes[..., :2] + objects.boxes[..., 2:]) / 2  # [B, M, 2]
    apart = (centres[None, :, None] - middle[:, None]).abs().amax(-1)  # [B, A, M]
    near = apart < radius * strides[None, :, None]
    lower = torch.where(strides == strides[0], 0.0, 4 * strides)
    upper = torch.where(strides == strides[-1], torch.inf, 8 * strides)
    reach = sides.amax(-1)
    fits = (reach > lower[None, :, None]) & (reach < upper[None, :, None])
    match = near & fits & (sides.amin(-1) > 0) & objects.learnt[:, None]
    size = torch.where(match, area(objects.boxes)[:, None], NO_AREA)
    smallest, index = size.min(-1)  # [B, A]
    positive = smallest < NO_AREA
    return _assignment(objects, index, positive, positive.float())


def assign_by_task(
    points: Points,
    objects: Objects,
    boxes: Tensor,
    scores: Tensor,
    *,
    candidates: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> Assignment:
    """Give each object the locations that already predict its class and box best.

    Feng et al., "TOOD: Task-aligned One-stage Object Detection", ICCV 2021, section 3.2: the alignment of a location
    with an object is ``score**alpha * iou**beta``; the best ``candidates`` of those inside the box learn it, a location
    wanted by several takes the one that it overlaps most. The quality that a class should reach is the
    alignment, scaled so that an object's best location gets its largest overlap. Boxes smaller than a cell of the
    finest level count as large as one, so that each object has a location.

    Args:
        points: The locations.
        objects: The objects.
        boxes: float32 [B, A, 4], the boxes predicted, without gradient.
        scores: float32 [B, A, K], the probabilities predicted, without gradient.
        candidates: Locations an object, at most.
        alpha: Exponent of the score.
        beta: Exponent of the overlap.
    """
    count = min(candidates, len(points.strides))
    overlap = pairwise_iou(objects.boxes, boxes)  # [B, M, A]
    index = objects.labels[:, None].expand(-1, boxes.shape[1], -1)  # [B, A, M]
    score = scores.gather(2, index).transpose(1, 2).contiguous()  # [B, M, A]
    alignment = score**alpha * overlap**beta
    middle = (objects.boxes[..., :2] + objects.boxes[..., 2:]) / 2  # [B, M, 2]
    half = ((objects.boxes[..., 2:] - objects.boxes[..., :2]) / 2).maximum(points.strides[0] / 2 + 1e-3)
    # one coordinate at a time: several times faster than [B, M, A, 2]
    across, along = (points.centres[:, k] - middle[..., k, None] for k in (0, 1))  # [B, M, A]
    wide, high = half[..., None].unbind(2)  # [B, M, 1]
    possible = (across.abs() < wide) & (along.abs() < high) & objects.learnt[..., None]
    # a hint of nearness decides where nothing overlaps yet, as at the start of a training
    apart = (across / wide).square() + (along / high).square()
    rank = torch.where(possible, alignment + 1e-9 / (1 + apart), -1.0)
    threshold = rank.topk(count, -1).values[..., -1:]
    chosen = possible & (rank >= threshold)
    claim = torch.where(chosen, overlap, -1.0)
    best, owner = claim.max(1)  # [B, A]
    positive = best >= 0
    mine = chosen & (owner[:, None] == torch.arange(chosen.shape[1], device=owner.device)[:, None])  # [B, M, A]
    alignment = torch.where(mine, alignment, 0.0)
    top = alignment.amax(-1, keepdim=True)
    largest = torch.where(mine, overlap, 0.0).amax(-1, keepdim=True)
    quality = (alignment / top.clamp(min=1e-12) * largest).amax(1)  # [B, A]
    return _assignment(objects, owner, positive, quality)


def _sides(centres: Tensor, boxes: Tensor) -> Tensor:
    """Return the distances from each location to the left, upper, right and lower edge of each box, [B, A, M, 4]."""
    x, y = centres[None, :, None].unbind(-1)  # [1, A, 1]
    left, top, right, bottom = boxes[:, None].unbind(-1)  # [B, 1, M]
    return torch.stack([x - left, y - top, right - x, bottom - y], -1)


def _assignment(objects: Objects, index: Tensor, positive: Tensor, quality: Tensor) -> Assignment:
    boxes = objects.boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return Assignment(positive, boxes, objects.labels.gather(1, index), quality)
