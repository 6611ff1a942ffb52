"""How well the boundaries between classes are met."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from visionkit.data.labels.masks import IGNORE

__all__ = ["boundary_band", "boundary_counts"]

WORDS = {8: torch.uint8, 16: torch.int16, 32: torch.int32, 64: torch.int64}  # a bit a class


def boundary_counts(prediction: Tensor, truth: Tensor, classes: int, tolerance_pixels: float) -> Tensor:
    """Count the boundary pixels of each class, and those that have a partner in the other mask.

    Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC 2013, section 3. They average
    the score over images; these counts are meant to be summed over a data set first.

    A boundary pixel of a class is a pixel of it with another class above, below, left or right of it in the picture.
    Pixels ignored in the truth are ignored in the prediction, too; what borders on them, or on the edge of the picture,
    is no boundary. A boundary pixel is matched when one of the same class in the other mask is not farther away than
    the tolerance, as the crow flies from centre to centre; the distance is exact.

    Args:
        prediction: uint8 [H, W], class ids 0..K-1.
        truth: uint8 [H, W] on the same device, class ids 0..K-1 and 255 for pixels that are ignored.
        classes: Number of classes, K.
        tolerance_pixels: Greatest distance in pixels, from 0 on.

    Returns:
        int64 [K, 4]: matched predicted, all predicted, matched true and all true boundary pixels.
    """
    ignored = truth == IGNORE
    masks = (prediction.masked_fill(ignored, IGNORE), truth)
    edges = [_edges(mask) for mask in masks]  # bool [H, W] each
    totals = [_histogram(mask, edge, classes) for mask, edge in zip(masks, edges, strict=True)]
    matched = [torch.zeros_like(total) for total in totals]
    both = ((totals[0] > 0) & (totals[1] > 0)).nonzero().flatten().tolist()  # other classes match nothing
    for start in range(0, len(both), 64):
        bits = [_bits(mask, both[start : start + 64]) for mask in masks]
        for one, other in ((0, 1), (1, 0)):
            near = _dilate(bits[other] * edges[other], tolerance_pixels)
            hits = edges[one] & ((near & bits[one]) != 0)
            matched[one] += _histogram(masks[one], hits, classes)
    return torch.stack([matched[0], totals[0], matched[1], totals[1]], 1)


def boundary_band(truth: Tensor, tolerance_pixels: float) -> Tensor:
    """Return the pixels that lie near a boundary between two classes: bool [H, W].

    Args:
        truth: uint8 [H, W], class ids and 255 for pixels that are ignored, which have no boundary.
        tolerance_pixels: Greatest distance from a boundary pixel, from 0 on.
    """
    return _dilate(_edges(truth).to(torch.uint8), tolerance_pixels) > 0


def _edges(mask: Tensor) -> Tensor:
    """Return where a pixel has a neighbour of another class, neither of them ignored: bool [H, W]."""
    found = torch.zeros_like(mask, dtype=torch.bool)
    seen = mask != IGNORE
    for axis in (0, 1):
        length = mask.shape[axis] - 1
        differ = mask.narrow(axis, 0, length) != mask.narrow(axis, 1, length)
        differ &= seen.narrow(axis, 0, length) & seen.narrow(axis, 1, length)
        for first in (0, 1):
            part = found.narrow(axis, first, length)
            part |= differ
    return found


def _histogram(mask: Tensor, chosen: Tensor, classes: int) -> Tensor:
    """Return the number of chosen pixels of each class, int64 [K]."""
    return torch.bincount(mask[chosen], minlength=classes)


def _bits(mask: Tensor, ids: list[int]) -> Tensor:
    """Return the mask with one bit for each of up to 64 classes, and none for others: whole numbers [H, W]."""
    width = next(w for w in WORDS if len(ids) <= w)
    table = torch.zeros(256, dtype=torch.int64)
    table[ids] = torch.ones(len(ids), dtype=torch.int64) << torch.arange(len(ids))
    return table.to(mask.device, WORDS[width]).index_select(0, mask.flatten().int()).view(mask.shape)


def _dilate(bits: Tensor, radius: float) -> Tensor:
    """Return for each pixel which bits are set within a circle around it, by the union of its rows."""
    square = math.floor(radius**2 + 1e-9)  # squares of distances are whole numbers
    reach = math.isqrt(square)
    height, width = bits.shape
    row, half = bits.clone(), 0  # which bits are set up to ``half`` to the left and right
    near = torch.zeros_like(bits)
    for down in range(reach, -1, -1):
        while half < math.isqrt(square - down**2):
            half += 1
            if half < width:
                row[:, half:] |= bits[:, :-half]
                row[:, :-half] |= bits[:, half:]
        if down == 0:
            near |= row
        elif down < height:
            near[down:] |= row[:-down]
            near[:-down] |= row[down:]
    return near
