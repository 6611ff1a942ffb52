"""Mosaic: four training images in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from visionkit.core.errors import UsageError
from visionkit.core.sample import Sample, Target, is_spatial
from visionkit.data.dataset import VisionDataset
from visionkit.data.transforms.base import RandomTransform
from visionkit.data.transforms.preprocessing import GREY, Pixels, Preprocessing, resize_image

__all__ = ["Mosaic"]

T = TypeVar("T", bound=Target)


class Mosaic(RandomTransform):
    """Paste four training images around a random point of one picture of the model's size.

    Bochkovskiy et al., "YOLOv4", 2020, section 3.3. Objects appear in more surroundings and more sizes, and a batch
    shows four times as many images; such pictures look unlike real ones, so the last epochs do without.
    Each image is resized as the preprocessing would, times a random factor. What is larger than its part of the picture
    is cut at a random place, what is smaller touches the point; the rest is grey.

    Args:
        p: Share of the training pictures that are mosaics, 0..1.
        scale: Smallest and largest factor of an image's size, above 0; 1 is the size without mosaic. The logarithm is
            drawn uniformly.
        last: Share of the epochs, at the end of the training, without mosaics, 0..1, rounded to whole epochs. It has
            no effect where the number of epochs is not known (a training limited by steps or time alone).

    Raises:
        UsageError: A value is out of range.
    """

    off = "data.mosaic 0"

    def __init__(self, p: float = 0.5, *, scale: tuple[float, float] = (0.5, 1.5), last: float = 0.2) -> None:
        for name, value in (("p", p), ("last", last)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name}={value}: a share, 0..1")
        if not (isinstance(scale, Sequence) and len(scale) == 2 and 0 < scale[0] <= scale[1] < math.inf):
            raise UsageError(f"scale={scale!r}: the smallest and the largest factor, above 0")
        self.p = p
        self.scale = (float(scale[0]), float(scale[1]))
        self.last = last

    @property
    def acts(self) -> bool:
        """Whether there are mosaics."""
        return self.p > 0

    def __call__(
        self,
        dataset: VisionDataset[T],
        index: int,
        preprocessing: Preprocessing,
        *,
        seed: int,
        epoch: int,
        epochs: int | None,
    ) -> Sample[T] | None:
        """Return image ``index`` together with three others, or None where it stays alone.

        Args:
            dataset: Where the images come from.
            index: The image that is asked for; it is one of the four.
            preprocessing: Says how large the picture is, how images are resized and how noise is taken out.
            seed: What is drawn depends on it alone.
            epoch: Epoch of the training, from 0.
            epochs: Number of epochs, or None where it is not known.

        Returns:
            uint8 [C, H, W] in channels_last memory order with the joined target and the info of image ``index``, which
            has no way back to an original. None in the last epochs and for a share of 1 - p of the seeds.

        Raises:
            UsageError: The targets cannot be joined.
        """
        if epochs is not None and epochs - epoch <= round(self.last * epochs):
            return None
        rng = np.random.default_rng(seed)
        if rng.random() >= self.p:
            return None
        size = preprocessing.size
        middle = [min(max(round(edge * rng.uniform(0.25, 0.75)), 1), edge - 1) for edge in size]
        members = [index, *rng.integers(len(dataset), size=3).tolist()]
        canvas = np.full((*size, preprocessing.channels), GREY, np.uint8)
        placed: list[Any] = []  # targets of one kind
        info = None
        for corner, member in zip(rng.permutation(4).tolist(), members, strict=True):
            sample = dataset[member]
            if not is_spatial(sample.target):
                raise UsageError(
                    f"Mosaic joins targets that lie in pixels; a {type(sample.target).__name__} does not: "
                    "use it for detection and segmentation"
                )
            info = info or sample.info
            placed.append(self._paste(canvas, sample, corner, (middle[0], middle[1]), preprocessing, rng))
        assert info is not None
        return Sample(
            torch.from_numpy(preprocessing.filtered(canvas)).permute(2, 0, 1),
            placed[0].join(placed[1:]),
            replace(info, size=size, scale=(1.0, 1.0), offset=(0, 0)),
        )

    def _paste(
        self,
        canvas: Pixels,
        sample: Sample[T],
        corner: int,
        middle: tuple[int, int],
        preprocessing: Preprocessing,
        rng: np.random.Generator,
    ) -> T:
        """Put an image into one of the four parts of the canvas, row by row, and return its target placed there."""
        pixels = preprocessing.pixels(sample)
        scale = preprocessing.scale((pixels.shape[0], pixels.shape[1]))
        factor = math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        cut: list[tuple[int, int]] = []  # start and length in the image, vertical and horizontal
        part: list[tuple[int, int]] = []  # start and length on the canvas
        for axis, after in enumerate(divmod(corner, 2)):
            point = middle[axis]
            room = canvas.shape[axis] - point if after else point
            edge = pixels.shape[axis]
            length = max(1, round(edge * scale[axis] * factor))
            source = edge
            if length > room:
                source, length = min(edge, max(1, round(room / (scale[axis] * factor)))), room
            cut.append((int(rng.integers(edge - source + 1)), source))
            part.append((point if after else point - length, length))
        (y, height), (x, width) = cut
        (top, rows), (left, columns) = part
        window = resize_image(pixels[y : y + height, x : x + width], (rows, columns))
        canvas[top : top + rows, left : left + columns] = window
        target = sample.target
        assert is_spatial(target)
        seen = target.place((1.0, 1.0), (-y, -x), (height, width))  # first cut, so that nothing reaches beyond its part
        return seen.place((rows / height, columns / width), (top, left), (canvas.shape[0], canvas.shape[1]))
