"""Bring an image to the model's size: the same steps in training, validation and prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.component import Component
from visionkit.errors import DataError, UsageError
from visionkit.sample import ImageInfo, Sample, SpatialTarget, Target

__all__ = ["Denoise", "Preprocessing", "Resize", "resize_area", "to_model", "to_original"]

Resize: TypeAlias = Literal["squash", "crop", "letterbox"]
Denoise: TypeAlias = Literal["median", "bilateral", "nlm"]
Picture: TypeAlias = NDArray[np.uint8]  # [H, W, C]
T = TypeVar("T", bound=Target)

GREY = 114  # of the letterbox's bars: close to the mean of natural photos


class Preprocessing(Component):
    """Resize an image to the model's size and, if asked, take noise out of it.

    It has no randomness, so training, validation and prediction share one object, and checkpoints describe it.
    Shrinking averages areas, so nothing aliases. Enlarging is bilinear: cubic overshoots at edges
    and sharpens compression blocks.

    Args:
        size: Edge of the square, or (height, width), that the model sees, in pixels, at least 1.
        resize: "squash" changes the aspect ratio; "crop" brings the shorter side to size and cuts the middle out;
            "letterbox" brings the longer side to size and fills up with grey bars.
        denoise: Filter run at the model's size: "median" (salt-and-pepper noise, dead pixels), "bilateral" (mild sensor
            noise, keeps edges, fast), "nlm" (non-local means: strong noise, slow) or None.
        denoise_strength: Strength of the filter, above 0 and at most 10. "median": radius of the window in pixels,
            rounded, at least 1 (1 = 3x3). "bilateral": neighbours that differ by up to about 30 grey levels a unit are
            averaged within 5x5 pixels. "nlm": removes noise of a standard deviation of about 10 grey levels a unit.
        channels: Channels of the images: 3 for RGB, 1 for grey, or any other number for multispectral ones.

    Raises:
        UsageError: A value is out of range.
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 224,
        *,
        resize: Resize = "squash",
        denoise: Denoise | None = None,
        denoise_strength: float = 1.0,
        channels: int = 3,
    ) -> None:
        self.size = _size(size)
        if resize not in get_args(Resize):
            raise UsageError(f"resize={resize!r}: one of {', '.join(get_args(Resize))}")
        if denoise is not None and denoise not in get_args(Denoise):
            raise UsageError(f"denoise={denoise!r}: one of {', '.join(get_args(Denoise))}, or null for none")
        if not 0 < denoise_strength <= 10:
            raise UsageError(f"denoise_strength={denoise_strength}: above 0 and at most 10 (no filter: denoise null)")
        if not _is_whole(channels) or channels < 1:
            raise UsageError(f"channels={channels!r}: a whole number from 1 on")
        self.resize: Resize = resize
        self.denoise: Denoise | None = denoise
        self.denoise_strength = denoise_strength
        self.channels = channels

    def __str__(self) -> str:
        """Return what it does, for the first lines of a run."""
        noise = f", {self.denoise} denoising {self.denoise_strength:g}" if self.denoise else ""
        channels = {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels} channels")
        return f"{self.size[0]} x {self.size[1]} pixels, {channels}, {self.resize}{noise}"

    def __call__(self, sample: Sample[T]) -> Sample[T]:
        """Return the sample with its image at the model's size, uint8 [C, H, W] in channels_last memory order.

        A target that lies in pixels moves with them. The info keeps the size of the original and learns how to go back
        to it.

        Raises:
            DataError: The image is not uint8 [C, H, W] with the expected number of channels.
        """
        info, target = sample.info, sample.target
        pixels, scale, offset = RESIZERS[self.resize](self.pixels(sample), self.size)
        if isinstance(target, SpatialTarget):
            target = target.place(scale, offset, self.size)
        return sample.replace(
            image=torch.from_numpy(self.filtered(pixels)).permute(2, 0, 1),
            target=target,
            info=replace(
                info,
                scale=(info.scale[0] * scale[0], info.scale[1] * scale[1]),
                offset=(info.offset[0] * scale[0] + offset[0], info.offset[1] * scale[1] + offset[1]),
            ),
        )

    def pixels(self, sample: Sample[Any]) -> Picture:
        """Return the pixels of a sample as read, uint8 [H, W, C], no copy of what a reader returns.

        Raises:
            DataError: The image is not uint8 [C, H, W] with the expected number of channels.
        """
        image, info = sample.image, sample.info
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != self.channels or 0 in image.shape:
            raise DataError(
                f"{info.id}: image of shape {tuple(image.shape)} and type {image.dtype}; the preprocessing takes uint8 "
                f"[{self.channels}, H, W] (set channels to the number that the images have)"
            )
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy())

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the vertical and horizontal factor by which an image of ``size`` is resized."""
        vertical, horizontal = self.size[0] / size[0], self.size[1] / size[1]
        if self.resize == "squash":
            return vertical, horizontal
        factor = max(vertical, horizontal) if self.resize == "crop" else min(vertical, horizontal)
        return factor, factor

    def filtered(self, pixels: Picture) -> Picture:
        """Return a picture at the model's size, uint8 [H, W, C], with its noise taken out as asked for."""
        return pixels if self.denoise is None else DENOISERS[self.denoise](pixels, self.denoise_strength)


def to_model(points: Tensor, info: ImageInfo) -> Tensor:
    """Move points (x, y), float [..., 2], from pixels of the original image to pixels that the model sees."""
    return points * points.new_tensor(info.scale[::-1]) + points.new_tensor(info.offset[::-1])


def to_original(points: Tensor, info: ImageInfo) -> Tensor:
    """Move points (x, y), float [..., 2], from pixels that the model sees to pixels of the original image."""
    return (points - points.new_tensor(info.offset[::-1])) / points.new_tensor(info.scale[::-1])


Resized: TypeAlias = tuple[Picture, tuple[float, float], tuple[int, int]]  # picture, scale, offset


def squash(pixels: Picture, size: tuple[int, int]) -> Resized:
    """Resize to ``size`` whatever the aspect ratio."""
    return resize_area(pixels, size), _scale(pixels, size), (0, 0)


def letterbox(pixels: Picture, size: tuple[int, int]) -> Resized:
    """Resize until the picture just fits into ``size`` and centre it on grey."""
    inner = _keep_aspect(pixels, size, min)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas = np.full((*size, pixels.shape[2]), GREY, np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = resize_area(pixels, inner)
    return canvas, _scale(pixels, inner), (top, left)


def crop(pixels: Picture, size: tuple[int, int]) -> Resized:
    """Resize until the picture just covers ``size`` and cut the middle out."""
    outer = _keep_aspect(pixels, size, max)
    top, left = (outer[0] - size[0]) // 2, (outer[1] - size[1]) // 2
    scale = _scale(pixels, outer)
    if outer[0] * outer[1] <= max(pixels.shape[0] * pixels.shape[1], 4 * size[0] * size[1]):
        whole = resize_area(pixels, outer)
        middle = np.ascontiguousarray(whole[top : top + size[0], left : left + size[1]])
    else:  # a long strip enlarged: never make the whole of it, which can be thousands of times the picture
        middle = _window(pixels, scale, (top, left), size)
    return middle, scale, (-top, -left)


RESIZERS: dict[Resize, Callable[[Picture, tuple[int, int]], Resized]] = {
    "squash": squash,
    "crop": crop,
    "letterbox": letterbox,
}


def median(pixels: Picture, strength: float) -> Picture:
    """Replace each pixel by the median of the square window around it."""
    edge = 2 * max(1, round(strength)) + 1
    return _in_groups(pixels, lambda part: cv2.medianBlur(part, edge), (1, 3, 4))


def bilateral(pixels: Picture, strength: float) -> Picture:
    """Average each pixel with the near ones of similar colour (Tomasi and Manduchi, ICCV 1998)."""
    return _in_groups(pixels, lambda part: cv2.bilateralFilter(part, 5, 30.0 * strength, 2.0), (1, 3))


def nlm(pixels: Picture, strength: float) -> Picture:
    """Average each pixel with those whose surroundings look alike (Buades, Coll and Morel, CVPR 2005)."""

    def filtered(part: Picture) -> Any:
        if part.ndim == 2:
            return cv2.fastNlMeansDenoising(part, None, 10.0 * strength, 7, 15)
        return cv2.fastNlMeansDenoisingColored(part, None, 10.0 * strength, 10.0 * strength, 7, 15)

    return _in_groups(pixels, filtered, (1, 3))


DENOISERS: dict[Denoise, Callable[[Picture, float], Picture]] = {"median": median, "bilateral": bilateral, "nlm": nlm}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _size(size: int | Sequence[int]) -> tuple[int, int]:
    edges = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(edges) != 2 or not all(_is_whole(e) and e >= 1 for e in edges):
        raise UsageError(f"size={size!r}: a number of pixels from 1 on, or two of them as [height, width]")
    return edges[0], edges[1]


def _scale(pixels: Picture, size: tuple[int, int]) -> tuple[float, float]:
    return size[0] / pixels.shape[0], size[1] / pixels.shape[1]


def _keep_aspect(pixels: Picture, size: tuple[int, int], choose: Callable[[float, float], float]) -> tuple[int, int]:
    """Return the picture's size after the one factor that makes it fit into (min) or cover (max) ``size``."""
    scales = _scale(pixels, size)
    factor = choose(*scales)
    edges = [  # the edge that decides is exact, whatever the rounding of the product says
        wanted if scale == factor else max(1, round(edge * factor))
        for edge, wanted, scale in zip(pixels.shape[:2], size, scales, strict=True)
    ]
    return edges[0], edges[1]


def resize_area(pixels: Picture, size: tuple[int, int]) -> Picture:
    """Resize a picture [H, W, C]: average areas along the edges that shrink, then interpolate along those that grow."""
    height, width = pixels.shape[:2]
    smaller = (min(height, size[0]), min(width, size[1]))
    if smaller != (height, width):  # OpenCV averages areas only if no edge grows
        pixels = _in_groups(
            pixels, lambda part: cv2.resize(part, smaller[::-1], interpolation=cv2.INTER_AREA), (1, 3, 4)
        )
    if smaller != size:
        pixels = _in_groups(
            pixels, lambda part: cv2.resize(part, size[::-1], interpolation=cv2.INTER_LINEAR), (1, 3, 4)
        )
    return pixels


def _window(pixels: Picture, scale: tuple[float, float], start: tuple[int, int], size: tuple[int, int]) -> Picture:
    """Return the part of the resized picture from ``start`` on, resizing nothing but that part."""
    y, fy = _neighbours(start[0], size[0], scale[0], pixels.shape[0])
    x, fx = _neighbours(start[1], size[1], scale[1], pixels.shape[1])
    pixels = pixels[y.min() : y.max() + 1, x.min() : x.max() + 1]  # all that the part sees
    y, x = y - y.min(), x - x.min()
    rows = pixels[y[0]] * (1 - fy)[:, None, None] + pixels[y[1]] * fy[:, None, None]  # [size[0], W, C]
    window = rows[:, x[0]] * (1 - fx)[None, :, None] + rows[:, x[1]] * fx[None, :, None]  # [size[0], size[1], C]
    return np.asarray(np.rint(window), dtype=np.uint8, order="C")


def _neighbours(start: int, count: int, scale: float, edge: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for each output pixel the two source pixels around its centre, [2, count], and the second's share."""
    centre = np.clip((np.arange(start, start + count) + 0.5) / scale - 0.5, 0, edge - 1)
    first = np.floor(centre).astype(np.int64)
    return np.stack([first, np.minimum(first + 1, edge - 1)]), (centre - first).astype(np.float32)


def _in_groups(pixels: Picture, function: Callable[[Any], Any], allowed: tuple[int, ...]) -> Picture:
    """Run an OpenCV function that takes only certain numbers of channels, otherwise on one channel after another."""
    channels = pixels.shape[2]
    if channels > 1 and channels in allowed:
        return np.asarray(function(pixels))
    planes = [np.asarray(function(np.ascontiguousarray(pixels[..., c]))) for c in range(channels)]
    return np.stack(planes, axis=-1)
