"""Maps of where in a picture the evidence for an answer lies: HiResCAM, on the maps that the backbone returns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from visionkit.models.evidence import Subject
from visionkit.models.model import VisionModel

__all__ = ["EvidenceMap", "Looked", "contributions", "look"]


class EvidenceMap(NamedTuple):
    """What each place of a picture adds to the logit of a subject."""

    values: Tensor
    """float32 [H, W], above 0 where it speaks for the subject and below where against; in logits a pixel."""
    cells: tuple[int, int]
    """Rows and columns of the finest map that has a part in it: nothing finer than that is known."""


@dataclass(frozen=True)
class Looked:
    """A picture as the model saw it, ready to be asked about subjects.

    Args:
        model: What looked.
        levels: The backbone's maps, float [1, C_l, h_l, w_l], fine to coarse, with gradients.
        outputs: What neck and head made of them.
        size: Height and width of the picture.
    """

    model: VisionModel
    levels: Sequence[Tensor]
    outputs: Any
    size: tuple[int, int]

    def subjects(
        self,
        *,
        most: int,
        min_score: float | None,
        least: Mapping[int, float] = MappingProxyType({}),
        without: Collection[int],
    ) -> list[Subject]:
        """Return what can be explained; see :meth:`visionkit.Head.subjects`."""
        head = self.model.head
        return head.subjects(self.outputs, most=most, min_score=min_score, least=least, without=without)

    def map_of(self, subject: Subject) -> EvidenceMap:
        """Return the evidence for a subject."""
        with torch.enable_grad():
            logit = self.model.head.evidence(self.outputs, subject).logits.sum()
        gradients = torch.autograd.grad(logit, self.levels, retain_graph=True, allow_unused=True)
        return contributions(self.levels, gradients, self.model.backbone.features.strides, self.size)


def look(model: VisionModel, image: Tensor) -> Looked:
    """Let a model look at a picture so that gradients reach the maps of its backbone, and no further.

    A head without a neck reads these. Those of a pyramid are no finer, and each of them knows of objects of one size
    alone; before it, boxes are explained better, too (``benchmarks/explain.py``).

    Args:
        model: In evaluation mode.
        image: uint8 [C, H, W], preprocessed, on the model's device.
    """
    with torch.no_grad():
        features = model.backbone(model.normalise(image[None]))
    levels = [level.detach().float().requires_grad_() for level in features]
    with torch.enable_grad():
        outputs = model.head(model.neck([level * 1 for level in levels]))  # they may be changed in place
    return Looked(model, levels, outputs, (image.shape[1], image.shape[2]))


def contributions(
    levels: Sequence[Tensor], gradients: Sequence[Tensor | None], strides: Sequence[int], size: tuple[int, int]
) -> EvidenceMap:
    """Return the products of maps and gradients, summed over channels and levels (HiResCAM: Draelos and Carin 2020).

    What a head that is linear behind its pooling adds up to is exactly the sum of this map and its bias; there, and for
    every head that pools first, it is Grad-CAM (Selvaraju et al., ICCV 2017). A cell's product is spread over its
    pixels, so that levels of different strides add up.

    Args:
        levels: float [1, C_l, h_l, w_l].
        gradients: Of one logit by each level, or None where a level has no part in it.
        strides: Side of a cell of each level in pixels.
        size: Height and width of the map.
    """
    total = levels[0].new_zeros(size)
    cells = (1, 1)
    for level, gradient, stride in reversed(list(zip(levels, gradients, strides, strict=True))):  # the finest at last
        if gradient is None or not bool(gradient.any()):
            continue
        product = (level.detach() * gradient).sum(1, keepdim=True) / stride**2  # [1, 1, h, w]
        rows, columns = product.shape[-2:]
        whole = (max(rows * stride, size[0]), max(columns * stride, size[1]))
        smooth = F.interpolate(product, size=whole, mode="bicubic", align_corners=False)
        total += smooth[0, 0, : size[0], : size[1]]
        cells = (rows, columns)
    return EvidenceMap(total, cells)
