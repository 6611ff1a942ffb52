"""What of a head's answers can be explained: subjects, and the numbers that speak for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Evidence", "Subject"]


@dataclass(frozen=True)
class Subject:
    """One thing that a head says of an image: a class, an object, or pixels of one class that lie together.

    Args:
        label: Class id, 0..K-1.
        score: How certain the head is of it, 0..1.
        place: Where the head finds it among its outputs, for images of the same size too; its own affair.
        box: x1, y1, x2 and y2 in pixels of the image that the model saw, or None for all of it.
        mask: Bool [h, w], the pixels that it speaks of, at least those of the image, or None where the box says it.
    """

    label: int
    score: float
    place: Any = None
    box: tuple[float, float, float, float] | None = None
    mask: Tensor | None = None


class Evidence(NamedTuple):
    """What the outputs of B images say for one subject."""

    logits: Tensor
    """Float [B]: what the head's answer rests on, before it becomes a probability; gradients are those of this."""
    scores: Tensor
    """Float [B], 0..1: the score that the subject has in each of the images."""
