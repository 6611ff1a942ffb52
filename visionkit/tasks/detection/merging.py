"""Boxes of several views or models of one picture put together: an object is one box, cut by a window's edge or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visionkit.core.prediction import Region
from visionkit.models.ops.boxes import area, intersection, pairwise_iou

__all__ = ["Cluster", "merge_boxes"]

SAME_OBJECT = 0.55  # intersection over union from which boxes of two views show the same object
NEAR_EDGE = 0.1  # of a box's side: a box that ends so near to its window's edge may go on there
CUT_PIXELS = 2.0  # and at least these
BEYOND = 1.0  # pixels that a cut object goes on behind the edge, so that windows without overlap have some in common
NEARLY_AS_WELL = 0.9  # a view that sees this share of what the best one sees of an object has a say in its score


@dataclass(frozen=True)
class Cluster:
    """The boxes that show one object, at most one a view.

    Args:
        members: View and position in it of each box that makes the object: of those that are not cut where there are
            any, else of all.
        box: x1, y1, x2, y2 in pixels.
        score: 0..1.
        label: Class id.
    """

    members: list[tuple[int, int]]
    box: list[float]
    score: float
    label: int


def merge_boxes(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    labels: Sequence[Tensor],
    regions: Sequence[Region],
    shares: Tensor | None = None,
) -> list[Cluster]:
    """Return the objects that the boxes of several views show, the most certain first.

    Boxes of one class show the same object where their intersection over union is at least ``SAME_OBJECT``. A box that
    ends at an edge of its window inside the picture may go on behind it: what another box has there does not count
    against the two. So the parts of an object, which agree where both windows see it, and a part and the whole object,
    meet; an object larger than a window goes from part to part. Without an overlap of the windows all that can agree is
    the length along the seam: two objects that touch there and are equally long become one.

    Of a view at most one box, the best, belongs to an object: weak neighbours of an object, of which networks without
    anchors return many, would pull a mean down (Solovyev et al., "Weighted boxes fusion", 2021, takes them all).

    The object's box is the mean of its boxes weighted by their scores, of those alone that no edge cuts where there are
    any; else the smallest that holds them all. Its score is the sum of the scores over the number of views that see it:
    those that see nearly as much of it as the best of them does. What a window shows a small part of, or nothing, does
    not count against it.

    Of several models in place of views both means are weighted by what each counts for the class: a model that does not
    know it has no say, and its silence does not count against the object.

    Args:
        boxes: Of each view, float [N, 4] xyxy in pixels of the picture.
        scores: Of each view, float [N], 0..1.
        labels: Of each view, int64 [N].
        regions: The pixels of the picture that each view shows.
        shares: What each view counts for each class, float [V, K] from 0 on; None is the same for all.
    """
    size = (max(r[2] for r in regions), max(r[3] for r in regions))
    inside, values, kinds, place = [], [], [], []
    for view, region in enumerate(regions):
        within = _within(boxes[view].detach().double().cpu(), region)
        shown = ((within[:, 2:] - within[:, :2]) > 0).all(1)  # the others lie outside, or nowhere
        if shares is not None:
            shown &= shares[view][labels[view].cpu()] > 0
        inside.append(within[shown])
        values.append(scores[view].detach().double().cpu()[shown])
        kinds.append(labels[view].cpu()[shown])
        place += [(view, k) for k in shown.nonzero()[:, 0].tolist()]
    cuts = [_cut(b, r, size) for b, r in zip(inside, regions, strict=True)]
    reach = [_stretched(b, c, r) for b, c, r in zip(inside, cuts, regions, strict=True)]
    flat = _Boxes(torch.cat(inside), torch.cat(cuts), torch.cat(values), torch.cat(kinds), place)
    groups = _groups(flat, _pairs(inside, reach, cuts, kinds))
    shown = torch.tensor(regions, dtype=torch.float64)[:, [1, 0, 3, 2]]  # [V, 4] xyxy
    found = [_cluster(flat, group, shown, shares) for group in groups]
    return sorted(found, key=lambda c: (-c.score, c.label, c.box))


@dataclass(frozen=True)
class _Boxes:
    """All boxes of all views.

    Args:
        boxes: float64 [N, 4], within their view's region.
        cuts: bool [N, 4], at which sides the region's edge may cut the object.
        scores: float64 [N].
        labels: int64 [N].
        place: View and position in it.
    """

    boxes: Tensor
    cuts: Tensor
    scores: Tensor
    labels: Tensor
    place: list[tuple[int, int]]


def _within(boxes: Tensor, region: Region) -> Tensor:
    top, left, bottom, right = region
    low, high = boxes.new_tensor([left, top, left, top]), boxes.new_tensor([right, bottom, right, bottom])
    return torch.minimum(torch.maximum(boxes, low), high)


def _cut(boxes: Tensor, region: Region, size: tuple[int, int]) -> Tensor:
    """Return at which sides, x1, y1, x2, y2, a box ends at an edge of its region that is none of the picture."""
    top, left, bottom, right = region
    edges = boxes.new_tensor([left, top, right, bottom])
    inner = torch.tensor([left > 0, top > 0, right < size[1], bottom < size[0]])
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return inner & ((boxes - edges).abs() <= (NEAR_EDGE * sides).clamp(min=CUT_PIXELS))


def _stretched(boxes: Tensor, cuts: Tensor, region: Region) -> Tensor:
    """Return boxes that reach over the edges of their region where it cuts them."""
    top, left, bottom, right = region
    beyond = boxes.new_tensor([left - BEYOND, top - BEYOND, right + BEYOND, bottom + BEYOND])
    return torch.where(cuts, beyond, boxes)


def _pairs(
    boxes: Sequence[Tensor], reach: Sequence[Tensor], cuts: Sequence[Tensor], labels: Sequence[Tensor]
) -> list[dict[int, float]]:
    """Return for each box those of other views that show the same object, with the overlap.

    A box near an edge may end there or go on behind it: the more likely of the two counts.
    """
    starts = torch.tensor([0, *(len(b) for b in boxes)]).cumsum(0).tolist()
    pairs: list[dict[int, float]] = [{} for _ in range(starts[-1])]
    hulls = torch.stack([torch.cat([b[:, :2].amin(0), b[:, 2:].amax(0)]) if len(b) else b.new_zeros(4) for b in reach])
    near = (pairwise_iou(hulls, hulls) > 0).triu(1)
    for i, j in near.nonzero().tolist():
        behind = _overlaps(reach[i], cuts[i], reach[j], cuts[j]).masked_fill(_diagonal(cuts[i], cuts[j]), 0.0)
        overlaps = torch.maximum(_overlaps(boxes[i], cuts[i], boxes[j], cuts[j]), behind)
        same = (overlaps >= SAME_OBJECT) & (labels[i][:, None] == labels[j])
        for a, b in same.nonzero().tolist():
            overlap = float(overlaps[a, b])
            pairs[starts[i] + a][starts[j] + b] = pairs[starts[j] + b][starts[i] + a] = overlap
    return pairs


def _overlaps(a: Tensor, cut_a: Tensor, b: Tensor, cut_b: Tensor) -> Tensor:
    """Return the intersection over union of each pair, [N, M], without what lies behind a side that cuts the other."""
    mine, yours = a[:, None].expand(-1, len(b), 4), b.expand(len(a), -1, 4)  # [N, M, 4]
    seen = _trimmed(mine, yours, cut_b), _trimmed(yours, mine, cut_a[:, None])
    common = intersection(*seen)
    return common / (area(seen[0]) + area(seen[1]) - common).clamp(min=1e-9)


def _diagonal(cut_a: Tensor, cut_b: Tensor) -> Tensor:
    """Return which pairs, [N, M], lie across a corner of their windows: nothing they have in common is measured."""
    a, b = cut_a[:, None], cut_b
    facing = (a[..., :2] & b[..., 2:]) | (a[..., 2:] & b[..., :2])  # [N, M, x and y]
    return facing.all(-1)


def _trimmed(boxes: Tensor, others: Tensor, cuts: Tensor) -> Tensor:
    """Return boxes [N, M, 4] that end where an edge cuts the others."""
    inner = torch.cat([torch.maximum(boxes, others)[..., :2], torch.minimum(boxes, others)[..., 2:]], -1)
    return torch.where(cuts, inner, boxes)


def _groups(flat: _Boxes, pairs: Sequence[dict[int, float]]) -> list[list[int]]:
    """Put the boxes into groups, one an object, at most one box a view in each.

    From the best box on, each joins the group with the box that it overlaps most. One that is cut may be the middle of
    an object whose ends were not known to belong together. One that is cut and belongs to an object of which its view
    has a better box already, much like it, is nothing of its own: soft suppression leaves such.
    """
    rows = torch.cat([-flat.scores[:, None], flat.labels[:, None], flat.boxes], 1).tolist()
    groups: list[list[int]] = []
    home: dict[int, int] = {}  # of a box, its group
    for box in sorted(range(len(rows)), key=rows.__getitem__):
        near: dict[int, float] = {}
        for other, overlap in pairs[box].items():
            if other in home:
                near[home[other]] = max(overlap, near.get(home[other], 0.0))
        own, cut = [box], bool(flat.cuts[box].any())
        better = [k for n in near for k in groups[n] if flat.place[k][0] == flat.place[box][0]] if cut else []
        for number in sorted(near, key=lambda n: (-near[n], n)):
            views = {flat.place[k][0] for k in own}
            if (len(own) == 1 or cut) and views.isdisjoint(flat.place[k][0] for k in groups[number]):
                own += groups[number]
                groups[number] = []
        if len(own) == 1 and better:
            same = pairwise_iou(flat.boxes[[box]], flat.boxes[better]) >= SAME_OBJECT
            if same.any():
                continue
        home.update(dict.fromkeys(own, len(groups)))
        groups.append(own)
    return [group for group in groups if group]


def _cluster(flat: _Boxes, group: Sequence[int], regions: Tensor, shares: Tensor | None) -> Cluster:
    """Return the object that a group of boxes shows."""
    whole = [k for k in group if not flat.cuts[k].any()]
    used = whole or list(group)
    label = int(flat.labels[group[0]])
    counts = torch.ones(len(regions), dtype=torch.float64) if shares is None else shares[:, label].double()  # [V]
    boxes, scores = flat.boxes[used], flat.scores[used] * counts[[flat.place[k][0] for k in used]]
    if whole:
        share = (scores if scores.sum() > 0 else torch.ones_like(scores))[:, None]
        box = (boxes * share).sum(0) / share.sum()
    else:
        box = torch.cat([boxes[:, :2].amin(0), boxes[:, 2:].amax(0)])
    seen = intersection(box, regions) / area(box).clamp(min=1e-9)  # share of the object that each view shows, [V]
    views = [flat.place[k][0] for k in group]
    judges = seen >= NEARLY_AS_WELL * seen[views].max()
    counts = torch.where(judges, counts, 0.0)
    total = sum(float(flat.scores[k] * counts[flat.place[k][0]]) for k in group)
    return Cluster([flat.place[k] for k in used], box.tolist(), total / float(counts.sum()), label)
