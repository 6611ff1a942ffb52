"""Whether a map points at what the model goes by: insertion minus deletion, beside a blob in the centre."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

__all__ = ["STEPS", "Judge", "Region", "Scored", "passes", "region_of", "verdict"]

STEPS = 8
"""Parts in which pixels are put in and taken out."""
FEWEST = 10
"""Pictures from which on a mean difference is judged."""
CLEAR = 2.26
"""Standard errors from which on a difference is no chance: the two-sided 5 % of 10 pictures (Student's t)."""
_BLUR = 0.1  # standard deviation of the blur, in longer sides of the region
_AT_ONCE = 8  # pictures a forward pass


class Scored(NamedTuple):
    """Insertion minus deletion of a map, and of a blob in the centre of the same region; -1..1 each."""

    map: float
    blob: float


@dataclass(frozen=True)
class Region:
    """The part of a picture that a map speaks of.

    Args:
        top: First row.
        left: First column.
        bottom: Row behind the last.
        right: Column behind the last.
        centre: y and x of the middle of what is explained, in pixels.
    """

    top: int
    left: int
    bottom: int
    right: int
    centre: tuple[float, float]

    def cut(self, x: Tensor) -> Tensor:
        """Return its part of [..., H, W], a view."""
        return x[..., self.top : self.bottom, self.left : self.right]

    def blob(self) -> Tensor:
        """Return a map that falls from its centre outwards, evenly to all four sides, float32 [rows, columns]."""
        rows, columns = self.bottom - self.top, self.right - self.left
        y = (torch.arange(self.top, self.bottom) + 0.5 - self.centre[0]) / rows
        x = (torch.arange(self.left, self.right) + 0.5 - self.centre[1]) / columns
        return -(y[:, None] ** 2 + x**2)


def region_of(box: Sequence[float] | None, size: tuple[int, int]) -> Region:
    """Return twice a box around its centre, cut at the picture; all of the picture where there is no box.

    Args:
        box: x1, y1, x2 and y2 in pixels, or None.
        size: Height and width of the picture.
    """
    height, width = size
    if box is None:
        return Region(0, 0, height, width, (height / 2, width / 2))
    x1, y1, x2, y2 = box
    y, x, half_high, half_wide = (y1 + y2) / 2, (x1 + x2) / 2, y2 - y1, x2 - x1
    top, left = max(0, math.floor(y - half_high)), max(0, math.floor(x - half_wide))
    top, left = min(top, height - 1), min(left, width - 1)
    bottom, right = min(height, math.ceil(y + half_high)), min(width, math.ceil(x + half_wide))
    return Region(top, left, max(bottom, top + 1), max(right, left + 1), (y, x))


def passes(steps: int = STEPS) -> int:
    """Return how many pictures the network sees to judge one map and one blob."""
    return 4 * (steps - 1)


class Judge:
    """Scores maps of one subject: its pixels are put into a blurred picture, and taken out of the whole one.

    Insertion minus deletion (Petsiuk et al., BMVC 2018): the area under the subject's score while pixels of a region
    come in, those first that the map holds for the strongest evidence, minus the area while they go, in the same order.
    A pixel that is gone is blurred. The ends are the same for both areas, and cancel out.

    Args:
        score: Returns the subject's score in each of some pictures, float [B], of uint8 [B, C, H, W].
        image: The picture, uint8 [C, H, W].
        region: Where pixels come and go; the rest stays as it is.
        steps: Parts in which they do, 2 or more.
    """

    def __init__(self, score: Callable[[Tensor], Tensor], image: Tensor, region: Region, steps: int = STEPS) -> None:
        self.score, self.image, self.region, self.steps = score, image, region, steps
        self.gone = blurred(image, _BLUR * max(region.bottom - region.top, region.right - region.left))

    def __call__(self, values: Tensor) -> float:
        """Return insertion minus deletion of a map of the region, float [rows, columns]; any scale does."""
        order = values.flatten().cpu().argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        rank = rank.view(values.shape).to(self.image.device)
        pictures = []
        for step in range(1, self.steps):
            strong = rank < round(step * len(order) / self.steps)
            pictures += [self._with(strong), self._with(~strong)]
        scores = torch.cat(
            [self.score(torch.stack(pictures[k : k + _AT_ONCE])) for k in range(0, len(pictures), _AT_ONCE)]
        ).double()
        return float((scores[::2] - scores[1::2]).sum() / self.steps)

    def _with(self, kept: Tensor) -> Tensor:
        """Return the picture with some pixels of the region alone, bool [rows, columns]."""
        picture = self.image.clone()
        here = self.region.cut(picture)
        here.copy_(torch.where(kept, here, self.region.cut(self.gone)))
        return picture


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Return a picture, uint8 [C, H, W], as if seen through frosted glass.

    Three means over squares come near a Gaussian of any width at the same cost.

    Args:
        image: uint8 [C, H, W].
        sigma: Standard deviation in pixels.
    """
    edge = 2 * max(1, round(math.sqrt(4 * sigma**2 + 1) / 2)) + 1
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    for _ in range(3):
        pixels = cv2.blur(pixels, (edge, edge), borderType=cv2.BORDER_REFLECT).reshape(pixels.shape)
    return torch.from_numpy(pixels).permute(2, 0, 1).to(image.device)


def verdict(pictures: Sequence[Sequence[Scored]]) -> str | None:
    """Say in a sentence what the maps of some pictures are worth; None where there are none.

    Pictures count, not maps: the objects of one picture are no chances of their own.

    Args:
        pictures: What the maps of each picture score.
    """
    means = [(statistics.fmean(s.map for s in one), statistics.fmean(s.blob for s in one)) for one in pictures if one]
    if not means:
        return None
    count = sum(map(len, pictures))
    apart = [ours - blob for ours, blob in means]
    mean, n = statistics.fmean(apart), len(apart)
    several = f" ({count} maps)" if count > n else ""
    noun = "picture" if n == 1 else "pictures"
    ours, blob = (statistics.fmean(values) for values in zip(*means, strict=True))
    said = (
        f"on {n} {noun}{several} the maps score {ours:.2f}, a blob in the centre {blob:.2f} (insertion minus deletion, "
        "-1 to 1)"
    )
    if round(ours, 2) <= round(blob, 2):
        return f"{said}: no better than a blob in the centre: do not read anything into them"
    if n < FEWEST:
        return f"{said}: better here, but {n} {noun} can be chance: explain {FEWEST} or more"
    if mean < CLEAR * statistics.stdev(apart) / math.sqrt(n):
        return f"{said}: no better than a blob in the centre beyond chance: do not read anything into them"
    return f"{said}: they point at what the model goes by better than the centre does"
