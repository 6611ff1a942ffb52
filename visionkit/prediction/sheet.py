"""A sheet of pictures: groups side by side, each picture with a caption, under a heading."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from visionkit.prediction.fonts import Font, font_for

__all__ = ["Tile", "draw_sheet"]

_CAPTION, _HEADING = 15, 20  # pixels, height of the letters
_GAP = 6  # pixels between the pictures of a group
_SPACE = 18  # pixels between groups, and around all
_NARROWEST = 160  # pixels that the caption of a narrow picture may take
_PAPER, _INK = (255, 255, 255), (20, 20, 20)
_ASPECT = 1.4  # width to height that a sheet comes near to


Tile: TypeAlias = tuple[Tensor, str]
"""A picture, uint8 [3, H, W], and what stands above it in one line; a caption that is too long loses its middle."""


def draw_sheet(groups: Sequence[Sequence[Tile]], heading: str) -> Tensor:
    """Put pictures onto one white sheet, about 1.4 times as wide as high.

    Args:
        groups: At least one, each of at least one picture; those of a group stay side by side.
        heading: Stands above all; it is wrapped.

    Returns:
        uint8 [3, H, W].
    """
    columns = _columns(groups)
    rows = [groups[k : k + columns] for k in range(0, len(groups), columns)]
    widths = [max(_width(row[c]) for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(image.shape[1] for group in row for image, _ in group) for row in rows]
    caption = _line_height(_CAPTION)
    width = sum(widths) + (columns + 1) * _SPACE
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines = _wrapped(measure, heading, width - 2 * _SPACE)
    top = _SPACE + len(lines) * _line_height(_HEADING) + _SPACE // 2
    height = top + sum(heights) + len(rows) * (caption + _SPACE)
    sheet = Image.new("RGB", (width, height), _PAPER)
    canvas = ImageDraw.Draw(sheet)
    for k, line in enumerate(lines):
        canvas.text((_SPACE, _SPACE + k * _line_height(_HEADING)), line, _INK, font_for(line, _HEADING))
    for row, high in zip(rows, heights, strict=True):
        for c, group in enumerate(row):
            left = _SPACE + sum(widths[:c]) + c * _SPACE
            for image, words in group:
                font = font_for(words, _CAPTION)
                canvas.text((left, top), _shortened(canvas, words, font, _slot(image)), _INK, font)
                pixels = image.permute(1, 2, 0).cpu().numpy()
                sheet.paste(Image.fromarray(np.ascontiguousarray(pixels)), (left, top + caption))
                left += _slot(image) + _GAP
        top += caption + high + _SPACE
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


def _slot(image: Tensor) -> int:
    """Return the width that a picture and its caption take."""
    return max(int(image.shape[2]), _NARROWEST)


def _width(group: Sequence[Tile]) -> int:
    return sum(_slot(image) for image, _ in group) + (len(group) - 1) * _GAP


def _columns(groups: Sequence[Sequence[Tile]]) -> int:
    """Return how many groups stand side by side, so that the sheet has about the shape that is wanted and few gaps."""
    wide = max(map(_width, groups)) + _SPACE
    high = max(image.shape[1] for group in groups for image, _ in group) + _line_height(_CAPTION) + _SPACE

    def odd(columns: int) -> float:
        rows = math.ceil(len(groups) / columns)
        empty = 1 - len(groups) / (rows * columns)
        return abs(math.log(columns * wide / (rows * high) / _ASPECT)) + 2 * empty

    return min(range(1, len(groups) + 1), key=odd)


def _line_height(size: int) -> int:
    return round(size * 1.5)


def _shortened(canvas: ImageDraw.ImageDraw, text: str, font: Font, room: int) -> str:
    """Return a text no wider than ``room`` pixels; of a longer one the middle is left out."""
    kept = len(text)
    shown = text
    while kept > 1 and canvas.textlength(shown, font=font) > room:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


def _wrapped(canvas: ImageDraw.ImageDraw, text: str, room: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and canvas.textlength(longer, font=font_for(longer, _HEADING)) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
