"""From pixels of any depth to 8 bits, red, green and blue, upright: little memory beside what comes in and goes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from visionkit.data.images.formats import BadImageError

__all__ = ["DARK", "Array", "bands", "luma", "to_rgb", "to_uint8", "turn"]

Array = np.ndarray[Any, Any]
DARK = "dark"
"""A remark: the picture has 16 bits, but no value above 4095."""

_BAND = 2**22  # pixels that are converted at a time


def turn(pixels: Array, way: int) -> Array:
    """Undo an EXIF orientation, 1..8."""
    if way in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if way in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if way in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels.copy() if way != 1 else np.ascontiguousarray(pixels)  # the latter may leave a stride negative


def bands(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of a picture, so many at a time that what is made of them takes little memory."""
    rows = max(1, _BAND // max(1, width))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def to_rgb(pixels: Array, remarks: set[str]) -> Array:
    """Return [H, W, 1], [H, W, 3] or RGBA of any depth as uint8 [H, W, 3]."""
    eight = to_uint8(pixels, remarks)
    rgb = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in bands(*pixels.shape[:2]):
        band = eight(pixels[rows])
        if band.shape[2] == 4:
            alpha = band[:, :, 3:].astype(np.uint32)
            mixed = band[:, :, :3] * alpha + 255 * (255 - alpha)
            band = ((mixed + 127) // 255).astype(np.uint8)
        rgb[rows] = band
    return rgb


def to_uint8(pixels: Array, remarks: set[str]) -> Callable[[Array], Array]:
    """Return what brings parts of a picture to 8 bits, by the type of its numbers.

    Raises:
        BadImageError: Its values are out of range.
    """
    if pixels.dtype == np.uint8:
        return lambda part: part
    low, high = pixels.min(), pixels.max()
    if np.issubdtype(pixels.dtype, np.integer):
        if low < 0 or high > 65535:
            raise BadImageError(f"holds integers from {low} to {high}; save it with 8 or 16 bits a channel")
        if 0 < high < 4096:
            remarks.add(DARK)
        return lambda part: ((part.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise BadImageError(f"holds float values from {low:.6g} to {high:.6g}; scale them to 0..1 or save 8 or 16 bits")
    return lambda part: np.asarray(np.rint(part * 255), np.uint8)


def luma(rgb: Array) -> Array:
    """Return the ITU-R 601 luma, uint8 [H, W, 1], of uint8 [H, W, 3]."""
    return np.array(Image.fromarray(rgb).convert("L"))[:, :, None]
