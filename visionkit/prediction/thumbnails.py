"""Small pictures for pages of HTML, as addresses that hold them."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from visionkit.data.images.decode import Array

__all__ = ["SIDE", "address", "shrunk", "webp"]

SIDE = 192
"""Longer side of a small picture in pixels."""
QUALITY = 70  # of WebP, 0..100


def shrunk(pixels: Array, side: int = SIDE) -> Array:
    """Return a picture, uint8 [H, W, 3], no longer than ``side`` pixels on its longer side; a copy."""
    height, width = pixels.shape[:2]
    part = min(1.0, side / max(height, width))
    size = (max(1, round(width * part)), max(1, round(height * part)))
    return np.array(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), order="C")


def webp(pixels: Array, quality: int = QUALITY) -> bytes:
    """Return an RGB picture, uint8 [H, W, 3], as a WebP file.

    Args:
        pixels: The picture.
        quality: 1 to 100; lower is smaller.
    """
    done, data = cv2.imencode(".webp", np.ascontiguousarray(pixels[:, :, ::-1]), [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:  # no picture of a size that is read
        raise ValueError(f"a picture of {pixels.shape} cannot be written as WebP")
    return data.tobytes()


def address(data: bytes) -> str:
    """Return a WebP file as the address of a picture that holds it."""
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
