"""Drawing onto images: labels."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["draw_text"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_BOX = (20, 20, 20, 215)  # almost opaque: the text reads on any picture, the picture still shows
_TEXT = (255, 255, 255, 255)


def draw_text(image: Tensor, text: str) -> Tensor:
    """Write a label on a dark box into the upper left corner of a copy of the image.

    The letters are a fifteenth of the shorter side; a long text is wrapped, then made smaller, then cut.

    Args:
        image: uint8 [3, H, W].
        text: What to write; Latin, Greek and Cyrillic letters (others appear as boxes).

    Returns:
        uint8 [3, H, W]. Pictures smaller than 12 pixels are returned unchanged.
    """
    height, width = image.shape[1:]
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())).convert("RGBA")
    if min(height, width) >= 12 and text.strip():
        text = text[:300]  # more never fits
        layer = Image.new("RGBA", picture.size)
        canvas = ImageDraw.Draw(layer)
        lines, font, margin = _fit(canvas, text, width, height)
        left, top, right, bottom = canvas.multiline_textbbox((0, 0), lines, font=font, spacing=margin)
        box = (0, 0, right - left + 2 * margin, bottom - top + 2 * margin)
        canvas.rectangle(box, fill=_BOX)
        canvas.multiline_text((margin - left, margin - top), lines, font=font, fill=_TEXT, spacing=margin)
        picture = Image.alpha_composite(picture, layer)
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)


def _fit(canvas: ImageDraw.ImageDraw, text: str, width: int, height: int) -> tuple[str, Font, int]:
    """Return the text in lines, its font and its margin in pixels, so that it fills half of the picture at most."""
    largest = max(11, round(min(height, width) / 15))
    smallest = max(8, largest // 2)
    size = largest
    while True:
        font, margin = _font(text, size), max(1, size // 5)
        lines = _wrap(canvas, text, font, width - 2 * margin)
        _, top, _, bottom = canvas.multiline_textbbox((0, 0), "\n".join(lines), font=font, spacing=margin)
        if bottom - top + 2 * margin <= height / 2 or (size == smallest and len(lines) == 1):
            return "\n".join(lines), font, margin
        if size > smallest:
            size -= 1
        else:
            room = max(1, int(len(lines) * (height / 2) / (bottom - top + 2 * margin)))
            shown = " ".join(lines[: min(room, len(lines) - 1)])
            text = shown[:-1].rstrip("…") + "…"


def _font(text: str, size: int) -> Font:
    """Return Pillow's own font, or DejaVu from matplotlib for letters that the former lacks."""
    if text.replace("…", "").isascii():
        return ImageFont.load_default(size)
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _wrap(canvas: ImageDraw.ImageDraw, text: str, font: Font, room: int) -> list[str]:
    """Return the text in lines no wider than ``room`` pixels; longer words are broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if canvas.textlength(longer, font=font) <= room:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and canvas.textlength(lines[-1] + letter, font=font) > room:
                lines.append("")
            lines[-1] += letter
    return lines
