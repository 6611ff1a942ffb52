"""Drawing onto images: labels, and boxes with labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["PALETTE", "draw_boxes", "draw_text"]

Place = tuple[int, int, int, int]
"""First and last column and row: left, top, right, bottom."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_BOX = (20, 20, 20, 215)  # almost opaque: the text reads on any picture, the picture still shows
_TEXT = (255, 255, 255, 255)
_EDGE = (0, 0, 0)

PALETTE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (51, 34, 136), (136, 204, 238), (221, 204, 119), (136, 34, 85), (153, 153, 51), (17, 119, 51), (255, 255, 255),
)  # fmt: skip
"""RGB colours of classes, told apart by colour-blind people too: those of Okabe and Ito (2008), then some of Tol's
"muted" scheme (2021). Classes beyond them start over."""


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


def draw_boxes(image: Tensor, boxes: Tensor, labels: Tensor, texts: Sequence[str]) -> Tensor:
    """Draw boxes in the colours of their classes, with texts on tags, onto a copy of the image.

    The first boxes are the strongest: they are drawn on top and have the first choice of places for their tags. A tag
    stands above its box, else in its upper corner, else below it, always within the picture; where stronger tags take
    all three places it is left out. A text longer than half the picture's width is cut. Pictures with a side below 100
    pixels get boxes only: tags would hide what there is to see.

    Args:
        image: uint8 [3, H, W].
        boxes: Float [N, 4], xyxy in pixels.
        labels: int64 [N], class ids; they choose the colours.
        texts: The N texts; an empty one makes no tag.

    Returns:
        uint8 [3, H, W].
    """
    height, width = image.shape[1:]
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))
    canvas = ImageDraw.Draw(picture)
    shorter = min(height, width)
    line = max(1, round(shorter / 200))  # pixels
    places = [_whole(box, width, height) for box in boxes.tolist()]
    colours = [PALETTE[k % len(PALETTE)] for k in labels.tolist()]
    for (left, top, right, bottom), colour in reversed(list(zip(places, colours, strict=True))):
        if line > 1:  # a dark edge: the colour shows on a ground of its own colour
            canvas.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_EDGE, width=line + 2)
        canvas.rectangle((left, top, right, bottom), outline=colour, width=line)
    taken: list[Place] = []
    size = max(10, round(shorter / 36))
    for place, colour, text in zip(places, colours, texts, strict=True):
        if shorter >= 100 and text.strip():
            _draw_tag(canvas, place, text, colour, size, taken)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _draw_tag(
    canvas: ImageDraw.ImageDraw, box: Place, text: str, colour: tuple[int, int, int], size: int, taken: list[Place]
) -> None:
    """Write a text of ``size`` pixels on a filled tag at a box where none is yet, and add its place to ``taken``."""
    width, height = canvas.im.size
    font, margin = _font(text, size), max(2, size // 5)
    shown = text
    while canvas.textlength(shown, font=font) > width / 2 and len(shown) > 2:
        shown = f"{shown[:-2]}…"
    font = _font(shown, size)
    _, top, _, bottom = (round(v) for v in canvas.textbbox((0, 0), "Ág", font=font))  # equally high for all texts
    wide, high = round(canvas.textlength(shown, font=font)) + 2 * margin, bottom - top + 2 * margin
    x = max(0, min(box[0], width - wide))
    for y in (box[1] - high, box[1], box[3] + 1):
        place = (x, y, x + wide - 1, y + high - 1)
        if 0 <= y <= height - high and not any(_meet(place, other) for other in taken):
            break
    else:
        return
    taken.append(place)
    canvas.rectangle(place, fill=colour, outline=_EDGE)
    light = (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000 > 110
    canvas.text((x + margin, y + margin - top), shown, font=font, fill=_EDGE if light else _TEXT)


def _meet(a: Place, b: Place) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _whole(box: Sequence[float], width: int, height: int) -> Place:
    """Return the first and last column and row of a box, within the picture."""
    left, top = min(max(round(box[0]), 0), width - 1), min(max(round(box[1]), 0), height - 1)
    right, bottom = min(round(box[2]) - 1, width - 1), min(round(box[3]) - 1, height - 1)
    return left, top, max(left, right), max(top, bottom)


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
