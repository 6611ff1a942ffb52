"""Small pictures of the gallery: objects cut out with their boxes, and classes of pixels laid over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from visionkit.core.errors import DataError
from visionkit.data.images.decode import Array, Decoded
from visionkit.data.labels.masks import IGNORE, ObjectMasks, read_segmentation
from visionkit.evaluation.report.shots import Box, Shot
from visionkit.prediction.draw import palette
from visionkit.prediction.thumbnails import SIDE, shrunk

__all__ = ["FOUND", "TRUTH", "draw_cut", "draw_pixels", "scale_of"]

TRUTH, FOUND = (86, 180, 233), (230, 159, 0)
"""Colours, RGB, of what is true and what was predicted: Okabe and Ito's sky blue and orange."""
_EDGE = (0, 0, 0)
_DASH = 6  # pixels


def scale_of(shot: Shot, size: tuple[int, int]) -> tuple[float, float]:
    """Return by what a picture of some height and width may be made smaller for a shot."""
    left, top, right, bottom = shot.focus or (0, 0, size[1], size[0])
    seen = max(right - left, bottom - top)
    part = min(1.0, SIDE / max(seen, 1.0))
    return part, part


def draw_cut(shot: Shot, picture: Decoded) -> Array:
    """Return the part of a picture that a shot shows, with its boxes; all of it where it has none.

    Args:
        shot: What is shown.
        picture: As it was read, perhaps at a part of its size.

    Returns:
        uint8 [h, w, 3], 192 pixels on its longer side, or less where the whole picture is smaller.
    """
    pixels = picture.pixels
    if shot.focus is None:
        return shrunk(pixels)
    down, across = pixels.shape[0] / picture.size[0], pixels.shape[1] / picture.size[1]
    left, right = _ends(shot.focus[0] * across, shot.focus[2] * across, pixels.shape[1])
    top, bottom = _ends(shot.focus[1] * down, shot.focus[3] * down, pixels.shape[0])
    part = SIDE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * part)), max(1, round((bottom - top) * part)))
    how = cv2.INTER_AREA if part < 1 else cv2.INTER_LINEAR
    cut = np.array(cv2.resize(pixels[top:bottom, left:right], size, interpolation=how), order="C")
    factors = (across * size[0] / (right - left), down * size[1] / (bottom - top))
    shift = (left * size[0] / (right - left), top * size[1] / (bottom - top))
    for box in shot.boxes:
        if box.mask is not None:
            _fill(cut, box.mask, factors, shift)
    for box in shot.boxes:
        _outline(cut, box, factors, shift)
    return cut


def draw_pixels(picture: Decoded, ids: NDArray[Any], names: Sequence[str]) -> Array:
    """Return a small picture with the classes of its pixels laid over.

    Args:
        picture: As it was read.
        ids: Class ids [H, W], 255 for pixels that say nothing.
        names: Class names.
    """
    small = shrunk(picture.pixels)
    height, width = small.shape[:2]
    seen = cv2.resize(np.asarray(ids, np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    table = np.zeros((256, 3), np.uint8)
    colours = palette(len(names))
    table[: len(colours)] = colours
    mixed = (small >> 1) + (table >> 1)[seen]
    laid: Array = np.where((seen == IGNORE)[..., None], small, mixed).astype(np.uint8)
    return laid


def _ends(start: float, end: float, edge: int) -> tuple[int, int]:
    first = min(max(int(start), 0), edge - 1)
    return first, min(max(first + 1, round(end)), edge)


def _outline(pixels: Array, box: Box, factors: tuple[float, float], shift: tuple[float, float]) -> None:
    """Draw a box: truth with whole lines, what was predicted dashed, other objects thin."""
    x1, x2 = (round(v * factors[0] - shift[0]) for v in (box.place[0], box.place[2]))
    y1, y2 = (round(v * factors[1] - shift[1]) for v in (box.place[1], box.place[3]))
    edge = 4 * SIDE  # lines that end far outside are cut there
    (x1, x2), (y1, y2) = ([min(max(v, -edge), edge) for v in pair] for pair in ((x1, x2), (y1, y2)))
    if box.kind == "other":
        cv2.rectangle(pixels, (x1, y1), (x2, y2), TRUTH, 1)
        return
    cv2.rectangle(pixels, (x1, y1), (x2, y2), _EDGE, 4)
    if box.kind == "truth":
        cv2.rectangle(pixels, (x1, y1), (x2, y2), TRUTH, 2)
        return
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
        for at in range(0, length, 2 * _DASH):
            near, far = at / length, min(1.0, (at + _DASH) / length)
            ends = [tuple(round(s + (e - s) * t) for s, e in zip(start, end, strict=True)) for t in (near, far)]
            cv2.line(pixels, ends[0], ends[1], FOUND, 2)


def _fill(pixels: Array, mask: Mapping[str, Any], factors: tuple[float, float], shift: tuple[float, float]) -> None:
    """Lay the mask of an object over a cut; one that cannot be read is left out."""
    size = mask.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(v) is int and 0 < v < 2**16 for v in size)):
        return
    try:
        outline, _ = read_segmentation(mask, (size[0], size[1]), "mask")
    except DataError:
        return
    (dense,) = ObjectMasks((outline,), (size[0], size[1])).dense()
    moved = np.array([[factors[0], 0, -shift[0]], [0, factors[1], -shift[1]]], np.float64)
    seen = cv2.warpAffine(dense, moved, (pixels.shape[1], pixels.shape[0]), flags=cv2.INTER_NEAREST) > 0
    pixels[seen] = (pixels[seen] * 0.6 + np.array(FOUND) * 0.4).astype(np.uint8)
