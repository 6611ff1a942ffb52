"""Bring an image to the model's size: the same steps in training, validation and prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.component import Component
from visionkit.core.errors import DataError, UsageError
from visionkit.core.sample import ImageInfo, Sample, Target, is_spatial

__all__ = ["Denoise", "Preprocessing", "Resize", "resize_image", "to_model", "to_original"]

Resize: TypeAlias = Literal["squash", "crop", "letterbox"]
Denoise: TypeAlias = Literal["median", "bilateral", "nlm"]
Pixels: TypeAlias = NDArray[np.uint8]  # [H, W, C]
T = TypeVar("T", bound=Target)

MAX_PIXELS = 2**26  # that the model sees, 8192 x 8192: a network's maps of them take some 20 GB already
MAX_CHANNELS = 1024
GREY = 114  # of the letterbox's bars: close to the mean of natural photos


class Preprocessing(Component):
    """Resize an image to the model's size and, if asked, take noise out of it.

    It has no randomness, so training, validation and prediction share one object, and checkpoints describe it.
    Resizing is bilinear, shrinking with a filter as wide as it takes, so nothing aliases, as Pillow and torchvision do.
    Cubic overshoots at edges and sharpens compression blocks.

    Args:
        size: Edge of the square, or (height, width), that the model sees, in pixels, at least 1;
            8192 x 8192 at most.
        resize: "squash" changes the aspect ratio; "crop" brings the shorter side to size and cuts the middle out;
            "letterbox" brings the longer side to size and fills up with grey bars.
        denoise: Filter run at the model's size: "median" (salt-and-pepper noise, dead pixels), "bilateral" (mild sensor
            noise, keeps edges, fast), "nlm" (non-local means: strong noise, slow) or None.
        denoise_strength: Strength of the filter, above 0 and at most 10. "median": radius of the window in pixels,
            rounded, at least 1 (1 = 3x3). "bilateral": neighbours that differ by up to about 30 grey levels a unit are
            averaged within 5x5 pixels. "nlm": removes noise of a standard deviation of about 10 grey levels a unit.
        channels: Channels of the images: 3 for RGB, 1 for grey, or any other number up to 1024 for
            multispectral ones.

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
        if not _is_whole(channels) or not 1 <= channels <= MAX_CHANNELS:
            raise UsageError(f"channels={channels!r}: a whole number from 1 to {MAX_CHANNELS}")
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
        pixels = self.pixels(sample)
        edges = (pixels.shape[0], pixels.shape[1])
        if sample.reduced == 1:
            place = self.placement(edges)
            pixels = _resized(pixels, edges, place, self.size)
        else:
            place = self.placement(sample.info.size)
            height, width = sample.info.size
            pixels = _resized(pixels, (height / sample.reduced, width / sample.reduced), place, self.size)
        target, info = self.placed(sample.target, sample.info, place)
        image = torch.from_numpy(self.filtered(pixels)).permute(2, 0, 1)
        return sample.replace(image=image, target=target, info=info, reduced=1)

    def placement(self, edges: tuple[int, int]) -> Placement:
        """Return where an image of these edges lies in the picture that the model sees."""
        return PLACEMENTS[self.resize](edges, self.size)

    def placed(self, target: T, info: ImageInfo, place: Placement) -> tuple[T, ImageInfo]:
        """Return target and info of an image after it was placed."""
        scale, offset = place.scale, place.offset
        if is_spatial(target):
            target = target.place(scale, offset, self.size)
        moved = ImageInfo(
            info.id,
            info.size,
            scale=(info.scale[0] * scale[0], info.scale[1] * scale[1]),
            offset=(info.offset[0] * scale[0] + offset[0], info.offset[1] * scale[1] + offset[1]),
            extra=info.extra,
        )
        return target, moved

    def pixels(self, sample: Sample[Any]) -> Pixels:
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

    def filtered(self, pixels: Pixels) -> Pixels:
        """Return a picture at the model's size, uint8 [H, W, C], with its noise taken out as asked for."""
        return pixels if self.denoise is None else DENOISERS[self.denoise](pixels, self.denoise_strength)


def to_model(points: Tensor, info: ImageInfo) -> Tensor:
    """Move points (x, y), float [..., 2], from pixels of the original image to pixels that the model sees."""
    return points * points.new_tensor(info.scale[::-1]) + points.new_tensor(info.offset[::-1])


def to_original(points: Tensor, info: ImageInfo) -> Tensor:
    """Move points (x, y), float [..., 2], from pixels that the model sees to pixels of the original image."""
    return (points - points.new_tensor(info.offset[::-1])) / points.new_tensor(info.scale[::-1])


class Placement(NamedTuple):
    """Where an image lies in the picture that the model sees.

    A pixel (y, x) of the image moves to ``(y * scale[0] + offset[0], x * scale[1] + offset[1])``.
    """

    inner: tuple[int, int]
    """Height and width of the image after it was resized."""
    scale: tuple[float, float]
    """Vertical and horizontal factor."""
    offset: tuple[int, int]
    """Vertical and horizontal shift in pixels: above 0 between bars, below 0 where the image is cut."""


def squash(edges: tuple[int, int], size: tuple[int, int]) -> Placement:
    """Resize to ``size`` whatever the aspect ratio."""
    return Placement(size, _scale(edges, size), (0, 0))


def letterbox(edges: tuple[int, int], size: tuple[int, int]) -> Placement:
    """Resize until the image just fits into ``size`` and centre it."""
    inner = _keep_aspect(edges, size, min)
    return Placement(inner, _scale(edges, inner), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))


def crop(edges: tuple[int, int], size: tuple[int, int]) -> Placement:
    """Resize until the image just covers ``size`` and take the middle."""
    outer = _keep_aspect(edges, size, max)
    return Placement(outer, _scale(edges, outer), (-((outer[0] - size[0]) // 2), -((outer[1] - size[1]) // 2)))


PLACEMENTS: dict[Resize, Callable[[tuple[int, int], tuple[int, int]], Placement]] = {
    "squash": squash,
    "crop": crop,
    "letterbox": letterbox,
}


def _resized(pixels: Pixels, edges: tuple[float, float], place: Placement, size: tuple[int, int]) -> Pixels:
    """Return the picture that the model sees, without any filter.

    Args:
        pixels: The image, as decoded.
        edges: Height and width that it has, in its pixels; the last ones may belong to it in part.
        place: Where it comes to lie.
        size: Height and width of the picture.
    """
    (height, width), (top, left) = place.inner, place.offset
    if place.inner == size:
        return resize_image(pixels, size, edges)
    if height <= size[0] and width <= size[1]:
        canvas = np.full((*size, pixels.shape[2]), GREY, np.uint8)
        canvas[top : top + height, left : left + width] = resize_image(pixels, place.inner, edges)
        return canvas
    if height * width <= max(pixels.shape[0] * pixels.shape[1], 4 * size[0] * size[1]):
        whole = resize_image(pixels, place.inner, edges)
        return np.ascontiguousarray(whole[-top : size[0] - top, -left : size[1] - left])
    # a long strip enlarged: never make the whole of it, which can be thousands of times the picture
    return _window(pixels, place.scale, (-top, -left), size)


def median(pixels: Pixels, strength: float) -> Pixels:
    """Replace each pixel by the median of the square window around it."""
    edge = 2 * max(1, round(strength)) + 1
    return _in_groups(pixels, lambda part: cv2.medianBlur(part, edge), (1, 3, 4))


def bilateral(pixels: Pixels, strength: float) -> Pixels:
    """Average each pixel with the near ones of similar colour (Tomasi and Manduchi, ICCV 1998)."""
    return _in_groups(pixels, lambda part: cv2.bilateralFilter(part, 5, 30.0 * strength, 2.0), (1, 3))


def nlm(pixels: Pixels, strength: float) -> Pixels:
    """Average each pixel with those whose surroundings look alike (Buades, Coll and Morel, CVPR 2005)."""

    def filtered(part: Pixels) -> Any:
        if part.ndim == 2:
            return cv2.fastNlMeansDenoising(part, None, 10.0 * strength, 7, 15)
        return cv2.fastNlMeansDenoisingColored(part, None, 10.0 * strength, 10.0 * strength, 7, 15)

    return _in_groups(pixels, filtered, (1, 3))


DENOISERS: dict[Denoise, Callable[[Pixels, float], Pixels]] = {"median": median, "bilateral": bilateral, "nlm": nlm}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _size(size: int | Sequence[int]) -> tuple[int, int]:
    edges = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(edges) != 2 or not all(_is_whole(e) and e >= 1 for e in edges):
        raise UsageError(f"size={size!r}: a number of pixels from 1 on, or two of them as [height, width]")
    if edges[0] * edges[1] > MAX_PIXELS:
        raise UsageError(
            f"size={size!r}: more than 8192 x 8192 pixels, which no network takes at once: predict goes over large "
            "pictures piece by piece with --window"
        )
    return edges[0], edges[1]


def _scale(edges: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    return size[0] / edges[0], size[1] / edges[1]


def _keep_aspect(
    edges: tuple[int, int], size: tuple[int, int], choose: Callable[[float, float], float]
) -> tuple[int, int]:
    """Return an image's size after the one factor that makes it fit into (min) or cover (max) ``size``."""
    scales = _scale(edges, size)
    factor = choose(*scales)
    inner = [  # the edge that decides is exact, whatever the rounding of the product says
        wanted if scale == factor else max(1, round(edge * factor))
        for edge, wanted, scale in zip(edges, size, scales, strict=True)
    ]
    return inner[0], inner[1]


def resize_image(pixels: Pixels, size: tuple[int, int], edges: tuple[float, float] | None = None) -> Pixels:
    """Resize a picture, uint8 [H, W, C], bilinearly; where it shrinks, the filter widens and nothing aliases.

    Args:
        pixels: The picture, writable.
        size: Height and width that it shall have.
        edges: Height and width that it has, where its last row or column belongs to it in part only, or None.

    Returns:
        uint8 [*size, C]; the picture itself where it has that size.
    """
    whole = (pixels.shape[0], pixels.shape[1])
    if edges is None or edges == whole:
        if whole == size:
            return pixels
        factors = None
    else:
        factors = tuple(s / e * (1 + 1e-12) for s, e in zip(size, edges, strict=True))  # products are rounded down
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # [1, C, H, W], in channels_last order
    resized = F.interpolate(
        image, size=size if factors is None else None, scale_factor=factors, mode="bilinear", antialias=True
    )
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def _window(pixels: Pixels, scale: tuple[float, float], start: tuple[int, int], size: tuple[int, int]) -> Pixels:
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


def _in_groups(pixels: Pixels, function: Callable[[Any], Any], allowed: tuple[int, ...]) -> Pixels:
    """Run an OpenCV function that takes only certain numbers of channels, otherwise on one channel after another."""
    channels = pixels.shape[2]
    if channels > 1 and channels in allowed:
        return np.asarray(function(pixels))
    planes = [np.asarray(function(np.ascontiguousarray(pixels[..., c]))) for c in range(channels)]
    return np.stack(planes, axis=-1)
