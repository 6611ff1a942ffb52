"""A map laid over its picture, with what it explains and what it is worth written below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from visionkit.core.sample import ImageInfo
from visionkit.prediction.explanations.judging import Scored
from visionkit.prediction.fonts import Font, font_for

__all__ = ["LARGEST", "SMALLEST", "Legend", "draw_map", "to_picture"]

Colour: TypeAlias = tuple[int, int, int]
Pixels: TypeAlias = NDArray[np.uint8]
Box: TypeAlias = tuple[float, float, float, float]

LARGEST, SMALLEST = 1024, 320
"""Longer side of a drawn picture, in pixels: larger ones are drawn smaller, smaller ones larger."""
_OPACITY = 0.75  # of the colour where the evidence is strongest
_FADED = 0.6  # of the light of the picture that is left where there is none
_GROUND, _WHITE, _GREY, _WARNING = (20, 20, 20), (255, 255, 255), (190, 190, 190), (255, 190, 60)
_STEPS = 64  # of the scale of colours


@dataclass(frozen=True)
class Legend:
    """What is written below a drawing.

    Args:
        label: Name of the class.
        score: How certain the model is of it, 0..1.
        scored: What the map and a blob in the centre score.
        cells: Rows and columns of the map before it was made smooth.
    """

    label: str
    score: float
    scored: Scored
    cells: tuple[int, int]


def draw_map(
    image: Tensor,
    values: Tensor,
    info: ImageInfo,
    legend: Legend,
    *,
    box: Box | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Lay a map over its picture: bright where the evidence is, dimmed elsewhere, with a legend below.

    Args:
        image: The picture as read, uint8 [1 or 3, H, W].
        values: The map, 0..1, float [h, w] in pixels that the model saw.
        info: Where the picture lies in these.
        legend: What is written below.
        box: x1, y1, x2 and y2 in pixels of the picture, of an object to outline.
        mask: Bool [h, w] in pixels that the model saw, to outline in place of the box.

    Returns:
        uint8 [3, h', w'], the longer side of the picture in it from ``SMALLEST`` to ``LARGEST`` pixels.
    """
    height, width = image.shape[1:]
    factor = min(LARGEST / max(height, width), max(1.0, SMALLEST / max(height, width)))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    pixels = np.ascontiguousarray(image.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy())
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    pixels = cv2.resize(pixels, (size[1], size[0]), interpolation=way)
    drawn = _overlaid(pixels, to_picture(values, info, size))
    line = max(1, round(min(size) / 200))
    left, top, right, bottom = frame = _frame(info, (values.shape[0], values.shape[1]), size)
    framed = frame != (0, 0, size[1], size[0])
    if framed:  # the model did not see all of it
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), _GREY, 1)
    contours = _contours(info, size, box, mask)
    cv2.drawContours(drawn, contours, -1, (0, 0, 0), line + 2)
    cv2.drawContours(drawn, contours, -1, _WHITE, line)
    whole = np.concatenate([drawn, _written(legend, size[1], framed=framed)])
    return torch.from_numpy(whole).permute(2, 0, 1)


def to_picture(values: Tensor, info: ImageInfo, size: tuple[int, int], *, smooth: bool = True) -> NDArray[np.float32]:
    """Bring a map from pixels that the model saw to those of the picture; 0 where the model saw nothing of it.

    Args:
        values: Float [H, W], in pixels of what the model saw.
        info: Where the picture lies in that.
        size: Height and width at which the picture is drawn, of whatever size it is.
        smooth: Whether values are interpolated.
    """
    y, x = (original / drawn for original, drawn in zip(info.size, size, strict=True))  # pixels of the original each
    (sy, sx), (oy, ox) = info.scale, info.offset
    matrix = np.array(
        [[x * sx, 0, 0.5 * x * sx + ox - 0.5], [0, y * sy, 0.5 * y * sy + oy - 0.5]]
    )  # centres of pixels to centres of pixels
    seen = np.ascontiguousarray(values.cpu().numpy(), np.float32)
    flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST)
    moved = cv2.warpAffine(seen, matrix, (size[1], size[0]), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = np.zeros_like(moved)
    left, top, right, bottom = _frame(info, (seen.shape[0], seen.shape[1]), size)
    inside[top:bottom, left:right] = 1
    return np.asarray(moved * inside, np.float32)


def _frame(info: ImageInfo, seen: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what the model saw of a picture, where it is drawn at a size."""
    found = []
    for axis in (1, 0):
        factor = size[axis] / info.size[axis] / info.scale[axis]
        ends = (-info.offset[axis] * factor, (seen[axis] - info.offset[axis]) * factor)
        found.append([min(max(round(end), 0), size[axis]) for end in ends])
    (left, right), (top, bottom) = found
    return left, top, right, bottom


def _overlaid(pixels: Pixels, values: NDArray[np.float32]) -> Pixels:
    """Return the picture, uint8 [H, W, 3], under the colours of values 0..1, [H, W]."""
    share = values[..., None]
    light = pixels * (_FADED + (1 - _FADED) * share)
    opacity = _OPACITY * share
    return np.asarray(light * (1 - opacity) + _colours(values) * opacity, np.uint8)


def _colours(values: NDArray[np.float32]) -> Pixels:
    """Return the colours of values 0..1, uint8 [..., 3]: a scale that grows evenly brighter, for all eyes."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1]
    return np.asarray(table[(values.clip(0, 1) * 255).astype(np.uint8)], np.uint8)


def _contours(info: ImageInfo, size: tuple[int, int], box: Box | None, mask: Tensor | None) -> Sequence[NDArray[Any]]:
    """Return the edge of what is explained where the picture is drawn at a size: of its pixels, or its box."""
    if mask is not None:
        inside = to_picture(mask.float(), info, size, smooth=False) > 0.5
        found, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        return found
    if box is None:
        return []
    factors = (size[1] / info.size[1], size[0] / info.size[0]) * 2
    x1, y1, x2, y2 = (round(v * f) for v, f in zip(box, factors, strict=True))
    x2, y2 = max(x1, min(x2, size[1]) - 1), max(y1, min(y2, size[0]) - 1)
    return [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.int32)]


def _written(legend: Legend, width: int, *, framed: bool) -> Pixels:
    """Return what is written below the picture, uint8 [h, width, 3]."""
    size = max(13, min(22, round(width / 26)))
    small = max(11, round(size * 0.75))
    better = round(legend.scored.map, 2) > round(legend.scored.blob, 2)  # as it reads
    worth = f"map {legend.scored.map:.2f}, a blob in the centre {legend.scored.blob:.2f}"
    cells = f"{legend.cells[0]} x {legend.cells[1]} cells, drawn smooth"
    lines: list[tuple[str, int, Colour]] = [
        (f"{legend.label} {legend.score:.0%}", size, _WHITE),
        (worth if better else f"{worth}: do not read anything into it", small, _GREY if better else _WARNING),
        ("insertion minus deletion: higher is better", small, _GREY),
        (f"{cells}; the model saw what is framed" if framed else cells, small, _GREY),
    ]
    margin = max(4, size // 3)
    tall = sum(round(1.35 * letters) for _, letters, _ in lines) + 2 * margin
    strip = Image.new("RGB", (width, tall), _GROUND)
    canvas = ImageDraw.Draw(strip)
    y = margin
    for text, letters, colour in lines:
        shown, font = _fitting(canvas, text, letters, width - 2 * margin)
        canvas.text((margin, y), shown, font=font, fill=colour)
        y += round(1.35 * letters)
    _scale(strip, canvas, margin, small)
    return np.array(strip)


def _fitting(canvas: ImageDraw.ImageDraw, text: str, size: int, room: int) -> tuple[str, Font]:
    """Return a text and its font so that it is no wider than the room: smaller letters first, then fewer."""
    for letters in range(size, 9, -1):
        font = font_for(text, letters)
        if canvas.textlength(text, font=font) <= room:
            return text, font
    while len(text) > 1 and canvas.textlength(text, font=font_for(text, 10)) > room:
        text = f"{text[:-2]}…"
    return text, font_for(text, 10)


def _scale(strip: Image.Image, canvas: ImageDraw.ImageDraw, margin: int, size: int) -> None:
    """Draw the scale of colours into the lower right corner, where there is room beside the last line."""
    words: Sequence[str] = ("no evidence", "most")
    font = font_for("".join(words), size)
    first, last = (round(canvas.textlength(word, font=font)) for word in words)
    wide = first + last + _STEPS + 4 * margin
    if strip.width < 2 * wide:
        return
    x, y = strip.width - wide, strip.height - margin - round(1.35 * size)
    canvas.text((x, y), words[0], font=font, fill=_GREY)
    bar = _colours(np.repeat(np.linspace(0, 1, _STEPS, dtype=np.float32)[None], size, 0))
    strip.paste(Image.fromarray(bar), (x + first + margin, y + 2))
    canvas.text((x + first + _STEPS + 2 * margin, y), words[1], font=font, fill=_GREY)
