"""Progressive resizing: a training begins with small pictures, whose steps are short, and ends with whole ones."""

from __future__ import annotations

from typing import TypeVar

from visionkit.core.sample import Batch, Target, is_spatial
from visionkit.data.transforms.scale import resize_batch

__all__ = ["cost", "shrink", "side_factor"]

T = TypeVar("T", bound=Target)

GROWING = 0.6  # of the training, over which pictures grow
MULTIPLE = 32  # pixels: the stride of the usual networks
SAME = 0.25  # of the time of a step
LEAST = 64  # pixels: pictures are not made smaller


def side_factor(progress: float, start: float) -> float:
    """Return the side of pictures relative to the whole one.

    Args:
        progress: Share of the training that is over, 0..1.
        start: Factor at its beginning, above 0 up to 1.
    """
    return min(1.0, start + (1 - start) * progress / GROWING)


def shrink(batch: Batch[T], progress: float, start: float) -> Batch[T]:
    """Return a batch at the size that belongs to a moment of the training; targets in pixels move with it.

    Howard, "Training Imagenet in 3 hours for $25", 2018; Tan and Le, "EfficientNetV2", ICML 2021.

    Args:
        batch: At the whole size.
        progress: Share of the training that is over, 0..1.
        start: Factor of the sides at its beginning, above 0 up to 1.
    """
    old = (batch.images.shape[2], batch.images.shape[3])
    new = _edges(old, side_factor(progress, start))
    if new == old:
        return batch
    scale = (new[0] / old[0], new[1] / old[1])
    targets = [t.place(scale, (0, 0), new) if is_spatial(t) else t for t in batch.targets]
    return Batch(resize_batch(batch.images, new), targets, batch.infos)


def cost(size: tuple[int, int], start: float) -> float:
    """Return how long the steps of a training take on the average, relative to those with whole pictures.

    A quarter of a step is taken to be the same at any size: reading and augmenting, the optimizer.

    Args:
        size: Height and width of the whole.
        start: Factor of the sides at the beginning, above 0 up to 1.
    """
    moments = [(k + 0.5) / 100 for k in range(100)]
    edges = [_edges(size, side_factor(moment, start)) for moment in moments]
    pixels = sum(h * w for h, w in edges) / len(moments) / (size[0] * size[1])
    return SAME + (1 - SAME) * pixels


def _edges(size: tuple[int, int], factor: float) -> tuple[int, int]:
    if factor >= 1:
        return size
    height, width = (min(edge, max(LEAST, MULTIPLE * round(edge * factor / MULTIPLE))) for edge in size)
    return height, width
