"""MixUp and CutMix: blend the images of a training batch and their truth."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.core.sample import Batch, Target
from visionkit.data.transforms.base import RandomTransform

__all__ = ["HasScores", "MixUpCutMix"]


class HasScores(Target, Protocol):
    """A target, a dataclass, whose truth is one number a class and so can be blended."""

    @property
    def scores(self) -> Tensor:
        """Float [K]."""
        ...


S = TypeVar("S", bound=HasScores)


class MixUpCutMix(RandomTransform):
    """Blend each image of a batch, and its truth, with another one: whole (MixUp) or in a rectangle (CutMix).

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix", ICCV 2019. One share is
    drawn a batch, as in the papers' code, from torch's global generator on the CPU, so that a seed gives the same
    blend on every device.

    Args:
        mixup: Alpha of MixUp's Beta(alpha, alpha) distribution, from 0 on; small values blend little; 0 turns it off.
        cutmix: Alpha of CutMix's Beta(alpha, alpha) distribution, from 0 on; 0 turns it off.
        p: Share of the batches that are blended, 0..1; MixUp and CutMix take turns at random.

    Raises:
        UsageError: A value is out of range, or both kinds are off.
    """

    off = "model.mix null"

    def __init__(self, mixup: float = 0.2, cutmix: float = 1.0, p: float = 1.0) -> None:
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= alpha < math.inf:
                raise UsageError(f"{name}={alpha}: a number from 0 (off) on")
        if mixup == cutmix == 0:
            raise UsageError("mixup and cutmix are both 0: leave the batch transform out, or turn one of them on")
        if not 0 <= p <= 1:
            raise UsageError(f"p={p}: a share of the batches, 0..1")
        self.mixup = mixup
        self.cutmix = cutmix
        self.p = p

    @property
    def acts(self) -> bool:
        """Whether any batch is blended."""
        return self.p > 0

    def __call__(self, batch: Batch[S]) -> Batch[S]:
        """Return a new batch of blended images, uint8 [B, C, H, W] in the memory order of the given ones.

        Raises:
            UsageError: The targets cannot be blended.
        """
        for target in batch.targets:
            if not (dataclasses.is_dataclass(target) and isinstance(getattr(target, "scores", None), Tensor)):
                raise UsageError(
                    f"MixUpCutMix blends targets with scores, one number a class; a {type(target).__name__} has none: "
                    "use it for classification only"
                )
        if len(batch) == 0 or torch.rand(()).item() >= self.p:
            return batch
        partner = torch.randperm(len(batch))
        use_cutmix = self.mixup == 0 or (self.cutmix > 0 and torch.rand(()).item() < 0.5)
        alpha = self.cutmix if use_cutmix else self.mixup
        share = float(torch.distributions.Beta(alpha, alpha).sample())  # of the image itself; the partner has the rest
        partner = partner.to(batch.images.device)
        if use_cutmix:
            box = random_box(batch.images.shape[2], batch.images.shape[3], share)
            images, share = cutmix(batch.images, partner, box)
        else:
            images = mixup(batch.images, partner, share)
        scores = torch.stack([t.scores for t in batch.targets])  # [B, K]
        blended = share * scores + (1 - share) * scores[partner.to(scores.device)]
        targets = [dataclasses.replace(t, scores=s) for t, s in zip(batch.targets, blended, strict=True)]  # type: ignore[type-var]  # checked above
        return Batch(images, targets, batch.infos)


def mixup(images: Tensor, partner: Tensor, share: float) -> Tensor:
    """Blend each image with its partner, rounded to the nearest grey level.

    Args:
        images: uint8 [B, C, H, W].
        partner: int64 [B], index of the other image.
        share: Share of the image itself, 0..1.
    """
    mixed = torch.empty_like(images)  # in the same memory order
    step = 1 if images.device.type == "cpu" else len(images)  # one by one, the floats stay in a CPU's cache
    for out, own, other in zip(mixed.split(step), images.split(step), partner.split(step), strict=True):
        blend = own.float().mul_(share).add_(images[other].float(), alpha=1 - share)  # [step, C, H, W]
        out.copy_(blend.round_())
    return mixed


def cutmix(images: Tensor, partner: Tensor, box: tuple[int, int, int, int]) -> tuple[Tensor, float]:
    """Paste a rectangle of the partner into each image; return the images and the share that is left of their own.

    Args:
        images: uint8 [B, C, H, W].
        partner: int64 [B], index of the other image.
        box: Top, left, bottom and right edge in pixels, bottom and right exclusive.
    """
    top, left, bottom, right = box
    pasted = images.clone()  # keeps the memory order
    pasted[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right][partner]
    height, width = images.shape[2:]
    return pasted, 1 - (bottom - top) * (right - left) / (height * width)


def random_box(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """Draw a box that covers 1 - ``share`` of the picture, cut off at its borders (CutMix, equation 2)."""
    side = math.sqrt(1 - share)
    y, x = torch.rand(2).mul(torch.tensor([height, width])).tolist()  # the centre
    edges = [
        min(max(round(centre + sign * side * length / 2), 0), length)
        for sign in (-1, 1)
        for centre, length in ((y, height), (x, width))
    ]
    return edges[0], edges[1], edges[2], edges[3]
