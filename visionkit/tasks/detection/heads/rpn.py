"""Region proposals: which anchors are objects, which boxes to look at more closely. Pure functions, no weights."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torchvision.ops import nms

from visionkit.models.ops.boxes import area, clip, intersection, pairwise_iou
from visionkit.tasks.detection.heads.anchors import decode_offsets

__all__ = ["choose", "in_crowd", "match_anchors", "match_rois", "propose"]

MIN_SIDE = 1e-3  # pixels; thinner proposals are dropped
CROWD_SHARE = 0.5  # of a box inside a crowd from which on it is no background


def match_anchors(anchors: Tensor, truth: Tensor, positive: float, negative: float) -> tuple[Tensor, Tensor, Tensor]:
    """Decide which anchors of one image are objects (Ren et al. 2015, section 3.1.2).

    Objects are the anchors with an overlap of ``positive`` or more with a box, and for each box those that overlap it
    most. An anchor belongs to the box that it overlaps most itself, as in torchvision. A box that no anchor touches
    gets none.

    Args:
        anchors: float32 [A, 4], xyxy.
        truth: float32 [G, 4], xyxy; none is legal.
        positive: Intersection over union from which an anchor is an object.
        negative: Intersection over union below which it is background.

    Returns:
        Positions of the objects, int64 [P]; the positions of their boxes in ``truth``, int64 [P]; and which anchors
        are background, bool [A].
    """
    if len(truth) == 0:
        none = torch.zeros(0, dtype=torch.int64, device=anchors.device)
        return none, none, torch.ones(len(anchors), dtype=torch.bool, device=anchors.device)
    # one coordinate at a time and in place: several times faster than [G, A, 2]
    x1, y1, x2, y2 = anchors.t().contiguous()
    a1, b1, a2, b2 = truth.t()[..., None]  # [4, G, 1]
    overlap = torch.minimum(x2, a2).sub_(torch.maximum(x1, a1)).clamp_(min=0)
    overlap *= torch.minimum(y2, b2).sub_(torch.maximum(y1, b1)).clamp_(min=0)  # [G, A]
    union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1)
    overlap /= union.sub_(overlap)
    best = overlap.amax(0)
    most = overlap.amax(1)
    closest = torch.nonzero(overlap == torch.where(most > 0, most, torch.inf)[:, None])[:, 1]
    found, background = best >= positive, best < negative
    found[closest] = True
    background[closest] = False
    objects = torch.nonzero(found)[:, 0]
    return objects, overlap[:, objects].argmax(0), background


def match_rois(rois: Tensor, truth: Tensor, positive: float) -> tuple[Tensor, Tensor, Tensor]:
    """Decide which proposals of one image show objects; the rest is background.

    Args:
        rois: float32 [N, 4], xyxy.
        truth: float32 [G, 4], xyxy; none is legal.
        positive: Intersection over union from which a proposal shows an object.

    Returns:
        The same as :func:`match_anchors`.
    """
    if len(truth) == 0:
        return match_anchors(rois, truth, positive, positive)
    overlap, match = pairwise_iou(rois, truth).max(1)
    objects = torch.nonzero(overlap >= positive)[:, 0]
    return objects, match[objects], overlap < positive


def in_crowd(boxes: Tensor, crowd: Tensor) -> Tensor:
    """Say which boxes lie by half or more of their area in a crowd: bool [N] for [N, 4] and [M, 4]."""
    common = intersection(boxes[:, None], crowd)  # [N, M]
    return (common >= CROWD_SHARE * area(boxes)[:, None]).any(1)


def choose(
    boxes: Tensor,
    matched: tuple[Tensor, Tensor, Tensor],
    crowd: Tensor,
    count: int,
    fraction: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose at random which boxes of an image teach; background in a crowd does not.

    Args:
        boxes: float32 [N, 4], anchors or proposals.
        matched: What :func:`match_anchors` or :func:`match_rois` says of them.
        crowd: float32 [M, 4], boxes around crowds.
        count: How many to choose, objects and background together.
        fraction: Part of them that may be objects at most; background fills up.
        generator: Source of the random numbers, on the CPU; None takes torch's own.

    Returns:
        Positions of the chosen objects, of their boxes in the truth, and of the chosen background; all int64.
    """
    objects, match, free = matched
    if len(crowd):
        free = free & ~in_crowd(boxes, crowd)
    background = torch.nonzero(free)[:, 0]
    first = _shuffled(len(objects), boxes.device, generator)[: int(count * fraction)]
    second = _shuffled(len(background), boxes.device, generator)[: count - len(first)]
    return objects[first], match[first], background[second]


def _shuffled(count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        return torch.randperm(count, device=device)
    return torch.randperm(count, generator=generator).to(device)


def propose(
    objectness: Tensor,
    offsets: Tensor,
    anchors: Sequence[Tensor],
    size: tuple[int, int],
    *,
    before: int,
    after: int,
    threshold: float,
) -> list[Tensor]:
    """Choose the boxes of each image that are worth a closer look.

    Args:
        objectness: float32 [B, A], logits of all levels.
        offsets: float32 [B, A, 4], from the anchors.
        anchors: float32 [A_l, 4] of each level, xyxy in pixels.
        size: Height and width of the network's input, at which boxes are cut off.
        before: Anchors of each level, the most certain ones, that compete in the suppression.
        after: Boxes of each image that are kept.
        threshold: Intersection over union from which boxes of a level suppress each other.

    Returns:
        A float32 tensor [N_i, 4] an image, the most certain box first.
    """
    levels: list[tuple[Tensor, Tensor]] = []
    start = 0
    for level in anchors:
        logits = objectness[:, start : start + len(level)]
        top, position = logits.topk(min(before, len(level)), dim=1)  # [B, N]
        chosen = offsets[:, start : start + len(level)].gather(1, position[..., None].expand(-1, -1, 4))
        levels.append((clip(decode_offsets(chosen, level[position]), size), top.sigmoid()))
        start += len(level)

    def finish(k: int) -> Tensor:
        kept = [_suppressed(boxes[k], scores[k], after, threshold) for boxes, scores in levels]
        scores = torch.cat([s for _, s in kept])
        order = scores.argsort(descending=True, stable=True)[:after]
        return torch.cat([b for b, _ in kept])[order]

    if objectness.device.type != "cpu":
        return [finish(k) for k in range(len(objectness))]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # suppression itself knows no threads
        return list(pool.map(finish, range(len(objectness))))


def _suppressed(boxes: Tensor, scores: Tensor, limit: int, threshold: float) -> tuple[Tensor, Tensor]:
    thick = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(1)
    boxes, scores = boxes[thick], scores[thick]
    kept = nms(boxes, scores, threshold)[:limit]
    return boxes[kept], scores[kept]
