"""Losses of semantic segmentation as pure functions, computed in float32 at least, whatever the autocast.

Pixels of value 255 say nothing: they change neither a loss nor a gradient, and where there are no others a loss is 0.
Logits may come as one tensor or image by image: a list of float [K, H, W], whose tensors stay small enough for a CPU to
use the same memory again for the next image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.data.labels.masks import IGNORE

__all__ = [
    "cross_entropy_and_dice",
    "dice_loss",
    "focal_loss",
    "lovasz_softmax",
    "ohem_cross_entropy",
    "pixel_cross_entropy",
]

TINY = 1e-12  # keeps the slope of a power finite


def pixel_cross_entropy(
    logits: Tensor | Sequence[Tensor], mask: Tensor, *, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy of the pixels, as ``torch.nn.functional.cross_entropy`` computes it.

    With weights the mean is weighted: the sum is divided by the weights of the true classes.

    Args:
        logits: Float [B, K, H, W], or a list of [K, H, W].
        mask: uint8 [B, H, W], class ids and 255.
        weights: Float [K], weight of each class, or None for equal weights.
        label_smoothing: Part of the truth that is spread evenly over all classes, 0..1 (Szegedy et al., CVPR 2016).
    """
    parts = [_losses(x, m, weights, label_smoothing).sum() for x, m in zip(logits, mask, strict=True)]
    counts = _counts(mask, len(logits[0]))  # [K]
    return _mean(torch.stack(parts).sum(), (counts if weights is None else counts * weights).sum())


def dice_loss(logits: Tensor | Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return the mean over classes of one minus the soft Dice coefficient, 0..1.

    Milletari et al., "V-Net", 3DV 2016, section 3: the coefficient of probabilities p and truth g (0 or 1) is
    2 sum(p g) / (sum(p^2) + sum(g^2)), here of each class over all pixels of the batch. Classes that the truth does not
    have are left out: their coefficient is 0 whatever the network says.

    Args:
        logits: Float [B, K, H, W], or a list of [K, H, W].
        mask: uint8 [B, H, W], class ids and 255.
    """
    shared, squares = [], []
    for x, m in zip(logits, mask, strict=True):
        said = m != IGNORE
        truth = m.long().masked_fill(~said, 0)[None]  # [1, H, W]
        p = _exact(x).softmax(0) * said  # [K, H, W]
        squares.append(p.square().sum((1, 2)))
        hits = p.gather(0, truth)  # probability of the true class, 0 where nothing is said
        shared.append(p.new_zeros(len(p)).scatter_add(0, truth.flatten(), hits.flatten()))
    return _dice(torch.stack(shared).sum(0), torch.stack(squares).sum(0), _counts(mask, len(logits[0])))


def cross_entropy_and_dice(
    logits: Tensor | Sequence[Tensor], mask: Tensor, *, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return :func:`pixel_cross_entropy` and :func:`dice_loss` from one softmax, forwards and backwards.

    Args:
        logits: Float [B, K, H, W], or a list of [K, H, W].
        mask: uint8 [B, H, W], class ids and 255.
        weights: Float [K], weight of each class in the cross-entropy, or None for equal weights.
    """
    counts = _counts(mask, len(logits[0]))  # [K]
    sums, hits, squares = [], [], []
    for x, m in zip(logits, mask, strict=True):
        of_pixels = (m != IGNORE).to(x.dtype) if weights is None else _of_pixels(weights, m)
        said, shared, square = _OneSoftmax.apply(_exact(x), m, of_pixels)
        sums.append(said)
        hits.append(shared)
        squares.append(square)
    entropy = _mean(torch.stack(sums).sum(), (counts if weights is None else counts * weights).sum())
    return entropy, _dice(torch.stack(hits).sum(0), torch.stack(squares).sum(0), counts)


class _OneSoftmax(torch.autograd.Function):
    """Of an image: the weighted sum of the pixels' cross-entropies, and the two sums of each class that Dice needs.

    With p the softmax of logits x over classes, y the true class and w the weight of a pixel, for gradients a of the
    first sum, h of the sums of p where it is the true class and q of those of p^2:
    dp_k = h_k [k = y] + 2 q_k p_k and dx_k = p_k (dp_k - sum_j p_j dp_j) + a w (p_k - [k = y]).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums: 0-dimensional, [K] and [K].

        Args:
            ctx: Where what the gradient needs is kept.
            x: Float [K, H, W].
            mask: uint8 [H, W].
            weights: Float [H, W], 0 where the mask says nothing.
        """
        said = mask != IGNORE
        truth = mask.long().masked_fill(~said, 0)[None]  # [1, H, W]
        total = x.logsumexp(0, keepdim=True)
        p = (x - total).exp_()
        entropies = (total - x.gather(0, truth))[0]
        p *= said
        own = p.gather(0, truth)
        hits = p.new_zeros(len(p)).scatter_add(0, truth.flatten(), own.flatten())
        ctx.save_for_backward(p, truth, own, weights)
        return (entropies * weights).sum(), hits, torch.linalg.vector_norm(p.flatten(1), dim=1).square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the logits."""
        p, truth, own, weights = ctx.saved_tensors
        a, h, q = gradients
        found = p * (2 * q)[:, None, None]
        of_own = h[truth] * own  # [1, H, W]
        weighted = a * weights[None]
        found -= (found * p).sum(0, keepdim=True) + of_own - weighted
        found *= p
        return found.scatter_add_(0, truth, of_own - weighted), None, None


def focal_loss(
    logits: Tensor | Sequence[Tensor], mask: Tensor, *, gamma: float = 2.0, weights: Tensor | None = None
) -> Tensor:
    """Return the mean of (1 - p)^gamma times the cross-entropy, so that easy pixels count less.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4, with the softmax's probability p of the
    true class. With weights (their alpha, equation 5) the mean is weighted as in :func:`pixel_cross_entropy`, which it
    equals for gamma = 0.

    Args:
        logits: Float [B, K, H, W], or a list of [K, H, W].
        mask: uint8 [B, H, W], class ids and 255.
        gamma: How strongly easy pixels are turned down, >= 0.
        weights: Float [K], weight of each class, or None for equal weights.
    """
    parts = []
    for x, m in zip(logits, mask, strict=True):
        plain = _losses(x, m, None, 0.0)  # [H, W], 0 where nothing is said
        terms = plain * (-(-plain).expm1()).clamp_min(TINY) ** gamma  # -expm1(-loss) is 1 - p
        parts.append((terms if weights is None else terms * _of_pixels(weights, m)).sum())
    counts = _counts(mask, len(logits[0]))  # [K]
    return _mean(torch.stack(parts).sum(), (counts if weights is None else counts * weights).sum())


def lovasz_softmax(logits: Tensor | Sequence[Tensor], mask: Tensor) -> Tensor:
    """Return the Lovász extension of one minus the intersection over union, averaged over the classes of the truth.

    Berman et al., "The Lovász-Softmax loss", CVPR 2018, equations 8 to 12 and algorithm 1: the errors of a class are
    sorted, and each counts by what one more pixel of error adds to the Jaccard loss. That step has a closed form (with
    I and U the intersection and union before it): 1 / U for a pixel of the class, I / (U (U + 1)) for any other, which
    keeps digits that the difference of two nearly equal values would lose. Sorting every pixel once a class takes
    several times as long as the other losses.

    Args:
        logits: Float [B, K, H, W], or a list of [K, H, W].
        mask: uint8 [B, H, W], class ids and 255.
    """
    p = [_exact(x).softmax(0).flatten(1).unbind() for x in logits]  # of each image and class, [H * W]
    truth = mask.flatten()  # [N], of all images
    silent = truth == IGNORE
    losses = []
    for k in _counts(mask, len(p[0])).nonzero()[:, 0].tolist():  # one class at a time: a K-th of the memory
        own = truth == k
        chance = torch.cat([classes[k] for classes in p])
        errors = torch.where(own, 1 - chance, chance)  # [N]
        losses.append((errors * _jaccard_steps(errors.detach(), own, silent)).sum())
    return torch.stack(losses).mean() if losses else torch.cat(p[0]).sum() * 0


def ohem_cross_entropy(
    logits: Tensor | Sequence[Tensor],
    mask: Tensor,
    *,
    fraction: float,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean cross-entropy of the pixels where it is highest (online hard example mining).

    Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining", CVPR 2016, section 4,
    with pixels for regions. With weights, the weighted losses are compared and the mean is weighted as in
    :func:`pixel_cross_entropy`, which it equals for fraction = 1.

    Args:
        logits: Float [B, K, H, W], or a list of [K, H, W].
        mask: uint8 [B, H, W], class ids and 255.
        fraction: Part of the batch's pixels that say something that is taken, above 0 and up to 1; rounded up, so at
            least one pixel.
        weights: Float [K], weight of each class, or None for equal weights.
        label_smoothing: As in :func:`pixel_cross_entropy`, 0..1.
    """
    said = mask != IGNORE
    parts = [_losses(x, m, weights, label_smoothing) for x, m in zip(logits, mask, strict=True)]
    losses = torch.cat([x[s] for x, s in zip(parts, said, strict=True)])  # [N]
    count = math.ceil(fraction * len(losses) - 1e-6)  # 0.1 * 30 may be a little more than 3
    hardest, where = losses.topk(min(max(count, 1), len(losses)), sorted=False)
    if weights is None:
        return _mean(hardest.sum(), torch.tensor(len(hardest), device=losses.device))
    return _mean(hardest.sum(), _of_pixels(weights, mask[said][where]).sum())


def _losses(logits: Tensor, mask: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Return the cross-entropy of each pixel of an image, [H, W]; 0 where nothing is said.

    Torch's own sum of them is not deterministic on a GPU, and takes as long.
    """
    x = _exact(logits)
    return F.cross_entropy(
        x[None],
        mask[None].long(),
        None if weights is None else weights.to(x.dtype),
        ignore_index=IGNORE,
        reduction="none",
        label_smoothing=smoothing,
    ).squeeze(0)


def _dice(shared: Tensor, squares: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of one minus the coefficients of the classes of the truth.

    Args:
        shared: Float [K], sums of the probabilities where a class is the true one.
        squares: Float [K], sums of squared probabilities.
        counts: [K], pixels of each class.
    """
    share = 2 * shared / (squares + counts).clamp_min(TINY)
    present = counts > 0
    return _mean(((1 - share) * present).sum(), present.sum())


def _jaccard_steps(errors: Tensor, own: Tensor, silent: Tensor) -> Tensor:
    """Return what each pixel adds to the Jaccard loss when errors are made from the largest to the smallest, [N].

    Args:
        errors: Float [N], 0..1.
        own: Bool [N], the pixels of the class; at least one.
        silent: Bool [N], the pixels that say nothing; they come last and add nothing.
    """
    keys = errors.float().view(torch.int32)  # of positive floats the bits have the same order, and sort faster
    order = keys.masked_fill(silent, -1).sort(descending=True).indices
    mine = own[order]
    done = mine.cumsum(0, dtype=torch.int32)  # pixels of the class among those so far
    others = torch.arange(1, len(order) + 1, dtype=torch.int32, device=errors.device) - done
    size = done[-1]
    before = (size + others - 1).clamp_min(1)  # the union before a pixel that is not of the class
    steps = torch.where(mine, 1.0, (size - done).to(errors.dtype) / before) / (size + others)
    return torch.empty_like(errors).scatter_(0, order, steps).masked_fill_(silent, 0)


def _mean(total: Tensor, weight: Tensor) -> Tensor:
    """Return total / weight, and 0 with zero gradients where there is no weight."""
    weight = weight.to(total.dtype)
    return total * torch.where(weight > 0, 1 / weight, 0.0)


def _counts(mask: Tensor, classes: int) -> Tensor:
    """Return the pixels of each class, int64 [K]."""
    return torch.bincount(mask.flatten(), minlength=IGNORE + 1)[:classes]


def _of_pixels(weights: Tensor, mask: Tensor) -> Tensor:
    """Return the weight of each pixel's class, 0 where it says nothing; the shape of the mask."""
    return F.pad(weights, (0, IGNORE + 1 - len(weights)))[mask.long()]


def _exact(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
