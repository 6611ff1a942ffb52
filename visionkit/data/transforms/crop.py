"""Crops at random scales: one training picture of a part of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from visionkit.core.errors import UsageError
from visionkit.core.sample import Sample, SpatialTarget, Target, is_spatial
from visionkit.data.dataset import VisionDataset
from visionkit.data.transforms.base import RandomTransform
from visionkit.data.transforms.preprocessing import GREY, Preprocessing, resize_image

__all__ = ["RandomScaledCrop"]

T = TypeVar("T", bound=Target)
Classes = NDArray[Any]  # uint8 or int32 [H, W], class ids + 1; 0 says nothing

MAX_TRIES = 10  # further crops that are drawn where one class takes too much


class RandomScaledCrop(RandomTransform):
    """Cut a training picture of the model's size out of an image that was resized by a random factor.

    What most segmenters learn from (Chen et al., "Rethinking Atrous Convolution", 2017, section 4.1): parts of images
    in several sizes. Where the resized image is smaller than the picture, it lies at a random place, the rest is grey,
    and the target says nothing there.

    Args:
        scale: Smallest and largest factor of an image's size, above 0; 1 is the size that the preprocessing gives the
            whole image. The logarithm is drawn uniformly.
        balanced: Share of the crops, 0..1, that hold a pixel of a class that is drawn uniformly from those of the
            image, somewhere in the crop: rare classes are seen more often. For masks only.
        most: Largest share of the labelled pixels, above 0 and at most 1, that one class may take; a crop with more is
            drawn again at the same scale, up to 10 times (Contreras et al., "MMSegmentation", 2020, cat_max_ratio,
            has 0.75). 1 takes the first. For masks only.

    Raises:
        UsageError: A value is out of range.
    """

    off = "data.crop_scale null"

    def __init__(self, scale: tuple[float, float] = (0.5, 2.0), *, balanced: float = 0.0, most: float = 1.0) -> None:
        if not (isinstance(scale, Sequence) and len(scale) == 2 and 0 < scale[0] <= scale[1] < math.inf):
            raise UsageError(f"scale={scale!r}: the smallest and the largest factor, above 0")
        if not 0 <= balanced <= 1:
            raise UsageError(f"balanced={balanced}: a share of the crops, 0..1")
        if not 0 < most <= 1:
            raise UsageError(f"most={most}: a share of the pixels, above 0 and at most 1 (1 takes every crop)")
        self.scale = (float(scale[0]), float(scale[1]))
        self.balanced = balanced
        self.most = most

    def __call__(
        self,
        dataset: VisionDataset[T],
        index: int,
        preprocessing: Preprocessing,
        *,
        seed: int,
        epoch: int,
        epochs: int | None,
    ) -> Sample[T]:
        """Return a crop of image ``index``.

        Args:
            dataset: Where the image comes from.
            index: The image.
            preprocessing: Says how large the picture is, how images are resized and how noise is taken out.
            seed: What is drawn depends on it alone.
            epoch: Has no effect.
            epochs: Has no effect.

        Returns:
            uint8 [C, H, W] in channels_last memory order with its target and the info of the image, which has no way
            back to an original.

        Raises:
            UsageError: The target does not lie in pixels, or has no mask to choose crops by.
        """
        rng = np.random.default_rng(seed)
        sample = dataset[index]
        target = sample.target
        if not is_spatial(target):
            raise UsageError(
                f"RandomScaledCrop moves targets that lie in pixels; a {type(target).__name__} does not: "
                "use it for detection and segmentation"
            )
        classes = self._classes(target)
        pixels = preprocessing.pixels(sample)
        edges, size = (pixels.shape[0], pixels.shape[1]), preprocessing.size
        factor = math.exp(rng.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        scale = preprocessing.scale(edges)
        height, rows = _lengths(edges[0], scale[0] * factor, size[0])
        width, columns = _lengths(edges[1], scale[1] * factor, size[1])
        top, left = (int(rng.integers(room + 1)) for room in (size[0] - rows, size[1] - columns))
        y, x = self._corner(edges, (height, width), classes, rng)
        canvas = resize_image(pixels[y : y + height, x : x + width], (rows, columns))  # the part that shows
        if (rows, columns) != size:
            part, canvas = canvas, np.full((*size, preprocessing.channels), GREY, np.uint8)
            canvas[top : top + rows, left : left + columns] = part
        seen = target.place((1.0, 1.0), (-y, -x), (height, width))  # first cut, so that nothing reaches beyond the crop
        placed = seen.place((rows / height, columns / width), (top, left), size)
        return Sample(
            torch.from_numpy(np.ascontiguousarray(preprocessing.filtered(canvas))).permute(2, 0, 1),
            placed.join(()),  # the original is gone
            replace(sample.info, size=size, scale=(1.0, 1.0), offset=(0, 0)),
        )

    def _classes(self, target: SpatialTarget) -> Classes | None:
        """Return the class of each pixel where crops are chosen by them."""
        if self.balanced == 0 and self.most == 1:
            return None
        arrays = target.arrays()
        if "mask" not in arrays:
            raise UsageError(
                f"RandomScaledCrop chooses crops by the classes of pixels; a {type(target).__name__} has no mask: "
                "leave out balanced and most"
            )
        return arrays["mask"]

    def _corner(
        self, edges: tuple[int, int], part: tuple[int, int], classes: Classes | None, rng: np.random.Generator
    ) -> tuple[int, int]:
        """Draw the top left pixel of a part of the image."""
        balanced = rng.random() < self.balanced
        counts = _count(classes) if balanced and classes is not None and part != edges else None
        corner = (0, 0)
        for _ in range(1 + MAX_TRIES):
            first, last = (0, 0), (edges[0] - part[0], edges[1] - part[1])
            if counts is not None and counts.any():
                assert classes is not None
                pixel = _pixel_of(classes, int(rng.choice(np.flatnonzero(counts))), rng)
                first = (max(0, pixel[0] - part[0] + 1), max(0, pixel[1] - part[1] + 1))
                last = (min(last[0], pixel[0]), min(last[1], pixel[1]))
            corner = int(rng.integers(first[0], last[0] + 1)), int(rng.integers(first[1], last[1] + 1))
            if self.most == 1 or classes is None or part == edges:
                break
            shown = _count(classes[corner[0] : corner[0] + part[0], corner[1] : corner[1] + part[1]])
            if shown.max() <= self.most * shown.sum():
                break
        return corner


def _lengths(edge: int, scale: float, size: int) -> tuple[int, int]:
    """Return how many pixels of the image, and how many of the picture, show along one axis."""
    length = max(1, round(edge * scale))
    return (edge, length) if length <= size else (min(edge, max(1, round(size / scale))), size)


def _count(classes: Classes) -> NDArray[Any]:
    """Return how many pixels have each value; those that say nothing are not counted."""
    if classes.dtype == np.uint8:  # numpy takes ten times as long
        counts = np.asarray(cv2.calcHist([classes], [0], None, [256], [0, 256])).ravel()
    else:
        counts = np.bincount(classes.ravel(), minlength=2)
    counts[0] = 0
    return counts


def _pixel_of(classes: Classes, value: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw one of the pixels of this value."""
    belongs = classes == value
    until = np.count_nonzero(belongs, axis=1).cumsum()  # [H]
    k = int(rng.integers(until[-1]))
    y = int(np.searchsorted(until, k, side="right"))
    x = np.flatnonzero(belongs[y])[k - (int(until[y - 1]) if y else 0)]
    return y, int(x)
