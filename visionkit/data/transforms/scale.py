"""Multi-scale training: batches of changing image sizes."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.core.sample import Batch, Target, is_spatial
from visionkit.data.transforms.base import RandomTransform

__all__ = ["MultiScale"]

T = TypeVar("T", bound=Target)

CHUNK = 8  # images that are floats at a time


class MultiScale(RandomTransform):
    """Resize each training batch to a random size, so that one model sees objects in many sizes.

    Redmon and Farhadi, "YOLO9000", CVPR 2017, section 2. The size is drawn from torch's global generator on the CPU.
    The infos of the images stay as they are; targets that lie in pixels move with them. Memory is needed for the
    largest size.

    Args:
        smallest: Factor of the smallest size, above 0.
        largest: Factor of the largest size; heights and widths never become larger than that.
        multiple: Heights and widths are multiples of this many pixels; backbones with a stride of 32 want 32.

    Raises:
        UsageError: A value is out of range.
    """

    off = "model.multi_scale null"

    def __init__(self, smallest: float = 0.75, largest: float = 1.25, multiple: int = 32) -> None:
        if not 0 < smallest <= largest < math.inf:
            raise UsageError(f"smallest={smallest}, largest={largest}: two factors above 0, the smaller one first")
        if multiple < 1:
            raise UsageError(f"multiple={multiple}: a number of pixels from 1 on")
        self.smallest = smallest
        self.largest = largest
        self.multiple = multiple

    def __call__(self, batch: Batch[T]) -> Batch[T]:
        """Return the batch at its new size, uint8 [B, C, H, W] in channels_last memory order.

        Raises:
            UsageError: No multiple lies between the smallest and the largest size.
        """
        old = (batch.images.shape[2], batch.images.shape[3])
        factor = self.smallest + (self.largest - self.smallest) * torch.rand(()).item()
        new = (self._edge(old[0], factor), self._edge(old[1], factor))
        if new == old:
            return batch
        scale = (new[0] / old[0], new[1] / old[1])
        targets = [t.place(scale, (0, 0), new) if is_spatial(t) else t for t in batch.targets]
        return Batch(resize_batch(batch.images, new), targets, batch.infos)

    def _edge(self, edge: int, factor: float) -> int:
        lowest = math.ceil(self.smallest * edge / self.multiple - 1e-9)  # as 1.1 * 320 is a little above 352
        highest = math.floor(self.largest * edge / self.multiple + 1e-9)
        if lowest > highest:
            raise UsageError(
                f"MultiScale: no multiple of {self.multiple} lies between {self.smallest:g} and {self.largest:g} times "
                f"{edge} pixels: take a smaller multiple or factors further apart"
            )
        return self.multiple * min(max(round(edge * factor / self.multiple), lowest), highest)


def resize_batch(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images, uint8 [B, C, H, W], bilinearly; shrinking does not alias.

    Returns:
        uint8 [B, C, *size] in channels_last memory order on the same device.
    """
    if images.device.type == "cpu":  # knows bytes, ten times as fast as floats
        small = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        return small.contiguous(memory_format=torch.channels_last)
    resized = torch.empty((*images.shape[:2], *size), dtype=torch.uint8, device=images.device)
    resized = resized.to(memory_format=torch.channels_last)
    for out, part in zip(resized.split(CHUNK), images.split(CHUNK), strict=True):
        small = F.interpolate(part.float(), size=size, mode="bilinear", antialias=True)
        out.copy_(small.round_().clamp_(0, 255))
    return resized
